"""Einstein summation: products of any number of arrays, summed over axes that are named by letters."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.reductions import unreduce
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.ops.shapes import reshape
from stepgrad.tape.op import Op, Shape, TensorType, promoted_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions

__all__ = ["einsum"]


def _split(subscripts: str) -> tuple[list[str], str]:
    inputs, output = subscripts.split("->")
    return inputs.split(","), output


def _lengths(subscripts: str, shapes: Iterable[Shape]) -> dict[str, int]:
    """The length of each letter's axis."""
    lengths: dict[str, int] = {}
    for letters, shape in zip(_split(subscripts)[0], shapes, strict=True):
        for letter, length in zip(letters, shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ShapeError(
                    f"einsum of {subscripts!r} got shapes " + " and ".join(map(str, shapes)),
                    f"the letter {letter!r} stands for an axis of length {lengths[letter]} and for one of {length}",
                    "give axes of different lengths different letters",
                )
    return lengths


def _einsum_shape(*types: TensorType, subscripts: str) -> Shape:
    lengths = _lengths(subscripts, [t.shape for t in types])
    return tuple(lengths[letter] for letter in _split(subscripts)[1])


def _worth_optimizing(subscripts: str, shapes: Sequence[Shape]) -> bool:
    """NumPy's own loops are the fastest for one array or a few numbers, and matrix products for the rest."""
    return len(shapes) > 2 or (
        len(shapes) == 2 and math.prod(_lengths(subscripts, shapes).values()) > _FEW_MULTIPLICATIONS
    )


_FEW_MULTIPLICATIONS = 8_000


def _einsum_numpy(*arrays: Any, subscripts: str) -> Any:
    return np.einsum(subscripts, *arrays, optimize=_worth_optimizing(subscripts, [a.shape for a in arrays]))


def _einsum_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    optimize = _worth_optimizing(params["subscripts"], [e.type.shape for e in equation.inputs])
    settings = ", optimize=True" if optimize else ""
    return f"np.einsum({params['subscripts']!r}, {', '.join(operands)}{settings})"


def _einsum_rule(operand: int) -> Any:
    """The downstream gradient takes the operand's place, and their letters change places."""

    def rule(g: Tensor, out: Tensor, *inputs: Tensor, subscripts: str) -> Tensor:
        letters, output = _split(subscripts)
        wanted = letters[operand]
        letters[operand] = output
        known = "".join(letter for letter in wanted if letter in "".join(letters))
        operands = (*inputs[:operand], g, *inputs[operand + 1 :])
        alone = len(operands) == 1 and known == output
        upstream = g if alone else record(_einsum, operands, {"subscripts": f"{','.join(letters)}->{known}"})
        summed = tuple(i for i, letter in enumerate(wanted) if letter not in known)
        return unreduce(upstream, inputs[operand].shape, summed, False) if summed else upstream

    return rule


def _einsum_cost(*types: TensorType, subscripts: str) -> float:
    """Multiplications and additions, two operands at a time from the left."""
    inputs, output = _split(subscripts)
    lengths = _lengths(subscripts, [t.shape for t in types[:-1]])
    total, held = 0.0, inputs[0]
    for i, letters in enumerate(inputs[1:], start=1):
        later = output + "".join(inputs[i + 1 :])
        together = set(held + letters)
        total += 2.0 * math.prod(lengths[c] for c in together)
        held = "".join(c for c in together if c in later)
    return total if len(inputs) > 1 else float(types[0].size)


_einsum = register(
    Op(
        "einsum",
        shape=_einsum_shape,
        numpy=_einsum_numpy,
        rules=_einsum_rule,
        text=_einsum_text,
        samples=[
            (normal(2, 3), normal(3, 4), {"subscripts": "ij,jk->ik"}),
            (normal(2, 2, 3), normal(2, 3, 2), {"subscripts": "bij,bjk->kb"}),
            (normal(2, 3), {"subscripts": "ij->ji"}),
            (normal(2, 3, 2), {"subscripts": "ijk->j"}),
            (normal(2, 3), normal(), {"subscripts": "ij,->i"}),
            (normal(2), normal(3), {"subscripts": "i,j->"}),
            (normal(2, 3), normal(3, 2), normal(2, 2), {"subscripts": "ij,jk,kl->il"}),
            (normal(2), normal(2), normal(2), {"subscripts": "i,i,i->i"}),
        ],
        analytic=True,
        cost=_einsum_cost,
    )
)


def einsum(subscripts: Any, *operands: Any, optimize: Any = None) -> Tensor:
    """The sum of products that NumPy's subscripts describe.

    Repeated letters take a diagonal, letters that are not in the result are summed over, and an
    ellipsis stands for leading axes that broadcast.

    Args:
        subscripts: for example "ij,jk->ik" or "...ii"; or the first operand, with a list of axis
            numbers after each operand (NumPy's second form).
        operands: tensors or arrays, one for each group of letters.
        optimize: accepted because NumPy has it. The order of the products is always chosen.

    Example:
        >>> A = sg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> sg.einsum("ij,ij->i", A, A)
        tensor([ 5., 25.], dtype=float64)
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _letters_for_numbers((subscripts, *operands))
    tensors = [array_of(x) for x in operands]
    inputs, output = _explicit(subscripts, [t.shape for t in tensors])
    for i, letters in enumerate(inputs):
        tensors[i], inputs[i] = _diagonals(tensors[i], letters, subscripts)
    tensors, inputs = _without_broadcasting(tensors, inputs)
    dtype = promoted_dtype(*[t.equation.type for t in tensors])
    return record(
        _einsum, tuple([to_dtype(t, dtype) for t in tensors]), {"subscripts": f"{','.join(inputs)}->{output}"}
    )


def _letters_for_numbers(operands: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """`(a, [0, 1], b, [1, 2], [0, 2])` as `("ab,bc->ac", (a, b))`."""

    alphabet = string.ascii_uppercase + string.ascii_lowercase  # in the order in which einsum sorts them

    def letters(numbers: Any) -> str:
        if not isinstance(numbers, (list, tuple)) or any(
            n is not Ellipsis and not (isinstance(n, (int, np.integer)) and 0 <= n < 52) for n in numbers
        ):
            raise ArgumentError(
                f"einsum was called with {numbers!r} in the place of axis numbers",
                "without a string of subscripts, every operand is followed by a list of numbers from 0 to 51",
                "write einsum('ij,jk->ik', a, b), or einsum(a, [0, 1], b, [1, 2], [0, 2])",
            )
        return "".join("..." if n is Ellipsis else alphabet[n] for n in numbers)

    groups = ",".join(letters(numbers) for numbers in operands[1::2])
    if len(operands) % 2:
        return f"{groups}->{letters(operands[-1])}", operands[:-1:2]
    return groups, operands[::2]


def _explicit(subscripts: str, shapes: list[Shape]) -> tuple[list[str], str]:
    """Letters for every axis: ellipses are replaced by letters, and the output is spelt out."""
    compact = subscripts.replace(" ", "")
    if not re.fullmatch(r"[A-Za-z.,]*(->[A-Za-z.]*)?", compact):
        _refuse(subscripts, "subscripts are letters, with commas between operands, '...' and one '->'")
    left, arrow, right = compact.partition("->")
    groups = left.split(",")
    if any(not re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", group) for group in (*groups, right)):
        _refuse(subscripts, "an ellipsis is three dots, once for each operand")
    if len(groups) != len(shapes):
        _refuse(subscripts, f"it describes {len(groups)} operands, and {len(shapes)} were given")

    hidden = []
    for group, shape in zip(groups, shapes, strict=True):
        count = len(shape) - len(group.replace("...", ""))
        if count < 0 or (count and "..." not in group):
            _refuse(subscripts, f"{group!r} does not name the {len(shape)} axes of shape {shape}")
        hidden.append(count)
    unused = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in compact]
    most = max(hidden, default=0)
    if most > len(unused):
        _refuse(subscripts, "there are more axes than letters")
    leading = "".join(unused[:most])
    inputs = [
        group.replace("...", leading[most - count :]) for group, count in zip(groups, hidden, strict=True)
    ]  # matched from the right, as broadcasting does

    named = left.replace(",", "").replace(".", "")
    if not arrow:
        output = leading + "".join(sorted(c for c in set(named) if named.count(c) == 1))
    else:
        output = right.replace("...", leading)
        if most and "..." not in right:
            _refuse(subscripts, "the axes that the ellipsis stands for are missing in the result")
    for letter in output:
        if output.count(letter) > 1:
            _refuse(subscripts, f"the result names {letter!r} twice")
        if not any(letter in group for group in inputs):
            _refuse(subscripts, f"the result names {letter!r}, which no operand has")
    return inputs, output


def _refuse(subscripts: str, why: str) -> NoReturn:
    raise ArgumentError(
        f"einsum was called with the subscripts {subscripts!r}",
        why,
        "write one letter for each axis of each operand, then '->' and the letters of the result: 'ij,jk->ik'",
    )


def _diagonals(tensor: Tensor, letters: str, subscripts: str) -> tuple[Tensor, str]:
    """Takes the diagonal of axes that have the same letter, so that each letter is left once."""
    while len(set(letters)) < len(letters):
        letter = next(c for c in letters if letters.count(c) > 1)
        first, second = (i for i, c in list(enumerate(letters)) if c == letter and letters.count(letter, 0, i) < 2)
        if tensor.shape[first] != tensor.shape[second]:
            raise ShapeError(
                f"einsum of {subscripts!r} got an operand of shape {tensor.shape}",
                f"the diagonal named by {letter!r} needs axes of one length, "
                f"and they have {tensor.shape[first]} and {tensor.shape[second]}",
                "give axes of different lengths different letters",
            )
        tensor = functions["diagonal"](tensor, axis1=first, axis2=second)
        letters = "".join(c for i, c in enumerate(letters) if i not in (first, second)) + letter
    return tensor, letters


def _without_broadcasting(tensors: list[Tensor], inputs: list[str]) -> tuple[list[Tensor], list[str]]:
    """Takes axes of length 1 out of operands where the same letter is longer elsewhere."""
    longest: dict[str, int] = {}
    for tensor, letters in zip(tensors, inputs, strict=True):
        for letter, length in zip(letters, tensor.shape, strict=True):
            longest[letter] = length if longest.get(letter, 1) == 1 else longest[letter]
    made, named = [], []
    for tensor, letters in zip(tensors, inputs, strict=True):
        kept = [i for i, c in enumerate(letters) if tensor.shape[i] != 1 or longest[c] == 1]
        made.append(reshape(tensor, tuple(tensor.shape[i] for i in kept)))
        named.append("".join(letters[i] for i in kept))
    return made, named


public(einsum, np.einsum)
