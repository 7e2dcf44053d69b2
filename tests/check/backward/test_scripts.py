"""`stepgrad check FILE.py`: which forward and backward passes are found, and with which inputs they are called."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgrad.check.backward.limits import Answer
from stepgrad.check.backward.pairs import find_pairs, pair_named
from stepgrad.check.backward.sampling import smaller
from stepgrad.check.backward.scripted import check_file
from stepgrad.check.scripts import imported
from stepgrad.errors import ArgumentError

TWO_LAYERS = """
def forward_propagation(X, parameters):
    W1, b1, W2, b2 = parameters["W1"], parameters["b1"], parameters["W2"], parameters["b2"]
    Z1 = np.dot(W1, X) + b1
    A1 = np.tanh(Z1)
    Z2 = np.dot(W2, A1) + b2
    A2 = 1 / (1 + np.exp(-Z2))
    cache = {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}
    return A2, cache

def compute_cost(A2, Y):
    return -np.sum(np.log(A2) * Y + np.log(1 - A2) * (1 - Y)) / Y.shape[1]

def backward_propagation(parameters, cache, X, Y):
    m = X.shape[1]
    dZ2 = cache["A2"] - Y
    dW2 = np.dot(dZ2, cache["A1"].T) / m
    db2 = np.sum(dZ2, axis=1, keepdims=True) / m
    dZ1 = np.dot(parameters["W2"].T, dZ2) * (1 - np.power(cache["A1"], 2))
    dW1 = np.dot(dZ1, X.T) / m
    db1 = np.sum(dZ1, axis=1, keepdims=True) / m
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}

def update_parameters(parameters, grads, learning_rate=1.2):
    return {name: parameters[name] - learning_rate * grads["d" + name] for name in parameters}
"""

LAYERS = """
def affine_forward(x, w, b):
    out = x @ w + b
    cache = (x, w, b)
    return out, cache

def affine_backward(dout, cache):
    x, w, b = cache
    dx = dout @ w.T
    dw = x.T @ dout
    db = dout.sum(axis=0)
    return dx, dw, db

def relu(z):
    return np.maximum(0, z), z

def relu_backward(dout, cache):
    dx = dout * (cache > 0)
    return dx

def softmax_loss(x, y):
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    probs = shifted / shifted.sum(axis=1, keepdims=True)
    loss = -np.log(probs[np.arange(len(x)), y]).mean()
    dx = probs.copy()
    dx[np.arange(len(x)), y] -= 1
    dx = dx / len(x)
    return loss, dx

def eval_numerical_gradient(f, x):
    return None
"""

CLASSES = """
class Layer:
    def forward(self, x):
        raise NotImplementedError
    def backward(self, dout):
        raise NotImplementedError

class Linear(Layer):
    def __init__(self, n_in, n_out, scale=0.1):
        self.W = scale * np.random.randn(n_in, n_out)
        self.b = np.zeros(n_out)
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b
    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T

class Tanh(Layer):
    def forward(self, x):
        self.out = np.tanh(x)
        return self.out
    def backward(self, dout):
        return dout * (1 - self.out ** 2)

hidden = Linear(4, 6)
"""


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Any]:
    def written(code: str, name: str = "mybackprop.py") -> str:
        path = tmp_path / name
        path.write_text("import numpy as np\n" + textwrap.dedent(code))
        return str(path)

    return written


def checked(path: str, name: str = "", **shapes: tuple[int, ...]) -> Answer:
    return check_file(path, name, shapes, [], 8, 1e-6, 0)


def found(path: str) -> list[tuple[str, str]]:
    with imported(path) as module:
        return [(pair.kind, pair.name) for pair in find_pairs(module)]


# --- what is found


def test_which_passes_are_found(write: Any) -> None:
    assert found(write(TWO_LAYERS)) == [("loss apart", "backward_propagation")]
    assert found(write(LAYERS)) == [
        ("functions", "affine_backward"), ("functions", "relu_backward"), ("both in one", "softmax_loss"),
    ]  # fmt: skip
    assert found(write(CLASSES)) == [("object", "hidden"), ("class", "Tanh")]


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ("forward", "backward"),
        ("forward_prop", "backward_prop"),
        ("forward", "backprop"),
        ("feedforward", "backprop"),
        ("fprop", "bprop"),
        ("conv_fwd", "conv_bwd"),
        ("relu", "relu_backward"),
        ("compute_cost", "compute_gradient"),
        ("loss", "gradient"),
        ("loss_fn", "gradient"),
        ("gru_loss", "gru_grads"),
        ("attention", "attention_grad"),
        ("L_model_forward", "L_model_backward"),
        ("my_forward_model", "all_my_gradients"),  # the only ones in the file
    ],
)
def test_names_of_pairs(write: Any, forward: str, backward: str) -> None:
    path = write(f"def {forward}(x):\n    return np.sum(x * x)\ndef {backward}(x):\n    return 2 * x\n")
    with imported(path) as module:
        (pair,) = find_pairs(module)
        assert (pair.forward.__name__, pair.backward.__name__) == (forward, backward)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name", ["gradient_check", "numerical_gradient", "gradient_descent", "clip_gradients", "backup"]
)
def test_names_that_are_no_backward(write: Any, name: str) -> None:
    assert found(write(f"def forward(x):\n    return np.sum(x * x)\ndef {name}(x):\n    return 2 * x\n")) == []


def test_a_name_picks_one(write: Any) -> None:
    with imported(write(LAYERS + CLASSES)) as module:
        for name, kind in [
            ("affine_backward", "functions"),
            ("Tanh", "class"),
            ("hidden", "object"),
            ("Linear", "class"),
        ]:
            pair = pair_named(module, name)
            assert pair is not None
            assert pair.kind == kind
        assert pair_named(module, "affine_forward") is None  # its gradient can be checked, as that of any function
        assert pair_named(module, "nowhere") is None


@pytest.mark.peers
def test_functions_of_frameworks(write: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    path = write(
        """
        import jax
        import torch

        class Affine(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, w):
                ctx.save_for_backward(x, w)
                return x @ w
            @staticmethod
            def backward(ctx, g):
                x, w = ctx.saved_tensors
                return g @ w.T, x.T @ g

        @jax.custom_vjp
        def square(x):
            return x * x
        def square_fwd(x):
            return x * x, x
        def square_bwd(x, g):
            return (2 * x * g,)
        square.defvjp(square_fwd, square_bwd)
        """.replace("\n        ", "\n")
    )
    assert found(path) == [("framework", "Affine"), ("framework", "square")]
    answer = checked(path)
    assert answer.status == 0, answer.text
    assert "Affine: x (7, 5), w (5, 2), guessed" in answer.text
    assert checked(path, "Affine").status == 0


# --- whole files


def test_a_network_with_a_cost_of_its_own(write: Any) -> None:
    path = write(TWO_LAYERS)
    answer = checked(path)
    assert answer.status == 0, answer.text
    assert answer.text.startswith("backward_propagation, of forward_propagation and compute_cost: X (5, 7), ")
    assert "W1 (3, 5), b1 (3, 1), W2 (2, 3), b2 (2, 1), guessed" in answer.text
    assert "4 gradients" in answer.text
    assert answer.heading.endswith("on sys.path; it is only read")


def test_the_wrong_line_is_named(write: Any) -> None:
    path = write(TWO_LAYERS.replace("dW1 = np.dot(dZ1, X.T) / m", "dW1 = np.dot(dZ1, X.T)"))
    answer = checked(path)
    assert answer.status == 1
    line = Path(path).read_text().splitlines().index("    dW1 = np.dot(dZ1, X.T)") + 1
    assert f"dW1 is wrong (line {line}):  dW1 = np.dot(dZ1, X.T)" in answer.text
    assert "mean-missing" in answer.text


def test_every_pass_of_a_file_is_reported(write: Any) -> None:
    answer = checked(write(LAYERS.replace("cache > 0", "cache < 0") + CLASSES))
    assert answer.status == 1
    assert answer.text.count("backward is right") == 4, answer.text
    assert "dx is wrong" in answer.text
    assert "Tanh: Tanh(); x (7, 5), guessed" in answer.text
    assert "hidden, of the class Linear: x (7, 4), guessed" in answer.text
    assert answer.text.endswith("5 backward passes: 4 right, 1 wrong")


def test_gradients_before_the_cost(write: Any) -> None:
    code = """
    def propagate(w, b, X, Y):
        A = 1 / (1 + np.exp(-(np.dot(w.T, X) + b)))
        cost = -np.mean(Y * np.log(A) + (1 - Y) * np.log(1 - A))
        grads = {"dw": np.dot(X, (A - Y).T) / X.shape[1], "db": np.FUNCTION(A - Y)}
        return grads, cost
    X = np.random.randn(5, 6)
    Y = np.ones((1, 6))
    w, b = np.zeros((5, 1)), 0.0
    """
    assert checked(write(code.replace("FUNCTION", "mean"))).status == 0
    answer = checked(write(code.replace("FUNCTION", "sum")))
    assert answer.status == 1
    assert "propagate, which returns the loss and its gradients: w, b, X, Y as in the file" in answer.text
    assert "db is wrong" in answer.text


def test_a_backward_is_checked_with_those_that_it_calls(write: Any) -> None:
    code = """
    def layer_forward(A, W):
        return W @ A, (A, W)
    def layer_backward(dZ, cache):
        A, W = cache
        return W.T @ dZ, dZ @ A.T / A.shape[1]       # the mean is taken here
    def model_forward(X, W1, W2):
        A1, first = layer_forward(X, W1)
        A2, second = layer_forward(A1, W2)
        return A2, [first, second]
    def compute_cost(A2, Y):
        return np.sum((A2 - Y) ** 2) / Y.shape[1] / 2
    def model_backward(A2, Y, caches):
        dA1, dW2 = layer_backward(A2 - Y, caches[1])
        dX, dW1 = layer_backward(dA1, caches[0])
        return {"dW1": dW1, "dW2": dW2}
    """
    answer = checked(write(code))
    assert answer.status == 0, answer.text
    assert "(with layer_backward, which it calls)" in answer.text


def test_the_gradient_of_a_function_is_checked_as_before(write: Any) -> None:
    path = write(LAYERS + "\ndef plain(x):\n    return np.sum(np.tanh(x))\n")
    answer = checked(path, "plain", x=(2, 3))
    assert answer.text.startswith("gradients agree: 1 argument, 6 derivatives")
    assert checked(write("def plain(x):\n    return np.sum(x)\n"), x=(2,)).text.startswith("gradients agree")


# --- inputs


def test_guesses_let_every_gradient_have_the_shape_of_its_input(write: Any) -> None:
    """Broadcasting lets functions run with shapes that are not meant."""
    number = """
    def loss(w, b, x, y):
        z = x @ w + b
        return 0.5 * np.sum((z - y) ** 2)
    def grad(w, b, x, y):
        r = x @ w + b - y
        dw = x.T @ r
        db = r.sum()
        return dw, db
    """
    answer = checked(write(number))
    assert answer.status == 0, answer.text
    assert ", b = " in answer.text
    residual = """
    def block_forward(x, W1, W2):
        h = np.tanh(x @ W1)
        return x + h @ W2, (x, h, W2)
    def block_backward(dout, W1, cache):
        x, h, W2 = cache
        dh = (dout @ W2.T) * (1 - h ** 2)
        return {"dx": dout + dh @ W1.T, "dW1": x.T @ dh, "dW2": h.T @ dout}
    """
    answer = checked(write(residual))
    assert answer.status == 0, answer.text
    assert "W1 (5, 3), W2 (3, 5), guessed" in answer.text


def test_lists_of_weights_and_texts_are_guessed(write: Any) -> None:
    code = """
    def forward(x, weights, biases, activation):
        a = [x]
        for w, b in zip(weights, biases):
            z = a[-1] @ w + b
            if activation == "tanh":
                a.append(np.tanh(z))
        return a[-1], a
    def backward(dout, weights, a):
        dweights, dbiases = [], []
        for w, out, before in zip(weights[::-1], a[::-1], a[-2::-1]):
            dout = dout * (1 - out ** 2)
            dweights.insert(0, before.T @ dout)
            dbiases.insert(0, dout.sum(axis=0))
            dout = dout @ w.T
        return dweights, dbiases
    """
    answer = checked(write(code))
    assert answer.status == 0, answer.text
    assert "weights[0] (5, 3), weights[1] (3, 2)" in answer.text
    assert "4 gradients" in answer.text


def test_guesses_that_may_be_meant_otherwise_are_told(write: Any) -> None:
    answer = checked(write(LAYERS.replace("cache > 0", "cache < 0")), "relu_backward")
    assert answer.text.endswith("write in the file: INPUTS = {…}, or pass --shape.")


def test_where_inputs_come_from(write: Any) -> None:
    code = """
def forward(x, w, power=2):
    z = x @ w
    return np.sum(z ** power), z
def backward(x, w, z):
    dz = 2 * z
    return {"dw": x.T @ dz}
"""
    assert "x, w of the shape asked for" in checked(write(code), x=(3, 4), w=(4, 2)).text
    from_file = write(code + "INPUTS = {'x': np.eye(4)}\nw = np.ones((4, 2))\n")
    assert ": x as the file gives them; w as in the file\n" in checked(from_file).text
    from_function = write(code + "def backward_inputs():\n    return np.eye(4), np.ones((4, 2))\n")
    assert "x, w as the file gives them" in checked(from_function).text
    assert "x (7, 5), w (5, 2), guessed" in checked(write(code)).text
    with pytest.raises(ArgumentError, match=r"--shape q=… gives a value for q(.|\n)*power, w, x, z"):
        checked(write(code), q=(2,))


def test_integers_are_made_floating_point_unless_they_are_indices(write: Any) -> None:
    code = """
def forward(x, table, labels):
    z = table[labels] * x
    return np.sum(z ** 2), z
def backward(x, table, labels, z):
    dz = 2 * z
    dx = dz * table[labels]
    dtable = np.zeros_like(table, dtype=float)
    np.add.at(dtable, labels, dz * x)
    return dx, dtable
INPUTS = {"x": np.array([[1, 2], [3, 4]]), "table": np.arange(6).reshape(3, 2), "labels": np.array([2, 0])}
"""
    answer = checked(write(code))
    assert answer.status == 0, answer.text
    assert "2 gradients" in answer.text


def test_names_that_say_nothing(write: Any) -> None:
    code = (
        "def forward(alice, bob):\n    return np.sum(alice @ bob)\ndef backward(alice, bob):\n    return bob, alice\n"
    )
    with pytest.raises(ArgumentError, match=r"has no value for alice, bob(.|\n)*INPUTS = {'alice': …, 'bob': …}"):
        checked(write(code))


def test_a_class_that_cannot_be_made(write: Any) -> None:
    code = CLASSES.replace("n_in, n_out, scale=0.1", "blueprint").replace(
        "scale * np.random.randn(n_in, n_out)", "np.eye(3)"
    )
    code = code.replace("np.zeros(n_out)", "np.zeros(3)").replace("Linear(4, 6)", "Linear(None)")
    assert checked(write(code)).status == 0  # the file has an object
    path = write(code.replace("hidden = Linear(None)", ""))
    message = r"Linear has no object in the file, and needs blueprint(.|\n)*linear = Linear"
    with pytest.raises(ArgumentError, match=message):
        checked(path, "Linear")
    answer = checked(path)
    assert answer.status == 2
    assert answer.text.endswith("2 backward passes: 1 right, 0 wrong, 1 not checked")


def test_large_data_is_cut_down(write: Any) -> None:
    code = """
    X = np.random.randn(20000, 100)
    w = np.random.randn(100)
    def forward(X, w):
        z = X @ w
        return np.mean(z ** 2), z
    def backward(X, w, z):
        return {"dw": 2 * X.T @ z / len(X)}
    """
    answer = checked(write(code))
    assert answer.status == 0, answer.text
    assert "cut down (7 of 20,000, 11 of 100)" in answer.text


def test_lengths_that_are_cut_stay_equal() -> None:
    inputs = {"X": np.ones((500, 70)), "W": [np.ones((70, 3)), 4]}
    small, told = smaller(inputs)
    assert (small["X"].shape, small["W"][0].shape, small["W"][1]) == ((7, 11), (11, 3), 4)
    assert told == "7 of 500, 11 of 70"
    assert smaller({"X": np.ones((100, 100))})[1] == ""
    assert smaller({"X": np.ones((7, 30000))})[0]["X"].shape == (7, 11)


def test_sizes_that_are_written_down_are_not_cut(write: Any) -> None:
    code = """
    X = np.random.randn(70, 300)
    def forward(X):
        z = X.reshape(70, 300)
        return np.mean(z ** 2), z
    def backward(X, z):
        return {"dX": 2 * z / 21000}
    """
    assert "cut down" not in checked(write(code)).text
