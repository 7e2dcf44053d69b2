"""The backward walk through public names: what it returns, and what it says when there is nothing to return."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import AbstractValueError, DtypeError, GradientError, ShapeError, UnsupportedError


def test_gradients_have_the_structure_of_wrt() -> None:
    a, b, c = (sg.tensor(np.full(2, v), name=n) for v, n in ((1.0, "a"), (2.0, "b"), (3.0, "c")))
    loss = sg.sum(a * b + b * c)
    gradients = sg.backward(loss, {"one": a, "many": [b, (c,)]})
    assert set(gradients) == {"one", "many"}
    np.testing.assert_array_equal(gradients["one"].numpy(), [2, 2])
    np.testing.assert_array_equal(gradients["many"][0].numpy(), [4, 4])
    assert isinstance(gradients["many"][1], tuple)
    assert gradients["one"].name == "da"


def test_running_it_twice_gives_the_same_answer_twice() -> None:
    x = sg.tensor([1.0, 2.0])
    loss = sg.sum(x * x * x)
    first, second = sg.backward(loss, x), sg.backward(loss, x)
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_contributions_of_a_shared_value_add_up() -> None:
    x = sg.tensor(3.0)
    y = x * x
    assert sg.backward(y * y + y, x).item() == 4 * 27 + 2 * 3


def test_gradients_can_be_differentiated_again_and_again() -> None:
    x = sg.tensor([1.0, 2.0])
    g1 = sg.backward(sg.sum(x * x * x * x), x)
    g2 = sg.backward(sg.sum(g1), x)
    g3 = sg.backward(sg.sum(g2), x)
    np.testing.assert_allclose(g1.numpy(), [4, 32])
    np.testing.assert_allclose(g2.numpy(), [12, 48])
    np.testing.assert_allclose(g3.numpy(), [24, 48])


def test_a_penalty_on_gradients_reaches_the_parameters() -> None:
    W = sg.Parameter([[1.0, 2.0]], dtype=np.float64)
    x = sg.tensor([[3.0], [4.0]])
    loss = sg.sum(sg.exp(W @ x * 0.1))
    slope = sg.backward(loss, x)
    penalty = sg.sum(slope * slope)
    # slope = 0.1 e^s W with s = 0.1 W x; penalty = 0.01 e^2s |W|²
    s, w, v = 1.1, np.array([1.0, 2.0]), np.array([3.0, 4.0])
    expected = 0.01 * np.exp(2 * s) * (2 * w + 0.2 * v * (w @ w))
    np.testing.assert_allclose(sg.backward(penalty, W).numpy()[0], expected, rtol=1e-12)


def test_a_chain_of_100_000_equations_needs_no_recursion() -> None:
    x = y = sg.tensor(0.5)
    for _ in range(100_000):
        y = y * 1.0
    assert sg.backward(y, x).item() == 1.0


def test_a_diamond_of_depth_1000_is_walked_once_for_each_equation() -> None:
    """2^1000 paths: only reuse makes this finish."""
    x = sg.tensor(1.0)
    y = x
    for _ in range(1000):
        y = (y + y) * 0.5
    assert sg.backward(y, x).item() == 1.0


def live_bytes(build: object) -> int:
    """Bytes that are alive after `build` returned what it returns, over those before."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = build()  # type: ignore[operator]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return after - before


SIZE = 100_000
ARRAY = SIZE * 8
DEPTH = 20


@pytest.mark.parametrize(
    ("layer", "arrays_per_layer"),
    [
        pytest.param(lambda x: x + 1.0, 0, id="add keeps nothing"),
        pytest.param(lambda x: x * 3.0, 0, id="multiplying by a number keeps nothing"),
        pytest.param(lambda x: -x, 0, id="negative keeps nothing"),
        pytest.param(sg.relu, 1, id="relu keeps one array"),
        pytest.param(np.tanh, 1, id="tanh keeps one array"),
        pytest.param(np.exp, 1, id="exp keeps one array"),
        pytest.param(sg.sigmoid, 1, id="sigmoid keeps one array"),
        pytest.param(lambda x: sg.reshape(x, (2, SIZE // 2)).reshape(SIZE), 0, id="reshape keeps nothing"),
    ],
)
def test_a_forward_pass_keeps_what_the_backward_pass_reads(layer: object, arrays_per_layer: int) -> None:
    start = np.linspace(-1, 1, SIZE)

    def deep() -> sg.Tensor:
        h = sg.tensor(start)
        layer(h)  # type: ignore[operator]  # whatever is remembered of the op is remembered now
        for _ in range(DEPTH):
            h = layer(h)  # type: ignore[operator]
        return sg.sum(h)

    deep()
    expected = arrays_per_layer * DEPTH * ARRAY
    assert abs(live_bytes(deep) - expected) <= 1.2 * ARRAY


def test_a_deep_network_keeps_two_arrays_a_layer() -> None:
    """h = relu(h @ W + b): the input of relu, and its output for dW."""
    n, width = 500, 64
    Ws = [sg.Parameter(np.eye(width)) for _ in range(DEPTH)]
    bs = [sg.Parameter(np.zeros(width)) for _ in range(DEPTH)]
    x = sg.tensor(np.ones((n, width)))

    def deep() -> sg.Tensor:
        h = x
        for W, b in zip(Ws, bs, strict=True):
            h = sg.relu(h @ W + b)
        return sg.sum(h)

    deep()
    array = n * width * 8
    assert live_bytes(deep) / array == pytest.approx(2 * DEPTH, abs=2)


def test_checkpoint_keeps_only_what_enters() -> None:
    block = sg.checkpoint(lambda x: np.tanh(np.tanh(np.tanh(x))))
    x = sg.tensor(np.linspace(-1, 1, SIZE))

    def deep() -> sg.Tensor:
        h = x
        for _ in range(DEPTH):
            h = block(h)
        return sg.sum(h)

    deep()
    assert live_bytes(deep) / ARRAY == pytest.approx(DEPTH, abs=1.5)
    plain = sg.grad(lambda x: sg.sum(np.tanh(np.tanh(np.tanh(x)))))
    again = sg.grad(lambda x: sg.sum(block(x)))
    v = np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(plain(v), again(v))
    np.testing.assert_allclose(
        sg.hessian(lambda x: sg.sum(block(x)))(v), sg.hessian(lambda x: sg.sum(np.tanh(np.tanh(np.tanh(x)))))(v)
    )


def test_a_backward_pass_leaves_no_intermediate_gradients_behind() -> None:
    x = sg.tensor(np.linspace(-1, 1, SIZE))

    def run() -> sg.Tensor:
        h = x
        for _ in range(DEPTH):
            h = np.tanh(h)
        return sg.backward(sg.sum(h), x)

    run()
    assert live_bytes(run) / ARRAY <= DEPTH + 2.5  # the forward cache that it can be differentiated from, and dx


def test_values_are_read_only() -> None:
    array = np.ones(3)
    x = sg.tensor(array)
    array[0] = 7.0
    assert x.numpy()[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        x.numpy()[0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        (x * 2).numpy()[0] = 2.0
    with pytest.raises(UnsupportedError, match="assigned in place"):
        x[0] = 2.0


def test_a_constant_array_changed_later_does_not_change_the_gradient() -> None:
    data = np.array([1.0, 2.0])
    x = sg.tensor([3.0, 4.0])
    loss = sg.sum(x * data)
    data[:] = 0
    np.testing.assert_array_equal(sg.backward(loss, x).numpy(), [1, 2])


def test_loss_that_is_not_a_number() -> None:
    x = sg.tensor([1.0, 2.0], name="x")
    with pytest.raises(GradientError, match=r"x \(2,\) float64 was asked for\n.*why: .*not one number"):
        sg.backward(x, x)
    n = sg.tensor(3)
    with pytest.raises(GradientError, match="int64 numbers change in steps"):
        sg.backward(n, x)


def test_integers_have_no_gradient() -> None:
    with pytest.raises(DtypeError, match=r"gradient with respect to .*int64 was asked for"):
        sg.grad(lambda n: n * 2.0)(3)
    k = sg.tensor([1, 2], name="k")
    with pytest.raises(DtypeError, match=r"k \(2,\) int64"):
        sg.backward(sg.sum(sg.tensor([1.0, 2.0]) * k), k)


def test_wrt_that_is_not_a_tensor() -> None:
    x = sg.tensor(1.0)
    with pytest.raises(GradientError, match=r"wrt\['w'\], a ndarray"):
        sg.backward(x * x, {"w": np.ones(2)})


def test_unused_wrt_is_named() -> None:
    x, unused = sg.tensor(2.0, name="x"), sg.tensor(np.ones(3), name="unused")
    with pytest.raises(GradientError, match=r"does not depend on unused \(3,\) float64\n.*none of the equations"):
        sg.backward(x * x, [x, unused])


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (lambda y: sg.stop_gradient(y), "detached by sg.stop_gradient, at test_backward.py"),
        (lambda y: (y > 0) * 1.0, "greater has no derivative, at test_backward.py"),
        (lambda y: sg.astype(y, np.int64) * 1.0, "converted to integers or booleans, at test_backward.py"),
        (lambda y: sg.argmax(y) * 1.0, "argmax has no derivative, at test_backward.py"),
    ],
)
def test_the_place_where_the_path_was_cut_is_named(cut: object, told: str) -> None:
    x, other = sg.tensor([1.0, 2.0], name="x"), sg.tensor(1.0)
    y = x * 2
    loss = sg.sum(cut(y)) * other  # type: ignore[operator]
    with pytest.raises(GradientError, match="does not depend on x") as error:
        sg.backward(loss, x)
    assert told in str(error.value)
    assert "every path to it was cut" in str(error.value)


def test_no_grad_is_named_as_the_cut() -> None:
    x = sg.tensor(2.0, name="x")
    with sg.no_grad():
        y = x * 3
    with pytest.raises(GradientError, match=r"computed under sg.no_grad\(\), at test_backward.py"):
        sg.backward(y * sg.tensor(1.0), x)


def test_shapes_that_do_not_fit_are_told_with_names_and_line() -> None:
    W1, X = sg.tensor(np.ones((4, 3)), name="W1"), sg.tensor(np.ones((5, 2)), name="X")
    with pytest.raises(ShapeError) as error:
        W1 @ X
    text = str(error.value)
    assert "matmul(W1 (4, 3) float64, X (5, 2) float64): the inner lengths differ" in text
    assert "at test_backward.py" in text
    assert "W1 @ X" in text
    assert "instead: transpose" in text


def test_names_in_messages_come_from_the_callers_variables() -> None:
    weights, data = sg.tensor(np.ones(3)), sg.tensor(np.ones(4))
    with pytest.raises(ShapeError, match=r"add\(weights \(3,\) float64, data \(4,\) float64\)"):
        weights + data


def test_plain_numbers_may_not_leave_a_function_being_differentiated() -> None:
    with pytest.raises(UnsupportedError, match="float was called on x"):
        sg.grad(lambda x: x * float(x))(2.0)
    with pytest.raises(UnsupportedError, match="silently wrong"):
        sg.grad(lambda x: sg.sum(x * np.asarray(x)))(np.ones(2))
    assert float(sg.tensor(2.0) * 3) == 6.0
    assert np.asarray(sg.tensor([2.0])).tolist() == [2.0]


def test_a_value_asked_for_while_recording_abstractly() -> None:
    from stepgrad.tape.equation import INPUT, Equation
    from stepgrad.tape.op import type_of
    from stepgrad.tape.recording import recording

    with recording(equations=[]):
        x = sg.Tensor(None, Equation(INPUT, (), {}, type_of((), np.dtype(float)), True))
        y = x * 2
        assert (y.shape, y.value) == ((), None)
        with pytest.raises(AbstractValueError, match=r"instead: use sg.where"):
            bool(y > 0)
        with pytest.raises(AbstractValueError, match="asked for its value"):
            y.numpy()
    with pytest.raises(AbstractValueError, match="outside the function in which it was recorded"):
        y + 1


def test_where_masks_what_was_not_taken() -> None:
    x = np.array([0.0, 2.0])
    gradient = sg.grad(lambda x: sg.sum(sg.where(x > 0, sg.log(x), 0.0)))(x)
    np.testing.assert_array_equal(gradient, [0, 0.5])
    second = sg.hessian(lambda x: sg.sum(sg.where(x > 0, sg.log(x) / x, 0.0)))(x)
    assert np.isfinite(second).all()


def test_a_value_can_not_be_made_writeable_again() -> None:
    x = sg.tensor([1.0, 2.0])
    for t in (x, x * 2):
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            t.numpy().setflags(write=True)
