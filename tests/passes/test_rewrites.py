"""Each rewrite fires where it should, keeps every bit of the hardest numbers, and keeps off what only looks alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tapes import apply, assert_same_bits, hard, ops_of, record_call

import stepgrad as sg
from stepgrad.ops.registry import registry
from stepgrad.passes import algebra as algebra_pass
from stepgrad.passes import aliases as aliases_pass
from stepgrad.passes.algebra import MASK_OF_RELU, algebra
from stepgrad.passes.aliases import aliases
from stepgrad.passes.common import common
from stepgrad.passes.constants import constants
from stepgrad.tape.leaves import constant
from stepgrad.tape.recording import record


def op(name: str, x: Any, **params: Any) -> Any:
    return record(registry[name], (x,), params)


def both(x: Any, y: Any) -> Any:
    return [sg.relu(x), y * (x > 0), x <= 0]


Case = tuple[str, Callable[..., Any], list[str]]

ALIASES: list[Case] = [
    ("the value itself", lambda x, y: sg.stop_gradient(x) * y, ["multiply"]),
    ("the value itself", lambda x, y: +x * y, ["multiply"]),
    ("the value itself", lambda x, y: op("astype", x, dtype=x.dtype) * y, ["multiply"]),
    ("the value itself", lambda x, y: op("reshape", x, shape=x.shape) * y, ["multiply"]),
    ("the value itself", lambda x, y: op("expand", x, shape=x.shape) * y, ["multiply"]),
    (
        "a transpose that leaves the order of the elements",
        lambda x, y: x.reshape(1, 4, 1, 4).transpose(1, 0, 3, 2),
        ["reshape", "reshape"],
    ),
    (
        "one transpose for two",
        lambda x, y: x.reshape(2, 2, 4).transpose(1, 2, 0).transpose(2, 0, 1),
        ["reshape", "transpose"],
    ),
    (
        "one transpose for two",
        lambda x, y: x.reshape(2, 2, 4).transpose(1, 2, 0).transpose(1, 0, 2),
        ["reshape", "transpose", "transpose"],
    ),
    ("one reshape for two", lambda x, y: x.reshape(2, 8).reshape(4, 4), ["reshape"] * 2),
    ("a reshape for an expand", lambda x, y: op("expand", x, shape=(1, 1, 16)), ["reshape"]),
    ("one expand for two", lambda x, y: op("expand", op("expand", x, shape=(3, 16)), shape=(2, 3, 16)), ["expand"] * 2),
    ("the value itself, for - - a", lambda x, y: np.negative(-x) * y, ["negative", "multiply"]),
    (
        "the value itself, for not not a",
        lambda x, y: sg.where(sg.logical_not(sg.logical_not(x > y)), x, y),
        ["greater", "logical_not", "where"],
    ),
    (
        "one conversion for two",
        lambda x, y: x.astype(np.float32).astype(np.float64).astype(np.float32),
        None,
    ),
    ("one conversion for two", lambda x, y: (x > y).astype(np.float32).astype(np.int64), ["greater"] + ["astype"] * 2),
]  # type: ignore[list-item]

ALGEBRA: list[Case] = [
    ("x for x * 1", lambda x, y: (x * 1) + (1.0 * y), ["add"]),
    ("x for x / 1", lambda x, y: x / 1 + y, ["add"]),
    ("x for x - 0", lambda x, y: (x - 0) * (y - 0.0), ["multiply"]),
    ("x for x + -0.0", lambda x, y: (x + -0.0) * (-0.0 + y), ["multiply"]),
    ("-x for x * -1", lambda x, y: [x * -1, -1.0 * y], ["negative"] * 2),
    ("-x for x / -1", lambda x, y: x / -1, ["negative"]),
    ("a - b for a + -b", lambda x, y: x + -y, ["negative", "subtract"]),
    ("a - b for a + -b", lambda x, y: -x + y, ["negative", "subtract"]),
    ("a - b for a + -b", lambda x, y: x - -y, ["negative", "add"]),
    ("a * b for -a * -b", lambda x, y: -x * -y, ["negative"] * 2 + ["multiply"]),
    ("a * b for -a * -b", lambda x, y: -x / -y, ["negative"] * 2 + ["divide"]),
    ("|x| for |-x|", lambda x, y: [np.abs(-x), np.square(-y), np.square(np.abs(x))], None),
    ("x * 2**-k for x / 2**k", lambda x, y: [x / 4, y / -0.5, x / 2.0**100, y / 2.0**-100], ["multiply"] * 4),
    ("a named function for a power", lambda x, y: [x**2, y**0.5, x**-1], ["square", "sqrt", "reciprocal"]),
    ("a named function for a power", lambda x, y: x**1 * y, ["multiply"]),
    ("x for where(c, x, x)", lambda x, y: sg.where(x > y, y, y) * x, ["greater", "multiply"]),
    (
        "where(c, b, a) for where(not c, a, b)",
        lambda x, y: sg.where(sg.logical_not(x > y), x, y),
        ["greater", "logical_not", "where"],
    ),
    ("a mask for mask != 0", lambda x, y: sg.not_equal(x > y, 0), ["greater"]),
    ("a mask for mask != 0", lambda x, y: sg.not_equal((x > y).astype(x.dtype), 0), ["greater", "astype"]),
    ("x * mask for x * mask.astype(…)", lambda x, y: x * (x > y).astype(x.dtype), ["greater", "astype", "multiply"]),
    ("x * mask for x * mask.astype(…)", lambda x, y: (x > y).astype(x.dtype) * y, ["greater", "astype", "multiply"]),
    ("a reshape for a reduction", lambda x, y: x.reshape(16, 1).max(1) * y, ["reshape", "reshape", "multiply"]),
    ("a reshape for a reduction", lambda x, y: x.reshape(1, 16).prod(0, keepdims=True), ["reshape"]),
    ("x + 0 for a sum", lambda x, y: x.reshape(16, 1).sum(1), ["reshape", "add", "reshape"]),
    ("once for twice", lambda x, y: [sg.relu(sg.relu(x)), np.floor(np.floor(y)), np.sign(np.sign(x))], None),
    ("c for c and c", lambda x, y: (x > y) & (x > y), None),
    (MASK_OF_RELU.name, both, ["relu", "greater", "multiply", "less_equal"]),
]  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("one_pass", "name", "function", "left"),
    [(p, *case) for p, cases in ((aliases, ALIASES), (algebra, ALGEBRA)) for case in cases],
)
def test_it_fires_and_keeps_every_bit(one_pass: Any, name: str, function: Any, left: Any, dtype: Any) -> None:
    x = np.repeat(hard(dtype), 16)
    y = np.tile(hard(dtype), 16)  # every pair
    for a, b in zip(x.reshape(16, 16), y.reshape(16, 16), strict=True):
        tape, values = record_call(function, a, b)
        if name == "c for c and c":  # two comparisons are one only once they have been found to be
            tape, _ = apply(common, tape)
        after, made = apply(one_pass, tape)
        if name == "one conversion for two" and left is None and dtype is np.float64:
            continue  # the first conversion is a narrowing one
        assert name in made
        assert left is None or ops_of(after) == left
        assert_same_bits(tape, after, values)


def test_every_rewrite_is_tried() -> None:
    tried = {case[0] for case in (*ALIASES, *ALGEBRA)}
    assert tried == {r.name for r in (*aliases_pass.REWRITES, *algebra_pass.REWRITES, MASK_OF_RELU)}


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + 0,  # -0.0 + 0.0 is 0.0
        lambda x, y: x - -0.0,
        lambda x, y: 0 - x,
        lambda x, y: x * 0,
        lambda x, y: x - x,
        lambda x, y: x / x,
        lambda x, y: x / 3,
        lambda x, y: x / 2.0**-1074,  # its inverse overflows
        lambda x, y: x**0,
        lambda x, y: x**3,
        lambda x, y: sg.where(x > y, x, 0.0),
        lambda x, y: [sg.relu(x), y > 0],
        lambda x, y: [sg.relu(x), x >= 0],  # relu(x) >= 0 always
        lambda x, y: [sg.relu(x), x > 1],
        lambda x, y: [x > 0, sg.relu(x)],  # only computed later
        lambda x, y: -(x - y),  # 0.0 - 0.0 is 0.0, and not -0.0
        lambda x, y: sg.sum(x.reshape(4, 4), 0),
        lambda x, y: sg.not_equal(x, 0),
        lambda x, y: x.reshape(4, 4).T,
        lambda x, y: np.sqrt(np.sqrt(x)),
        lambda x, y: sg.logical_not(sg.logical_not(x)),
        lambda x, y: x.astype(np.int64).astype(x.dtype),
        lambda x, y: sg.floor(x).astype(np.int32).astype(np.float32),
        lambda x, y: x.astype(np.float32).astype(np.float64).astype(np.int32),
    ],
)
def test_what_only_looks_alike_stays(function: Any) -> None:
    tape, _ = record_call(function, np.ones(16), np.ones(16))
    for one_pass in (aliases, algebra):
        after, made = apply(one_pass, tape)
        assert made == []
        assert all(one is other for one, other in zip(tape, after, strict=True))


def test_a_power_of_two_that_the_dtype_cannot_invert_stays() -> None:
    for divisor, fires in ((2.0**-140, False), (2.0**140, False), (2.0**126, True), (2.0**-127, True)):
        tape, values = record_call(lambda x, d=divisor: x / d, hard(np.float32))
        after, made = apply(algebra, tape)
        assert bool(made) is fires, divisor
        assert_same_bits(tape, after, values)


def test_integers_follow_their_own_rules() -> None:
    x = np.array([-3, 0, 5], np.int64)
    tape, values = record_call(lambda x: [x + 0, x * 1, x / 2, x * 1.0, x**2], x)
    after, made = apply(algebra, tape)
    assert sorted(made) == ["x for x * 1", "x for x + -0.0"]
    assert_same_bits(tape, after, values)


# --- constants


def test_what_depends_on_constants_alone_is_computed_beforehand() -> None:
    table = np.arange(6.0).reshape(2, 3)
    tape, values = record_call(lambda x: x @ (_of(table)), np.ones(2))
    after, made = apply(constants, tape)
    assert ops_of(after) == ["matmul"]
    assert made == ["computed beforehand"] * 3
    assert_same_bits(tape, after, values)


def _of(table: np.ndarray) -> Any:
    return np.sqrt(constant(table) + 1) * 2


def test_one_number_of_the_same_dtype_becomes_a_python_number() -> None:
    for dtype in (np.float32, np.float64):
        x = hard(dtype)
        third = np.asarray(1, dtype) / np.asarray(3, dtype)
        tape, values = record_call(lambda x, c=third: [constant(c) * x, sg.where(x > constant(c), x, constant(c))], x)
        after, made = apply(constants, tape)
        assert set(made) == {"a Python number for a constant"}
        assert not [
            e for row in after for e in row.inputs if e.op.name in ("expand", "constant") and row.op.name != "expand"
        ]
        assert_same_bits(tape, after, values)


def test_a_number_of_another_dtype_keeps_it() -> None:
    tape, values = record_call(
        lambda x: [x > constant(np.float64(0.1)), x.astype(np.int32) * constant(np.float64(0.5))], hard(np.float32)[3:]
    )
    after, _ = apply(constants, tape)
    assert_same_bits(tape, after, values)
    assert after.outputs[1].type.dtype == np.float64


def test_nothing_is_spread_out_in_memory() -> None:
    labels = constant(np.arange(500))
    tape, _ = record_call(
        lambda x: x @ sg.one_hot(labels, 500) + constant(np.float32(2)), np.ones((3, 500), np.float32)
    )
    after, _ = apply(constants, tape)
    assert "one_hot" in ops_of(after)
    assert all(e.type.nbytes <= 4096 for e in after.leaves() if e.op.name == "constant")
