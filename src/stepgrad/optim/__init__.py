"""Optimizers: what turns gradients into an update of the parameters.

Backpropagation computes gradients, an optimizer makes an update of them:

Example:
    >>> model = sg.nn.Linear(2, 1, key=0)
    >>> opt = sg.optim.SGD(model.parameters(), lr=0.1)
    >>> loss = sg.mean(sg.square(model(np.ones((4, 2), np.float32))))
    >>> opt.step(sg.backward(loss, model.parameters()))
    >>> opt.steps
    1
"""

from stepgrad.optim import schedules
from stepgrad.optim.adagrad import Adagrad
from stepgrad.optim.adam import Adam, AdamW
from stepgrad.optim.clipping import clip_by_norm
from stepgrad.optim.optimizer import Optimizer
from stepgrad.optim.rmsprop import RMSprop
from stepgrad.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_by_norm", "schedules"]
