"""einsum: NumPy's grammar, its values, gradients to second order, and messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, ShapeError, StepgradError

CASES: list[Any] = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ij,jk->ki", (2, 3), (3, 4)),
    (" i j , j k -> i k ", (2, 3), (3, 4)),
    ("ji", (2, 3)),
    ("ba", (2, 3)),
    ("bA", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->j", (2, 3)),
    ("ijk->ki", (2, 3, 4)),
    ("i->i", (3,)),
    ("i,i", (3,), (3,)),
    ("i,i->i", (3,), (3,)),
    ("i,j", (3,), (2,)),
    ("ij,ij->i", (2, 3), (2, 3)),
    ("ij,k->i", (2, 3), (4,)),
    ("i,->i", (3,), ()),
    (",->", (), ()),
    ("->", ()),
    ("", ()),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("iij->ji", (3, 3, 2)),
    ("iii->i", (2, 2, 2)),
    ("iijj->ij", (2, 2, 3, 3)),
    ("ijij->j", (2, 3, 2, 3)),
    ("ii,ij->j", (3, 3), (3, 2)),
    ("...", (2, 3)),
    ("...ij->...ji", (4, 2, 3)),
    ("i...->...i", (2, 3, 4)),
    ("...ii->...i", (4, 3, 3)),
    ("...ij,...jk->...ik", (4, 2, 3), (4, 3, 2)),
    ("...ij,...jk->...ik", (4, 2, 3), (3, 2)),
    ("...ij,...jk->...ik", (1, 2, 3), (5, 3, 2)),
    ("...ij,...jk", (4, 1, 2, 3), (5, 3, 2)),
    ("...,...", (2, 3), (3,)),
    ("i...,i->...", (2, 3), (2,)),
    ("ij...,jk...->ik...", (2, 3, 4), (3, 2, 4)),
    ("ij,jk", (2, 1), (3, 4)),
    ("i,i", (1,), (3,)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("ij,jk->ik", (30, 40), (40, 30)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("ij,jk,kl", (2, 3), (3, 4), (4, 2)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("i,ij,j->", (2,), (2, 3), (3,)),
    ("ab,bc,cd,da->", (2, 3), (3, 2), (2, 2), (2, 2)),
    ("ij->", (0, 3)),
    ("ij,jk->ik", (2, 0), (0, 3)),
]


def draw(shapes: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Any) -> None:
    subscripts, xs = case[0], draw(case[1:])
    expected = np.einsum(subscripts, *xs)
    value = np.einsum(subscripts, *[sg.tensor(x) for x in xs])
    assert value.shape == expected.shape
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12, atol=1e-12)

    rng = np.random.default_rng(1)
    weights = rng.standard_normal(expected.shape)

    def loss(*xs: Any) -> Any:
        return np.sum(np.einsum(subscripts, *xs) ** 2 * weights)

    def slope(*xs: Any) -> Any:
        gs = sg.grad(loss, tuple(range(len(xs))))(*xs)
        return sum(np.sum(g * d) for g, d in zip(gs, directions, strict=True))

    directions = [rng.standard_normal(x.shape) for x in xs]
    moved = [[x + step * d for x, d in zip(xs, directions, strict=True)] for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope(*xs), (loss(*moved[0]) - loss(*moved[1])) / 2e-5, rtol=1e-5, atol=1e-7)
    products = sg.hvp(loss, tuple(xs), tuple(directions))
    curvature = sum((p * d).sum() for p, d in zip(products, directions, strict=True))
    np.testing.assert_allclose(curvature, (slope(*moved[0]) - slope(*moved[1])) / 2e-5, rtol=1e-5, atol=1e-6)


def test_the_form_with_axis_numbers() -> None:
    a, b = draw([(2, 3), (3, 4)])
    for numbers in ([0, 2], [2, 0], [], None):
        out = () if numbers is None else (numbers,)
        expected = np.einsum(a, [0, 1], b, [1, 2], *out)
        value = np.einsum(sg.tensor(a), [0, 1], sg.tensor(b), [1, 2], *out)
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    value = np.einsum(sg.tensor(a), [..., 1], [1, ...])
    np.testing.assert_allclose(value.numpy(), np.einsum(a, [..., 1], [1, ...]))


@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float32, np.float64), (np.int64, np.int32)])
def test_promotes_as_numpy_does(dtypes: Any) -> None:
    a, b = (np.ones(s, d) for s, d in zip([(2, 3), (3, 4)], dtypes, strict=True))
    assert sg.einsum("ij,jk", sg.tensor(a), b).dtype == np.einsum("ij,jk", a, b).dtype


def test_the_gradient_of_a_product_is_again_one_einsum() -> None:
    a, b = (sg.tensor(x) for x in draw([(2, 3), (3, 4)]))
    weights = np.ones((2, 4))
    (gradient,) = sg.backward((sg.einsum("ij,jk->ik", a, b) * weights).sum(), [a])
    assert gradient.equation.op.name == "einsum"
    assert gradient.equation.params == {"subscripts": "ik,jk->ij"}


@pytest.mark.parametrize(
    ("subscripts", "shapes", "text"),
    [
        ("i1", [(2, 3)], "subscripts are letters"),
        ("i-j", [(2, 3)], "subscripts are letters"),
        ("i->i->i", [(2,)], "one '->'"),
        ("i.j", [(2, 3)], "an ellipsis is three dots"),
        ("......", [(2, 3)], "an ellipsis is three dots"),
        ("...i...", [(2, 3)], "an ellipsis is three dots"),
        ("i,j", [(2,)], "describes 2 operands, and 1 were given"),
        ("i", [(2, 3)], "'i' does not name the 2 axes"),
        ("ij", [(2,)], "'ij' does not name the 1 axes"),
        ("ij->iij", [(2, 3)], "names 'i' twice"),
        ("ij->k", [(2, 3)], "names 'k', which no operand has"),
        ("...i->i", [(2, 3)], "ellipsis stands for are missing"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "the letter 'j' stands for an axis of length 3 and for one of 4"),
        ("ii", [(2, 3)], "the diagonal named by 'i' needs axes of one length"),
    ],
)
def test_says_what_is_wrong(subscripts: str, shapes: Any, text: str) -> None:
    xs = [np.ones(shape) for shape in shapes]
    with pytest.raises(ValueError):  # NumPy refuses it, too
        np.einsum(subscripts, *xs)
    with pytest.raises((ArgumentError, ShapeError), match=text) as error:
        sg.einsum(subscripts, *[sg.tensor(x) for x in xs])
    assert isinstance(error.value, StepgradError)
    assert error.value.instead


@pytest.mark.parametrize("numbers", [[0, 60], [0, "i"], 5, None])
def test_axis_numbers_that_are_none(numbers: Any) -> None:
    with pytest.raises(ArgumentError, match="numbers from 0 to 51"):
        sg.einsum(sg.tensor(np.ones((2, 3))), numbers)
