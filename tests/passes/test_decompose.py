"""What is written out computes what the op means, on its own samples and on the hardest numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tapes import apply, hard, ops_of, record_call

import stepgrad as sg
from stepgrad.execute.numpy import run
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample
from stepgrad.passes.common import common
from stepgrad.passes.decompose import REWRITES, decompose, normalise
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape

COMPOSITE = [name for kind in REWRITES for name in kind.ops]
DTYPES = [np.float32, np.float64]


def cases() -> list[Any]:
    return [
        pytest.param(name, sample, dtype, id=f"{name}-{i}-{np.dtype(dtype)}")
        for name in COMPOSITE
        for i, sample in enumerate(registry[name].samples)
        for dtype in DTYPES
    ]


def drawn(sample: Any, dtype: Any, rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    params = sample[-1] if isinstance(sample[-1], dict) else {}
    arrays = [np.asarray(s.draw(rng)) for s in sample if isinstance(s, Sample)]
    return [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays], params


def written_out(name: str, arrays: list[np.ndarray], params: dict[str, Any]) -> tuple[Tape, list[np.ndarray], Any]:
    tape, values = record_call(lambda *tensors: registry[name](*tensors, **params), *arrays)
    after, made = apply(decompose, tape)
    assert made
    assert not set(ops_of(after)) & set(COMPOSITE)
    with np.errstate(all="ignore"):
        (one,), (other,) = run(tape, values), run(after, values)
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    return after, [one, other], values


def by_definition(arrays: list[np.ndarray], subscripts: str) -> np.ndarray:
    """Every product of elements, added up where a letter is not in the result."""
    inputs, output = subscripts.split("->")
    groups = inputs.split(",")
    lengths = {c: n for a, group in zip(arrays, groups, strict=True) for c, n in zip(group, a.shape, strict=True)}
    result = np.zeros([lengths[c] for c in output], arrays[0].dtype)
    with np.errstate(all="ignore"):
        for place in np.ndindex(*lengths.values()):
            at = dict(zip(lengths, place, strict=True))
            factors = [a[tuple(at[c] for c in group)] for a, group in zip(arrays, groups, strict=True)]
            result[tuple(at[c] for c in output)] += np.prod(factors)
    return result


_CANCELS = {"einsum": 100.0, "logaddexp": 4.0, "logaddexp2": 4.0}
"""Ops in which numbers of this size may cancel, which leaves their rounding errors."""


def assert_close(one: np.ndarray, other: np.ndarray, message: str = "", size: float = 0.0) -> None:
    tolerance = 2e-6 if one.dtype == np.float32 else 1e-14
    smallest = np.finfo(one.dtype).tiny + size * np.finfo(one.dtype).eps
    np.testing.assert_allclose(other, one, rtol=tolerance, atol=smallest, equal_nan=True, err_msg=message)


@pytest.mark.parametrize(("name", "sample", "dtype"), cases())
def test_it_means_the_same(name: str, sample: Any, dtype: Any) -> None:
    arrays, params = drawn(sample, dtype, np.random.default_rng(0))
    _, values, _ = written_out(name, arrays, params)
    tolerance = 5e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(values[1], values[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "sample", "dtype"), cases())
def test_it_means_the_same_for_the_hardest_numbers(name: str, sample: Any, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    for share in (0.15, 0.5, 1.0):
        for _ in range(20):
            arrays, params = drawn(sample, dtype, rng)
            for i, a in enumerate(arrays):
                if a.dtype.kind == "f":
                    # Products may be added up in another order, which shows if the largest numbers cancel.
                    numbers = hard(dtype)[: -4 if name == "einsum" else None]
                    arrays[i] = np.where(rng.random(a.shape) < share, rng.choice(numbers, a.shape), a).astype(dtype)
            _, (one, other), _ = written_out(name, arrays, params)
            if (
                name == "einsum" and len(arrays) < 3
            ):  # NumPy's own takes a factor out of a sum, which makes inf of what is NaN
                one = by_definition(arrays, **params)
            assert_close(one, other, f"{name} of {arrays}", _CANCELS.get(name, 0.0))


def test_softmax_and_cross_entropy_share_what_they_compute() -> None:
    def loss_and_gradient(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(x, y)
        return loss, sg.backward(loss, x)

    tape, _ = record_call(loss_and_gradient, np.ones((3, 4), np.float32), np.array([0, 1, 3]))
    after, _ = apply(common, apply(decompose, tape)[0])
    assert [ops_of(after).count(name) for name in ("exp", "max", "one_hot", "log")] == [1, 1, 1, 1]
    assert ops_of(after).count("sum") == 3  # of the exponentials, of the picked, of the losses


@pytest.mark.parametrize(
    "row", [[np.inf, 0, 1], [-np.inf] * 3, [-np.inf, 0, 1], [np.nan, 0, 1], [np.inf, -np.inf, 0], [1e38, -1e38, 0]]
)
def test_infinite_logits_give_what_numpy_gives(row: list[float]) -> None:
    logits = np.array([row, [0.0, 1.0, 2.0]], np.float32)
    for label in range(3):
        for reduction in ("none", "mean"):
            _, (one, other), _ = written_out("cross_entropy", [logits, np.array([label, 2])], {"reduction": reduction})
            assert_close(one, other)


def test_reductions_over_nothing_and_integers_stay() -> None:
    tape, _ = record_call(lambda x: sg.softmax(x), np.ones((0, 3)))
    assert apply(decompose, tape)[1] == []
    tape, _ = record_call(lambda x: [sg.mean(x), sg.var(x), sg.einsum("ij->", x)], np.arange(6).reshape(2, 3))
    assert apply(decompose, tape)[1] == []


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk->ki", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("ij,ij->i", [(3, 4), (3, 4)]),
        ("ij,ij->", [(3, 4), (3, 4)]),
        ("ij,kl->", [(3, 4), (2, 5)]),
        ("i,j->ji", [(3,), (4,)]),
        ("ab,b->a", [(3, 4), (4,)]),
        ("a,abc,c->b", [(2,), (2, 3, 4), (4,)]),
        ("ijk->ki", [(2, 3, 4)]),
        ("i,->i", [(3,), ()]),
        (",->", [(), ()]),
        ("iab,ibc,icd->iad", [(2, 3, 4), (2, 4, 5), (2, 5, 2)]),
        ("ij,jk->ik", [(2, 1), (1, 4)]),
    ],
)
def test_einsum_in_all_its_forms(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    after, (one, other), _ = written_out("einsum", arrays, {"subscripts": subscripts})
    np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(other, np.einsum(subscripts, *arrays), rtol=1e-12, atol=1e-14)
    assert ("matmul" in ops_of(after)) is (subscripts not in _WITHOUT_PRODUCT)


_WITHOUT_PRODUCT = ("ij,ij->i", "ij,ij->", "ij,kl->", "i,j->ji", "ijk->ki", "i,->i", ",->")


def test_what_is_written_out_keeps_its_place() -> None:
    """Role, origin, line and scope are those of the composite; the last equation has its name."""

    def loss_of(x: Any, y: Any) -> Any:
        loss = sg.name(sg.losses.cross_entropy(x, y), "L")
        return loss, sg.backward(loss, x)

    tape, _ = record_call(loss_of, np.ones((3, 4)), np.array([0, 1, 3]))
    softmax = next(e for e in tape if e.op.name == "softmax")
    after, _ = apply(decompose, tape)
    exps = [e for e in after if e.op.name == "exp"]
    assert after.outputs[0].name == "L"
    assert [e.role for e in exps] == [tape.outputs[0].role, softmax.role]
    assert exps[0].where == tape.outputs[0].where
    assert exps[1].of is after.outputs[0]
    assert all(e.of is None or e.of in set(after) for e in after)


def test_the_old_tape_is_untouched() -> None:
    tape, _ = record_call(lambda x: record(registry["mean"], (x * 2,), {"axis": (0,), "keepdims": False}), np.ones(3))
    text = repr(tape)
    after, _ = apply(decompose, tape)
    assert repr(tape) == text
    assert after.equations[0] is tape.equations[0]


# --- reductions in steps, and products of matrices


@pytest.mark.parametrize("name", ["sum", "max", "min", "prod", "any", "all"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    ("axis", "steps"),
    [((0, 2), 2), ((0, 2, 4), 2), ((0, 3), 2), ((1, 3), 2), ((0, 4), 2), ((2, 4), 1), ((0, 2, 3, 4), 2)],
)
def test_reductions_go_over_neighbouring_axes(name: str, keepdims: bool, axis: tuple[int, ...], steps: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 1, 4))
    x = x > 0 if name in ("any", "all") else x
    for a in (x, x.astype(np.float32), x.astype(np.int8)):
        tape, values = record_call(lambda x: record(registry[name], (x,), {"axis": axis, "keepdims": keepdims}), a)
        after, _ = apply(normalise, tape)
        reductions = [e for e in after if e.op.name == name]
        assert len(reductions) == steps
        assert all(e.params["axis"] == tuple(range(e.params["axis"][0], e.params["axis"][-1] + 1)) for e in reductions)
        np.testing.assert_allclose(run(after, values)[0], run(tape, values)[0], rtol=1e-5, strict=True)


@pytest.mark.parametrize(
    "shapes",
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((5, 2, 3), (3,))],
)
def test_products_are_of_matrices(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    tape, values = record_call(lambda a, b: a @ b, *[rng.normal(size=shape) for shape in shapes])
    after, made = apply(normalise, tape)
    (product,) = [e for e in after if e.op.name == "matmul"]
    assert made == ["one product of matrices"]
    assert [len(e.type.shape) for e in product.inputs] == [2, 2]
    np.testing.assert_allclose(run(after, values)[0], run(tape, values)[0], rtol=1e-12, atol=1e-14, strict=True)


def test_plain_reductions_and_products_stay() -> None:
    def function(x: Any, y: Any) -> Any:
        return [
            x @ y,
            x @ np.ones((2, 4, 3)),
            x @ np.ones((4, 5)),
            sg.sum(x, (1, 2)),
            sg.max(x, 0),
            y[:0].sum(0),
            np.ones((1, 0)) @ y[:, 0, :0].T,
        ]

    tape, _ = record_call(function, np.ones((2, 3, 4)), np.ones((2, 4, 3)))
    assert apply(normalise, tape)[1] == []
