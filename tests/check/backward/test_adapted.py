"""sg.check_backward on one thing that has both passes: an object, a class of static methods, a framework's function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.backward.adapters import at_other_points
from stepgrad.check.backward.objects import object_subject
from stepgrad.errors import ArgumentError

X = np.random.default_rng(0).standard_normal((3, 5))


class Linear:
    def __init__(self) -> None:
        self.W, self.b = np.random.default_rng(1).standard_normal((5, 2)), np.zeros(2)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Any) -> Any:
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Wrong(Linear):
    def backward(self, dout: Any) -> Any:
        self.dW = self.x.T @ dout / len(dout)
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Static:
    @staticmethod
    def forward(x: Any) -> Any:
        out = np.tanh(x)
        return out, out

    @staticmethod
    def backward(dout: Any, cache: Any) -> Any:
        return dout * (1 - cache**2)


def test_right_objects() -> None:
    assert sg.check_backward(Linear(), inputs={"x": X}).ok
    assert sg.check_backward(Linear(), {"x": X}).ok
    assert sg.check_backward(Static, inputs={"x": X}).ok


def test_the_wrong_line_of_a_method() -> None:
    report = sg.check_backward(Wrong(), inputs={"x": X})
    (finding,) = report.findings
    assert finding.gradient == "self.dW"
    assert finding.code == "self.dW = self.x.T @ dout / len(dout)"
    assert finding.line == Wrong.backward.__code__.co_firstlineno + 1
    assert finding.mistake == "mean-twice"
    assert {g.name: g.ok for g in report.gradients} == {"the gradient of x": True, "self.dW": False, "self.db": True}


def test_other_points_have_other_sizes_where_they_fit() -> None:
    subject = object_subject(Linear(), X)
    assert subject is not None
    first, second, _, other = at_other_points(subject, np.random.default_rng(0))
    assert first is subject
    assert second.inputs["x"].shape == (3, 5)
    assert np.all(second.inputs["self.b"] != 0)
    sizes = other.inputs["x"].shape, other.inputs["self.W"].shape, other.inputs["self.b"].shape
    assert sizes[0][1] == sizes[1][0]
    assert sizes[1][1] == sizes[2][0]
    assert other.forward(other.inputs)[0].shape == (sizes[0][0], sizes[1][1])


def test_a_wrong_custom_rule() -> None:
    @sg.custom_rule
    def square(x: Any) -> Any:
        return x * x

    @square.backward
    def _(g: Any, out: Any, x: Any) -> Any:
        dz = 2 * g
        return (dz + x,)

    report = sg.check_backward(square, inputs={"x": X})
    assert not report.ok
    assert [g.name for g in report.gradients] == ["dx"]


@pytest.mark.peers
def test_a_wrong_torch_function() -> None:
    torch = pytest.importorskip("torch")

    class Square(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * x

    report = sg.check_backward(Square, inputs={"x": X})
    assert not report.ok
    assert report.findings[0].code == "return g * x"


def test_a_function_alone_has_no_backward() -> None:
    with pytest.raises(ArgumentError, match=r"tanh was given to be checked without a backward(.|\n)*forward, backward"):
        sg.check_backward(np.tanh, inputs={"x": X})
