"""The kinds of births of NaN and Inf: what each is called, how it is told from the others, and what helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = Sequence[float]
"""The operands of an equation at the element that was born; for exponents and bases among the params, too."""


@dataclass(frozen=True)
class Kind:
    """One way in which a number that isn't finite comes into being.

    Attributes:
        name: what it is called.
        ops: the ops in which it happens; none for any.
        happens: whether it did: (operands at the element, the result) -> bool.
        remedy: what to write instead.
    """

    name: str
    ops: frozenset[str]
    happens: Callable[[Numbers, float], bool]
    remedy: str


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _nan(r: float) -> bool:
    return math.isnan(r)


def _any_inf(x: Numbers) -> bool:
    return any(math.isinf(v) for v in x)


_SMALLER = (
    "take smaller steps (a smaller learning rate, sg.optim.clip_by_norm), scale the inputs, or subtract the maximum "
    "before exp"
)
_SUMS = "add subtract sum mean cumsum var std einsum matmul tensordot outer softmax log_softmax logsumexp cross_entropy"

COMPUTED = (
    Kind(
        "log-of-zero",
        _ops("log log2 log10 log1p xlogy xlog1py logaddexp entr rel_entr kl_div"),
        lambda x, r: r == -math.inf or (math.isinf(r) and 0 in x),
        "compute the loss from logits (sg.losses.cross_entropy, sg.losses.binary_cross_entropy, sg.log_softmax), or "
        "keep the argument away from 0: np.log(np.maximum(x, 1e-7))",
    ),
    Kind(
        "log-of-negative",
        _ops("log log2 log10 log1p xlogy xlog1py"),
        lambda x, r: _nan(r) and not _any_inf(x),
        "make sure that the argument is positive: np.log(np.maximum(x, 1e-7)); sg.softplus(x) is a positive number",
    ),
    Kind(
        "root-of-negative",
        _ops("sqrt"),
        lambda x, r: _nan(r) and x[0] < 0,
        "clip what rounding or a difference made negative: np.sqrt(np.maximum(x, 0) + 1e-12)",
    ),
    Kind(
        "zero-over-zero",
        _ops("divide remainder fmod floor_divide"),
        lambda x, r: _nan(r) and len(x) > 1 and x[0] == 0 and x[1] == 0,
        "keep the divisor away from 0: x / np.maximum(n, 1e-12), or x / (n + 1e-8)",
    ),
    Kind(
        "division-by-zero",
        _ops("divide reciprocal remainder fmod floor_divide"),
        lambda x, r: x[-1] == 0,
        "keep the divisor away from 0: x / np.maximum(n, 1e-12), or x / (n + 1e-8)",
    ),
    Kind(
        "inf-over-inf",
        _ops("divide"),
        lambda x, r: _nan(r) and _any_inf(x),
        "divide before the two become infinite: subtract the maximum before exp, or use sg.softmax",
    ),
    Kind(
        "power-of-zero",
        _ops("power constant_power"),
        lambda x, r: not _nan(r) and x[0] == 0,
        "keep the base away from 0: np.maximum(x, 1e-12) ** p",
    ),
    Kind(
        "power-of-negative",
        _ops("power constant_power constant_base"),
        lambda x, r: _nan(r) and not _any_inf(x),
        "no real number is a negative one to the power of a fraction: use np.abs(x) ** p, or np.maximum(x, 0) ** p",
    ),
    Kind(
        "zero-times-inf",
        _ops("multiply matmul einsum tensordot outer prod"),
        lambda x, r: _nan(r) and _any_inf(x) and (0 in x or len(x) != 2),
        "choose with np.where(mask, value, 0) instead of multiplying by 0, and keep the other factor finite",
    ),
    Kind(
        "inf-minus-inf",
        _ops(_SUMS),
        lambda x, r: _nan(r) and _any_inf(x),
        "leave one number at least that is finite, or use a large finite number such as -1e9 in place of -np.inf",
    ),
    Kind(
        "singular-matrix",
        _ops("inv solve det slogdet cofactors cholesky eigh svd qr pinv"),
        lambda x, r: True,
        "add a little to the diagonal: A + 1e-6 * np.eye(n); or use sg.linalg.lstsq or sg.linalg.pinv",
    ),
    Kind(
        "pole",
        _ops("arctanh gamma gammaln psi zeta erfinv erfcinv ndtri logit tan beta betaln power_derivative"),
        lambda x, r: not _nan(r) and all(abs(v) < 30 for v in x),
        "keep the argument away from the edge of the domain: np.clip(x, low + 1e-6, high - 1e-6)",
    ),
    Kind(
        "overflow-in-conversion",
        _ops("astype"),
        lambda x, r: not _nan(r),
        "keep the wider dtype, or scale the numbers down before they are converted",
    ),
    Kind("overflow", _ops(_SUMS + " prod cumprod"), lambda x, r: not _any_inf(x), _SMALLER),
    Kind("overflow", frozenset(), lambda x, r: math.isinf(r), _SMALLER),
    Kind(
        "outside-domain",
        frozenset(),
        lambda x, r: True,
        "keep the argument inside the domain of the function: np.clip(x, low, high)",
    ),
)
"""How equations make them; the first one that fits."""

INFINITE_DERIVATIVE = Kind(
    "infinite-derivative",
    frozenset(),
    lambda x, r: True,
    "keep the argument away from that point: np.sqrt(x + 1e-12), np.maximum(x, 1e-12) ** p; or choose with np.where, "
    "and give the function a harmless argument where it isn't wanted",
)
"""A local rule divides by zero, or takes its logarithm: the function has no finite derivative at this point."""

_BY_DIVIDING = frozenset(["zero-over-zero", "division-by-zero", "power-of-zero", "log-of-zero", "pole"])

_EARLIER = "an earlier step made it: call sg.first_nan with that step, and before=sg.snapshot(…) taken before it"

LEAVES: Mapping[str, Kind] = {
    kind.name.removeprefix("non-finite-"): kind
    for kind in (
        Kind(
            "non-finite-input",
            frozenset(["input"]),
            lambda x, r: True,
            "look at where the data come from: drop these rows, or fill them with np.nan_to_num(x)",
        ),
        Kind(
            "non-finite-parameter",
            frozenset(["cell"]),
            lambda x, r: True,
            _EARLIER,
        ),
        Kind(
            "non-finite-state",
            frozenset(["cell"]),
            lambda x, r: True,
            _EARLIER,
        ),
        Kind(
            "non-finite-constant",
            frozenset(["constant", "literal"]),
            lambda x, r: True,
            "use a finite number, or choose with np.where what is not to count",
        ),
    )
}
"""What was there before the call: by "input", "parameter", "state" and "constant"."""


def kind_of(op: str, operands: Numbers, result: float, backward: bool, finite_forward: bool) -> Kind:
    """The kind of a birth.

    Args:
        op: the name of the op.
        operands: the operands at the element, or numbers that stand for them.
        result: what was born.
        backward: a local rule emitted the equation.
        finite_forward: what the forward equation computed at this element is finite.
    """
    kind = next(k for k in COMPUTED if (not k.ops or op in k.ops) and k.happens(operands, result))
    return INFINITE_DERIVATIVE if backward and finite_forward and kind.name in _BY_DIVIDING else kind


_SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "remainder": "%"}


def happened(op: str, operands: Sequence[Any], params: Mapping[str, Any], result: float, single: bool = True) -> str:
    """`log(0) = -inf`, `0 / 0 = nan`.

    Args:
        op, operands, params, result: of the equation, at the element.
        single: the operands are single numbers, and not the largest of those that the result was made from.
    """
    texts = [number_text(v) for v in operands]
    if not single:
        call = f"{op} of magnitudes up to {' and '.join(number_text(abs(v)) for v in operands)}"
    elif op in _SYMBOLS and len(texts) == 2:
        call = f"{texts[0]} {_SYMBOLS[op]} {texts[1]}"
    elif op == "constant_power":
        call = f"{_in_brackets(texts[0])} ** {params['exponent']:g}"
    elif op == "constant_base":
        call = f"{params['base']:g} ** {texts[0]}"
    elif op == "astype":
        call = f"{texts[0]} as {params['dtype']}"
    else:
        call = f"{op}({', '.join(texts)})"
    return f"{call} = {number_text(result)}"


def _in_brackets(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def number_text(value: Any) -> str:
    """A number with as many digits as are needed to recognise it."""
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, complex):
        return f"{value:.4g}"
    return f"{float(value):.4g}"
