"""Networks: modules, layers and initial values.

Example:
    >>> model = sg.nn.Sequential(sg.nn.Linear(2, 8), sg.nn.Tanh(), sg.nn.Linear(8, 1))
    >>> model(np.ones((5, 2), np.float32)).shape
    (5, 1)
"""

from stepgrad.nn import initialise
from stepgrad.nn.activations import (
    CELU,
    ELU,
    GELU,
    SELU,
    Activation,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from stepgrad.nn.containers import Sequential
from stepgrad.nn.dropout import Dropout
from stepgrad.nn.initialise import seed
from stepgrad.nn.layers import Embedding, Flatten, LayerNorm, Linear
from stepgrad.nn.module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Dropout",
    "Embedding",
    "Flatten",
    "Hardswish",
    "Hardtanh",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "Module",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "initialise",
    "seed",
]
