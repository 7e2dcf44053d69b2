"""Random programs of exact operations keep every bit through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import assert_same_bits, hard, record_call

import stepgrad as sg
from stepgrad.passes.pipeline import optimise
from stepgrad.tape.leaves import constant

NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 0.0, -0.0, 1.0, -1.0, 0.5, 4.0, 3.0, 2.0**-126, 2.0**130, float("inf"), float("nan")]
)

ONE: list[Callable[[Any], Any]] = [
    *(np.negative, np.absolute, np.square, np.sqrt, np.sign, np.floor, sg.relu, sg.stop_gradient, np.positive),
    lambda a: a**2,
    lambda a: a**-1,
    lambda a: a**0.5,
    lambda a: a.reshape(4, 4).T.reshape(-1),
    lambda a: a.reshape(4, 4).T.T.reshape(2, 8).reshape(16),
    lambda a: a.reshape(1, 16, 1).transpose(2, 1, 0).reshape(16),
    lambda a: a.reshape(16, 1).sum(1),
    lambda a: a.reshape(16, 1).max(1),
    lambda a: a.astype(np.float64).astype(a.dtype),
    lambda a: a[::-1],
    lambda a: a * (a > 0),
    lambda a: a * (a <= 0).astype(a.dtype),
    lambda a: sg.where(sg.logical_not(a > 0), a, 1.5),
    lambda a: sg.where(sg.not_equal((a > 0).astype(a.dtype), 0), -a, a),
    lambda a: a + constant(np.asarray(1, a.dtype)) * constant(np.asarray(3, a.dtype)),
]
TWO: list[Callable[[Any, Any], Any]] = [
    *(np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum),
    lambda a, b: sg.where(a > b, a, b),
    lambda a, b: sg.where((a > b) & (a > b), a, a),
    lambda a, b: a * constant(np.asarray(-1, a.dtype)) + -b,
]

PLACE = st.integers(0, 3)  # how far back an operand stands
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(ONE), PLACE),
        st.tuples(st.sampled_from(TWO), PLACE, PLACE),
        st.tuples(st.sampled_from(TWO[:6]), PLACE, NUMBERS, st.booleans()),
    ),
    min_size=8,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([np.float32, np.float64]))
def test_every_bit_is_kept(steps: list[Any], dtype: Any) -> None:
    def program(x: Any, y: Any) -> list[Any]:
        known = [x, y, x, y]
        for function, *places in steps:
            if len(places) == 3:  # with a Python number
                place, number, swapped = places
                operands = [number, known[-1 - place]] if swapped else [known[-1 - place], number]
            else:
                operands = [known[-1 - place] for place in places]
            known.append(function(*operands))
        return known[4:]

    rng = np.random.default_rng(len(steps))
    tape, values = record_call(program, hard(dtype), rng.permutation(hard(dtype)))
    assert_same_bits(tape, optimise(tape)[0], values)
