"""Backpropagation you can watch, check and trust, at full speed.

Example:
    >>> W = sg.Parameter([[1.0], [2.0]], name="W")
    >>> loss = sg.mean(sg.square(np.ones((3, 2), np.float32) @ W))
    >>> sg.backward(loss, W)
    tensor([[6.],
            [6.]], dtype=float32, name='dW')
"""

from stepgrad import errors, losses, nn, ops, optim
from stepgrad.cells import Parameter, State
from stepgrad.check import check_backward, check_gradients
from stepgrad.check.births import first_nan, snapshot
from stepgrad.check.compare import compare
from stepgrad.check.health import health
from stepgrad.check.why import why
from stepgrad.compile import compile
from stepgrad.ops import linalg, random, special
from stepgrad.ops.activations import *
from stepgrad.ops.arithmetic import *
from stepgrad.ops.choosing import *
from stepgrad.ops.comparisons import *
from stepgrad.ops.cumulative import *
from stepgrad.ops.diagonals import *
from stepgrad.ops.einsum import *
from stepgrad.ops.expanding import to_dtype as astype
from stepgrad.ops.exponentials import *
from stepgrad.ops.facts import *
from stepgrad.ops.finding import *
from stepgrad.ops.identities import *
from stepgrad.ops.indexing import *
from stepgrad.ops.joining import *
from stepgrad.ops.matrices import *
from stepgrad.ops.nans import *
from stepgrad.ops.norms import *
from stepgrad.ops.powers import *
from stepgrad.ops.products import *
from stepgrad.ops.rearranging import *
from stepgrad.ops.reductions import *
from stepgrad.ops.shapes import *
from stepgrad.ops.signals import *
from stepgrad.ops.softmax import *
from stepgrad.ops.sorting import *
from stepgrad.ops.special import *
from stepgrad.ops.statistics import *
from stepgrad.ops.taking import *
from stepgrad.ops.trigonometric import *
from stepgrad.rules import checkpoint, custom_rule, name
from stepgrad.tape.leaves import tensor
from stepgrad.tape.recording import no_grad
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Tensor
from stepgrad.train.fit import StopTraining, fit
from stepgrad.transforms import backward, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp

# isort: split
# The sum of a diagonal is np.trace and sg.linalg.trace; this name belongs to the explanation.
from stepgrad.explain.trace import Trace, trace
