"""Traces that the views are tested on: small and large, with loops, shared values, updates and strange numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgrad as sg
from stepgrad.explain import lesson


def two_layers() -> sg.Trace:
    return sg.trace(lesson.network, **lesson.network_inputs(), wrt=lesson.PARAMETERS)


def loop(length: int = 100) -> sg.Trace:
    def repeated(A: Any, W: Any) -> Any:
        for _ in range(length):
            A = np.tanh(W @ A)
        return A.sum()

    return sg.trace(repeated, np.ones((2, 1)), np.array([[0.5, -0.2], [0.1, 0.4]]))


def various() -> sg.Trace:
    """Many steps in no regular order, and one input that many of them read."""

    def chain(x: Any, w: Any) -> Any:
        for i in range(70):
            if i % 3 == 0:
                x = x * w
            elif i % 7:
                x = np.tanh(x + i)
            else:
                x = np.sin(x) + w
        return x.sum()

    return sg.trace(chain, np.ones(2), np.array([0.5, 0.6]))


def shared() -> sg.Trace:
    def net(x: Any, W: Any) -> Any:
        h = np.tanh(x @ W)
        g = h + np.tanh(h @ W)
        return ((g - x) ** 2).mean() + 0.1 * (W * W).sum()

    return sg.trace(net, np.ones((3, 2)), np.array([[0.1, 0.2], [0.3, -0.4]]))


def training() -> sg.Trace:
    model = sg.nn.Sequential(sg.nn.Linear(4, 8), sg.nn.ReLU(), sg.nn.Linear(8, 3))
    optimizer = sg.optim.Adam(model.parameters(), lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        optimizer.step(sg.backward(loss, model.parameters()))
        return loss

    return sg.trace(step, np.ones((5, 4), np.float32), np.array([0, 1, 2, 1, 0]))


def not_finite() -> sg.Trace:
    def bad(x: Any) -> Any:
        y = np.log(x) + np.array([0.0, np.nan, 1.0])
        return y.sum()

    return sg.trace(bad, np.array([0.0, 1.0, np.inf]))


def no_gradients() -> sg.Trace:
    """No gradient reaches the input."""

    def fixed(x: Any) -> Any:
        y = x * 2
        return sg.stop_gradient(y) + 1.0

    return sg.trace(fixed, np.ones(2))


def many_parameters() -> sg.Trace:
    def total(xs: Any) -> Any:
        y = np.stack(xs)
        return (y * y).sum()

    return sg.trace(total, [np.float64(i) for i in range(90)])


def hostile() -> sg.Trace:
    """Texts that would end a script element, a comment or an attribute, were they not escaped."""

    def page(x: Any) -> Any:
        y = sg.name(np.exp(x), "</script><b>")
        assert "]]>&'\"</script><!--"
        z = y + len("]]>&'\"</script><!--") * 0.0 + (y > 0) * 1.0
        return z.sum()

    return sg.trace(page, np.ones(2))


ALL = [two_layers, loop, various, shared, training, not_finite, no_gradients, many_parameters, hostile]
