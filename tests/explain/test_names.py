"""Names of the user's variables: found without hooks, never the same twice."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest
from explained import agrees

import stepgrad as sg

x3, W3 = np.array([0.5, -1.0, 2.0]), np.array([[0.1, 0.2, 0.3], [-0.4, 0.5, 0.6], [0.7, 0.8, -0.9]])
bias = sg.Parameter(np.array([1.0, 2.0, 3.0]))
table = np.array([3.0, 1.0, 2.0])


def lines(trace: sg.Trace) -> list[str]:
    return [str(line) for step in agrees(trace).steps for line in step.lines]


def test_a_variable_bound_again_and_again_is_numbered() -> None:
    def loop(A: Any, W: Any) -> Any:
        for _ in range(3):
            A = np.tanh(W @ A)
        return A.sum()

    trace = sg.trace(loop, x3, W3)
    assert lines(trace)[:3] == ["A_1 = np.tanh(W @ A)", "A_2 = np.tanh(W @ A_1)", "A_3 = np.tanh(W @ A_2)"]
    assert "    dA_1 = " in trace.source()


def test_the_outermost_function_that_held_it_names_it() -> None:
    def layer(W: Any, a: Any) -> Any:
        inner = W @ a
        result = np.sin(inner)
        return result  # noqa: RET504

    def net(W: Any, x: Any) -> Any:
        hidden = layer(W, x)
        return layer(W, hidden).sum()

    assert lines(sg.trace(net, W3, x3)) == [
        "inner_1 = W @ x",
        "hidden = np.sin(inner_1)",
        "inner_2 = W @ hidden",
        "result = np.sin(inner_2)",
        "loss = result.sum()",
    ]


def test_the_first_variable_counts() -> None:
    def net(x: Any) -> Any:
        first = np.exp(x)
        second = first
        return second.sum()

    assert lines(sg.trace(net, x3))[0] == "first = np.exp(x)"


def test_a_name_given_by_hand_wins() -> None:
    def net(x: Any) -> Any:
        y = sg.name(np.exp(x), "hidden layer")
        return y.sum()

    assert lines(sg.trace(net, x3))[0] == "hidden_layer = np.exp(x)"


def test_what_is_bound_just_before_returning_is_seen() -> None:
    def net(x: Any) -> Any:
        total = (x * 2).sum()
        return total  # noqa: RET504

    assert lines(sg.trace(net, x3)) == ["total = (x * 2).sum()"]


def test_statements_on_one_line_are_steps_of_their_own() -> None:
    def net(W: Any, x: Any) -> Any:
        Z = W @ x; A = np.tanh(Z)  # fmt: skip # noqa: E702
        return A.sum()

    assert [s.statement.text for s in sg.trace(net, W3, x3).steps] == ["Z = W @ x", "A = np.tanh(Z)", "return A.sum()"]


def test_a_statement_over_many_lines_is_one_step() -> None:
    def net(W: Any, x: Any) -> Any:
        Z = (
            W @ x  # the product
            + 1
        )
        return Z.sum()

    steps = sg.trace(net, W3, x3).steps
    assert [s.statement.text for s in steps] == ["Z = W @ x + 1", "return Z.sum()"]
    assert steps[0].statement.line < steps[1].statement.line


def test_arguments_in_lists_and_dicts() -> None:
    def net(Ws: Any, params: Any, nested: Any, *rest: Any, scale: Any) -> Any:
        return (Ws[0] @ params["x"] + Ws[1] @ nested["layer"][0] + rest[0]).sum() * scale

    trace = agrees(sg.trace(net, [W3, W3], {"x": x3}, {"layer": (x3,)}, x3, scale=np.float64(2)))
    assert list(trace.gradients) == ["Ws_0", "Ws_1", "x", "layer_0", "rest_0", "scale"]


def test_two_dicts_with_the_same_keys() -> None:
    def net(a: Any, b: Any) -> Any:
        return (a["W"] @ b["W"]).sum()

    assert list(agrees(sg.trace(net, {"W": W3}, {"W": x3})).gradients) == ["W", "b_W"]


def test_names_that_generated_source_needs_are_left_alone() -> None:
    def net(np: Any, cache: Any, lambda_: Any) -> Any:
        forward = np * cache
        softmax = sg.softmax(forward)
        t1 = softmax * lambda_
        dcache = t1 * t1
        print_me = dcache + (t1 * 2 - dcache) * (t1 * 2)
        return print_me.sum()

    agrees(sg.trace(net, x3, x3 + 1, x3 + 2))


def test_parameters_and_arrays_from_outside_have_the_names_of_their_variables() -> None:
    def net(x: Any) -> Any:
        local = np.arange(3.0) * 10
        return (x * table + bias * local).sum()

    trace = agrees(sg.trace(net, x3))
    assert list(trace.gradients) == ["x", "bias"]
    assert set(trace.arranged.constants) == {"table", "local"}


def test_parameters_of_an_object() -> None:
    class Line:
        def __init__(self) -> None:
            self.slope = sg.Parameter(2.0)
            self.offset = sg.Parameter(1.0)

        def __call__(self, x: Any) -> Any:
            return (self.slope * x + self.offset).sum()

    assert list(agrees(sg.trace(Line(), x3.astype(np.float32)), 1e-6).gradients) == ["x", "slope", "offset"]


def test_two_modules_with_the_same_paths() -> None:
    def net(teacher: Any, student: Any, x: Any) -> Any:
        return ((teacher(x) - student(x)) ** 2).mean()

    one, other = (sg.nn.Sequential(sg.nn.Linear(3, 2)) for _ in range(2))
    trace = agrees(sg.trace(net, one, other, np.ones((4, 3), np.float32)), 1e-5)
    assert len(set(trace.gradients)) == 5
    assert {"weight_0", "student_0_weight"} < set(trace.gradients)


def test_one_gradient_of_many_values_has_one_name() -> None:
    def net(a: Any, b: Any) -> Any:
        total = a + b
        return (total * total).sum()

    source = agrees(sg.trace(net, x3, x3 + 1)).source()
    assert "    da = dtotal\n" in source
    assert "    db = dtotal\n" in source


def test_debuggers_and_profilers_stay_in_place() -> None:
    seen = []

    def net(x: Any) -> Any:
        y = np.exp(x)
        seen.append((sys.gettrace(), sys.getprofile()))
        return y.sum()

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        trace = sg.trace(net, x3)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert seen == [(tracer, None)]
    assert trace.steps[0].lines[0].name == "y"


def test_frames_are_let_go() -> None:
    class Big:
        pass

    import gc
    import weakref

    kept = []

    def net(x: Any) -> Any:
        big = Big()
        kept.append(weakref.ref(big))
        return np.exp(x).sum()

    trace = sg.trace(net, x3)
    gc.collect()
    assert trace.steps
    assert kept[0]() is None


def test_in_a_thread() -> None:
    found: list[Any] = []

    def net(x: Any) -> Any:
        y = np.exp(x)
        return y.sum()

    thread = threading.Thread(target=lambda: found.append(sg.trace(net, x3)))
    thread.start()
    thread.join()
    assert [s.lines[0].name for s in found[0].steps] == ["y", "loss"]


def test_source_that_is_not_in_a_file() -> None:
    scope: dict[str, Any] = {"np": np}
    exec("def net(x):\n    y = np.exp(x)\n    return y.sum()", scope)
    assert lines(sg.trace(scope["net"], x3)) == ["y = np.exp(x)", "loss = y.sum()"]


@pytest.mark.parametrize("wrt", ["W", ["W"], ("W", "x")])
def test_wrt_names_what_is_differentiated(wrt: Any) -> None:
    trace = agrees(sg.trace(lambda W, x, b: (W @ x + b).sum(), W3, x3, x3, wrt=wrt))
    assert list(trace.gradients) == ([wrt] if isinstance(wrt, str) else list(wrt))


def test_wrt_takes_arguments_that_hold_many() -> None:
    net = sg.nn.Sequential(sg.nn.Linear(3, 2))
    x = np.ones((1, 3), np.float32)
    assert list(sg.trace(lambda m, x: m(x).sum(), net, x, wrt="m").gradients) == ["weight_0", "bias_0"]
    assert list(sg.trace(lambda m, x: m(x).sum(), net, x, wrt="0.bias").gradients) == ["bias_0"]
    assert list(sg.trace(lambda p: p["a"] * p["b"], {"a": 1.0, "b": 2.0}, wrt="p").gradients) == ["a", "b"]


def test_what_was_computed_before_the_call_is_an_input() -> None:
    w = sg.tensor(x3)
    before = w * 2
    fixed = sg.stop_gradient(w) * 3

    def net(x: Any) -> Any:
        return (x * w * before * fixed).sum()

    trace = agrees(sg.trace(net, x3 + 1))
    assert list(trace.gradients) == ["x", "w", "before"]


def test_a_backward_pass_that_goes_on_into_what_was_computed_before() -> None:
    w = sg.tensor(x3)
    before = np.sin(w)

    def step(x: Any) -> Any:
        loss = (x * before).sum()
        sg.backward(loss, w)
        return loss

    trace = agrees(sg.trace(step, x3 + 1))
    np.testing.assert_allclose(trace.gradients["w"], (x3 + 1) * np.cos(x3))


def test_a_step_that_trains_two_modules_in_turn() -> None:
    maker, judge = (sg.nn.Sequential(sg.nn.Linear(3, 3)) for _ in range(2))
    first = sg.optim.SGD(judge.parameters(), lr=0.1)
    second = sg.optim.SGD(maker.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        judged = (judge(maker(x)) ** 2).mean()
        first.step(sg.backward(judged, judge.parameters()))
        made = (judge(maker(x)) ** 2).mean()
        second.step(sg.backward(made, maker.parameters()))
        return judged, made

    trace = agrees(sg.trace(step, np.ones((2, 3), np.float32)), 1e-5)
    assert set(trace.gradients) == {"weight_0", "bias_0", "judge_0_weight", "judge_0_bias"}
    assert "judge_0_weight_later" in trace.inputs
    assert set(trace.arranged.assigned) == set(trace.gradients) | {"step", "step_2"}
