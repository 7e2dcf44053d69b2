"""Objects with forward and backward methods, in the styles in which courses and books write them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from differences import errors, right

import stepgrad as sg
from stepgrad.check.backward.adapters import adapted, functions_of_class
from stepgrad.check.backward.objects import object_subject
from stepgrad.check.backward.subject import Subject
from stepgrad.errors import ArgumentError

rng = np.random.default_rng(0)
X = rng.standard_normal((3, 5))
LABELS = np.array([[1.0], [0.0], [1.0]])


class Linear:
    """Gradients in attributes; the downstream gradient of the input is returned."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.W = rng.standard_normal((inputs, outputs))
        self.b = np.zeros(outputs)
        self.dW = np.zeros_like(self.W)  # a gradient, not an input

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Any) -> Any:
        self.dW = self.x.T @ dout
        self.db = dout.sum(0)
        return dout @ self.W.T


class Lists:
    """Parameters and gradients in parallel lists, which are filled in place, in float32."""

    def __init__(self) -> None:
        self.params = [rng.standard_normal((5, 2)).astype(np.float32), np.zeros(2, np.float32)]
        self.grads = [np.zeros_like(p) for p in self.params]

    def forward(self, x: Any) -> Any:
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout: Any = 1) -> Any:
        W, _ = self.params
        self.grads[0][...] = self.x.T @ dout
        self.grads[1][...] = dout.sum(axis=0)
        return dout @ W.T


class Attributes:
    """Nothing is returned: dinputs, dweights and dbiases."""

    def __init__(self) -> None:
        self.weights = rng.standard_normal((5, 2))
        self.biases = np.zeros((1, 2))

    def forward(self, inputs: Any) -> None:
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases
        return self.output

    def backward(self, dvalues: Any) -> None:
        self.dweights = self.inputs.T @ dvalues
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


class Updating:
    """The backward takes a learning rate and updates the weights itself."""

    def __init__(self) -> None:
        self.weights = rng.standard_normal((5, 2))
        self.bias = rng.standard_normal((1, 2))

    def forward_propagation(self, input_data: Any) -> Any:
        self.input = input_data
        return self.input @ self.weights + self.bias

    def backward_propagation(self, output_error: Any, learning_rate: float) -> Any:
        input_error = output_error @ self.weights.T
        self.weights -= learning_rate * self.input.T @ output_error
        self.bias -= learning_rate * output_error.sum(0, keepdims=True)
        return input_error


class WithLoss:
    """A network: parameters in a dict, a loss in a method of its own, gradients returned in a dict."""

    def __init__(self) -> None:
        self.params = {"W1": rng.standard_normal((5, 4)), "b1": np.zeros(4), "W2": rng.standard_normal((4, 1))}

    def forward(self, X: Any) -> Any:
        self.A1 = np.tanh(X @ self.params["W1"] + self.params["b1"])
        return 1 / (1 + np.exp(-self.A1 @ self.params["W2"]))

    def compute_loss(self, y_hat: Any, y: Any) -> Any:
        return -np.mean(y * np.log(y_hat) + (1 - y) * np.log(1 - y_hat))

    def backward(self, X: Any, y: Any, y_hat: Any) -> Any:
        dZ2 = (y_hat - y) / len(X)
        grads = {"dW2": self.A1.T @ dZ2}
        dZ1 = dZ2 @ self.params["W2"].T * (1 - self.A1**2)
        grads["dW1"] = X.T @ dZ1
        grads["db1"] = dZ1.sum(0)
        return grads


class Number:
    """The forward returns the loss; the bias is a number."""

    def __init__(self) -> None:
        self.w = rng.standard_normal((5, 1))
        self.b = 0.0
        self.slope = 0.5  # a setting

    def forward(self, X: Any, Y: Any) -> Any:
        self.A = 1 / (1 + np.exp(-self.slope * (X @ self.w + self.b)))
        return np.mean(-Y * np.log(self.A) - (1 - Y) * np.log(1 - self.A)), self.A

    def backward(self, X: Any, Y: Any) -> None:
        dZ = self.slope * (self.A - Y) / len(X)
        self.dw = X.T @ dZ
        self.db = dZ.sum()


class InPlace:
    """A mask, and a downstream gradient that is changed in place."""

    def forward(self, x: Any) -> Any:
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout: Any) -> Any:
        dout[self.mask] = 0
        return dout


class Stack:
    """Layers in a list."""

    def __init__(self) -> None:
        self.layers = [Linear(5, 4), InPlace(), Linear(4, 2)]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout: Any) -> Any:
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class Held:
    """An array of a Parameter class, with a gradient that adds up, and a method that resets it."""

    class Array:
        def __init__(self, value: Any) -> None:
            self.value, self.grad = value, np.ones_like(value)

    def __init__(self) -> None:
        self.W = self.Array(rng.standard_normal((5, 2)))

    def zero_grad(self) -> None:
        self.W.grad[...] = 0

    def forward(self, x: Any) -> Any:
        return x @ self.W.value, {"x": x}

    def backward(self, dout: Any, cache: Any) -> Any:
        self.W.grad += cache["x"].T @ dout
        return dout @ self.W.value.T


class Nabla:
    """Lists of weights and biases; backprop takes the data, and begins with the loss."""

    def __init__(self) -> None:
        self.weights = [rng.standard_normal((4, 5)), rng.standard_normal((1, 4))]
        self.biases = [rng.standard_normal((4, 1)), rng.standard_normal((1, 1))]

    def feedforward(self, a: Any) -> Any:
        for b, w in zip(self.biases, self.weights, strict=True):
            a = np.tanh(w @ a + b)
        return a

    def cost(self, a: Any, y: Any) -> Any:
        return 0.5 * np.sum((a - y) ** 2)

    def backprop(self, x: Any, y: Any) -> Any:
        nabla_b = [np.zeros(b.shape) for b in self.biases]
        nabla_w = [np.zeros(w.shape) for w in self.weights]
        activations = [x]
        for b, w in zip(self.biases, self.weights, strict=True):
            activations.append(np.tanh(w @ activations[-1] + b))
        delta = activations[-1] - y
        for i in (-1, -2):
            delta = delta * (1 - activations[i] ** 2)
            nabla_b[i] = delta
            nabla_w[i] = delta @ activations[i - 1].T
            delta = self.weights[i].T @ delta
        return (nabla_b, nabla_w)


class Dropout:
    """A random mask, kept for the backward."""

    def forward(self, x: Any) -> Any:
        self.mask = (np.random.rand(*x.shape) < 0.5) / 0.5
        return x * self.mask

    def backward(self, dout: Any) -> Any:
        return dout * self.mask


def subject(thing: Any, inputs: Any) -> Subject:
    made = object_subject(thing, inputs)
    assert made is not None
    return made


NABLA = ("weights", "biases")
LAYERS = [Linear(5, 2), Lists(), Attributes(), Updating(), InPlace(), Stack(), Held(), Dropout()]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_every_input_of_a_layer_has_a_right_gradient(layer: Any) -> None:
    made = subject(layer, X.astype(np.float32))
    assert right(made)
    assert made.remarks == ()
    assert made.file == __file__


@pytest.mark.parametrize(
    ("network", "inputs", "gradients"),
    [
        (WithLoss(), {"X": X, "y": LABELS}, {"self.params['W1']", "self.params['b1']", "self.params['W2']"}),
        (Number(), {"X": X, "Y": LABELS}, {"self.w", "self.b"}),
        (Nabla(), {"x": X[0][:, None], "y": np.ones((1, 1))}, {f"self.{n}[{i}]" for n in NABLA for i in (0, 1)}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_networks_that_begin_with_their_loss(network: Any, inputs: Any, gradients: set[str]) -> None:
    found = errors(subject(network, inputs))
    assert set(found) == gradients
    assert max(found.values()) < 1e-6


def test_the_names_of_gradients_are_the_users() -> None:
    assert subject(Linear(5, 2), X).gradient_names == {
        "x": "the gradient of x", "self.W": "self.dW", "self.b": "self.db",
    }  # fmt: skip
    assert subject(Lists(), X).gradient_names["self.params[1]"] == "self.grads[1]"
    assert subject(Held(), X).gradient_names["self.W.value"] == "self.W.grad"
    names = subject(Nabla(), {"x": X[0][:, None], "y": np.ones((1, 1))}).gradient_names
    assert names["self.biases[1]"] == "nabla_b[1]"
    assert "divided by the learning rate" in subject(Updating(), X).notes[0]


def test_which_functions_are_watched() -> None:
    made = subject(Stack(), X)
    assert made.functions == (Stack.backward, Linear.backward, InPlace.backward)
    assert made.forward_functions == (Stack.forward, Linear.forward, InPlace.forward)


def test_the_object_is_left_alone() -> None:
    layer = Updating()
    before = {name: value.copy() for name, value in vars(layer).items()}
    errors(subject(layer, X))
    assert vars(layer).keys() == before.keys()
    assert all(np.array_equal(before[name], value) for name, value in vars(layer).items())


def test_forwards_can_be_recorded() -> None:
    for layer in (Linear(5, 2), Lists(), Attributes(), Held()):
        made = subject(layer, X)
        out, _ = made.forward({name: sg.tensor(value) for name, value in made.inputs.items()})
        assert isinstance(out, sg.Tensor)
        np.testing.assert_allclose(out.numpy(), made.forward(made.inputs)[0])


def test_arrays_that_are_held_twice_are_one_input() -> None:
    class Twice(Linear):
        def __init__(self) -> None:
            super().__init__(5, 2)
            self.params = {"W": self.W, "b": self.b}
            self.frozen = (self.W,)

        def forward(self, x: Any) -> Any:
            self.x = x
            return x @ self.params["W"] + self.b + 0 * self.frozen[0].sum()

    made = subject(Twice(), X)
    assert set(made.inputs) == {"x", "self.W", "self.b"}
    assert right(made)


def test_what_forward_changes_is_no_input() -> None:
    class Normalised:
        def __init__(self) -> None:
            self.gamma, self.running_mean, self.velocity = np.ones(5), np.zeros(5), {"gamma": np.zeros(5)}

        def forward(self, x: Any) -> Any:
            self.running_mean *= 0.9
            self.running_mean += 0.1 * x.mean(0)
            self.x = x
            return self.gamma * x

        def backward(self, dout: Any) -> Any:
            self.dgamma = (dout * self.x).sum(0)
            return dout * self.gamma

    made = subject(Normalised(), X)
    assert "self.running_mean" not in made.inputs
    assert max(errors(made).values()) < 1e-7


def test_integers_with_a_gradient_are_made_floating_point() -> None:
    for layer in (Linear(2, 2), InPlace()):
        made = subject(layer, {"x": np.array([[1, 2], [3, 4]])})
        assert made.inputs["x"].dtype == np.float64
        assert right(made)


def test_wrong_layers() -> None:
    class Wrong(Linear):
        def backward(self, dout: Any) -> Any:
            self.dW = dout.T @ self.x
            self.db = dout.sum()
            return dout @ self.W.T

    found = errors(subject(Wrong(5, 2), X))
    assert found["x"] < 1e-7
    assert found["self.W"] == found["self.b"] == float("inf")


def test_a_gradient_that_adds_up_is_remarked_on() -> None:
    class Adding(Linear):
        def backward(self, dout: Any) -> Any:
            self.dW += self.x.T @ dout
            self.db = dout.sum(0)
            return dout @ self.W.T

    (remark,) = subject(Adding(5, 2), X).remarks
    assert (remark.mistake, remark.gradient) == ("not-reset-between-calls", "self.dW")


def test_a_backward_that_raises_is_no_obstacle_yet() -> None:
    class Raising(Linear):
        def backward(self, dout: Any) -> Any:
            raise ZeroDivisionError

    made = subject(Raising(5, 2), X)
    with pytest.raises(ZeroDivisionError):
        errors(made)


def test_what_cannot_be_checked() -> None:
    class Locked(Linear):
        def __init__(self) -> None:
            super().__init__(5, 2)
            self.lock = threading.Lock()

    class NoLoss(WithLoss):
        compute_loss = None  # type: ignore[assignment]

        def backward(self, X: Any, y: Any) -> Any:  # type: ignore[override]
            return {}

    class Strange(Linear):
        def backward(self, dout: Any, mystery: Any) -> Any:  # type: ignore[override]
            return dout

    class Nothing(Linear):
        def forward(self, x: Any) -> Any:
            return None

    for thing, inputs, message in [
        (Linear, X, r"Linear is a class(.|\n)*Linear\(…\)"),
        (Linear(5, 2), {"y": X}, "inputs has 'y', and Linear.forward has the parameters x"),
        (Linear(5, 2), {}, "Linear.forward needs x"),
        (Locked(), X, "Locked can't be copied"),
        (NoLoss(), {"X": X, "y": LABELS}, r"NoLoss.forward returns an array of shape \(3, 1\)(.|\n)*loss\(self"),
        (Strange(5, 2), X, "Strange.backward needs mystery"),
        (Nothing(5, 2), X, "Nothing.forward returned nothing"),
        (InPlace(), np.ones(3, int) > 0, "InPlace.forward returned an array of bool"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            object_subject(thing, inputs)


def test_what_is_no_such_object() -> None:
    assert object_subject(SimpleNamespace(forward=len, backward=len), X) is None
    assert object_subject(np.tanh, X) is None
    assert adapted(lambda x: x, X) is None
    assert adapted(Linear(5, 2), X) is not None


def test_a_class_of_static_methods_is_two_functions() -> None:
    class Square:
        @staticmethod
        def forward(x: Any) -> Any:
            return x * x, x

        @staticmethod
        def backward(dout: Any, cache: Any) -> Any:
            return 2 * cache * dout

    assert functions_of_class(Square) == (Square.forward, Square.backward)
    assert functions_of_class(Linear) is None
    assert functions_of_class(Square()) is None
