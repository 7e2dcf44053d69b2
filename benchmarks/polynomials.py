"""Where the polynomials of `stepgrad.execute.cpu.coefficients` come from.

`python -m benchmarks.polynomials > src/stepgrad/execute/cpu/coefficients.py` writes that file again; it needs mpmath
and takes about ten seconds.

Each polynomial is a best approximation (the largest weighted error is the smallest possible), found by the exchange
algorithm of E. Remez (1934), in 40 digits. Its coefficients are then rounded to the dtype. In float32 they are rounded
one by one from the constant upwards, and after each the remaining ones are fitted again, for as long as that helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp, mpf

mp.dps = 40


@dataclass(frozen=True)
class Fit:
    """One polynomial to find.

    Attributes:
        function: what to approximate.
        interval: where.
        weight: the error is multiplied by it: the result's relative error for each error of the polynomial.
        terms: how many coefficients, for each dtype that they are rounded to, and how the tables are called.
    """

    function: Callable[[Any], Any]
    interval: tuple[Any, Any]
    weight: Callable[[Any], Any]
    terms: dict[str, tuple[type, int]]


def best(values: list[Any], points: list[Any], weights: list[Any], terms: int, start: int) -> tuple[list[Any], Any]:
    """The coefficients of x**start, x**(start + 1), … with the smallest weighted error on a grid, and that error."""
    count = terms + 1
    chosen = [round(i) for i in (np.cos(np.pi * np.arange(count) / terms)[::-1] + 1) / 2 * (len(points) - 1)]
    for _ in range(30):
        matrix, right = mp.matrix(count), mp.matrix(count, 1)
        for row, i in enumerate(chosen):
            for column in range(terms):
                matrix[row, column] = points[i] ** (start + column)
            matrix[row, terms] = (-1) ** row / weights[i]
            right[row] = values[i]
        solution = mp.lu_solve(matrix, right)
        coefficients, level = list(solution)[:terms], abs(solution[terms])
        errors = [
            w * (v - x**start * mp.polyval(coefficients[::-1], x))
            for v, x, w in zip(values, points, weights, strict=True)
        ]
        extrema: list[int] = []
        for i, error in enumerate(errors):  # of each run of one sign, the largest
            if extrema and (error > 0) == (errors[extrema[-1]] > 0):
                if abs(error) > abs(errors[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        while len(extrema) > count:  # drop the lower end
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        largest = max(abs(e) for e in errors)
        if len(extrema) < count or largest <= level * 1.0001:
            return coefficients, largest
        chosen = extrema
    return coefficients, largest


def rounded(fit: Fit, dtype: type, terms: int) -> tuple[list[float], Any]:
    """The coefficients, each a number of the dtype, and the largest weighted error."""
    low, high = map(mpf, fit.interval)
    angles = [mpf(i) / 400 for i in range(401)]
    points = [low + (high - low) * (1 - mp.cos(mp.pi * a)) / 2 for a in angles]
    points = [x if abs(x) > mpf(10) ** -9 else x + mpf(10) ** -9 for x in points]
    weights = [abs(fit.weight(x)) for x in points]
    values = [fit.function(x) for x in points]
    fixed: list[float] = []
    candidates = []
    for start in range(terms):
        coefficients, _ = best(values, points, weights, terms - start, start)
        numbers = [float(dtype(float(c))) for c in coefficients]
        rest = [v - x**start * mp.polyval(numbers[::-1], x) for v, x in zip(values, points, strict=True)]
        candidates.append((max(w * abs(r) for w, r in zip(weights, rest, strict=True)), fixed + numbers))
        if dtype is np.float64:  # rounding loses nothing that matters
            break
        fixed = [*fixed, numbers[0]]
        values = [v - mpf(numbers[0]) * x**start for v, x in zip(values, points, strict=True)]
    error, chosen = min(candidates)
    return chosen, error


def odd(function: Callable[[Any], Any], first: Any) -> Callable[[Any], Any]:
    """P in f(x) = first x + x**3 P(x**2), as a function of x**2."""
    return lambda u: (function(mp.sqrt(u)) / mp.sqrt(u) - first) / u


def odd_weight(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda u: mp.sqrt(u) ** 3 / function(mp.sqrt(u))


single, double = np.float32, np.float64
half_ln2 = mp.log(2) / 2 * mpf("1.0001")

FITS = {
    "EXP": Fit(
        lambda r: (mp.expm1(r) - r) / r**2,
        (-half_ln2, half_ln2),
        lambda r: r**2 / mp.expm1(r),
        {"float32": (single, 5), "float64": (double, 11), "mixed": (double, 5)},
    ),
    "EXP2": Fit(
        lambda r: mp.expm1(r * mp.log(2)) / r,
        ("-0.5", "0.5"),
        lambda r: r / mp.mpf(2) ** r,
        {"float32": (single, 6), "float64": (double, 11), "mixed": (double, 6)},
    ),
    "LOG": Fit(
        lambda f: (mp.log1p(f) - f) / f**2,
        ("-0.25", "0.5"),
        lambda f: f**2 / mp.log1p(f),
        {"float32": (single, 8), "float64": (double, 20), "mixed": (double, 9)},
    ),
    "LOG2": Fit(
        lambda f: (mp.log1p(f) - f) / f**2 / mp.log(2),
        ("-0.25", "0.5"),
        lambda f: f**2 / mp.log1p(f),
        {"float32": (single, 8), "float64": (double, 20), "mixed": (double, 12)},
    ),
    "LOG10": Fit(
        lambda f: (mp.log1p(f) - f) / f**2 / mp.log(10),
        ("-0.25", "0.5"),
        lambda f: f**2 / mp.log1p(f),
        {"float32": (single, 8), "float64": (double, 20)},
    ),
    "TANH": Fit(odd(mp.tanh, 1), (0, "0.49"), odd_weight(mp.tanh), {"float32": (single, 5), "float64": (double, 13)}),
    "SINH": Fit(odd(mp.sinh, 1), (0, 1), odd_weight(mp.sinh), {"float64": (double, 8), "mixed": (double, 4)}),
    "ERF": Fit(
        lambda u: mp.erf(mp.sqrt(u)) / mp.sqrt(u) - 1,
        (0, 1),
        lambda u: mp.sqrt(u) / mp.erf(mp.sqrt(u)),
        {"float32": (single, 7), "float64": (double, 13)},
    ),
    "ERF_OUTER": Fit(
        lambda u: mp.log(mp.erfc(u + 1)),
        (0, "3"),
        lambda u: mp.erfc(u + 1) / mp.erf(u + 1),
        {"float32": (single, 8)},
    ),
    "ERF_OUTER_WIDE": Fit(
        lambda u: mp.log(mp.erfc(u + 1)),
        (0, "5"),
        lambda u: mp.erfc(u + 1) / mp.erf(u + 1),
        {"float64": (double, 22)},
    ),
    "ERFC": Fit(lambda u: mp.log(mp.erfc(u + 5)) + (u + 5) ** 2, ("-5", "5.1"), lambda u: 1, {"mixed": (double, 20)}),
    "ARCTAN": Fit(odd(mp.atan, 1), (0, 1), odd_weight(mp.atan), {"float32": (single, 9), "float64": (double, 20)}),
    "ARCSIN": Fit(odd(mp.asin, 1), (0, "0.2933"), odd_weight(mp.asin), {"float64": (double, 14)}),
    "SIN": Fit(odd(mp.sin, 1), (0, "0.62"), odd_weight(mp.sin), {"mixed": (double, 4)}),
    "COS": Fit(
        lambda u: (mp.cos(mp.sqrt(u)) - 1) / u,
        (0, "0.62"),
        lambda u: u / mp.cos(mp.sqrt(u)),
        {"mixed": (double, 4)},
    ),
}


def main() -> None:
    print('"""Coefficients of polynomials, the constant first. Written by benchmarks/polynomials.py."""\n')
    print("# The comment is the largest relative error that the polynomial causes in the result, without rounding.")
    for name, fit in FITS.items():
        print(f"\n{name} = {{")
        for dtype, (rounding, terms) in fit.terms.items():
            coefficients, error = rounded(fit, rounding, terms)
            print(f'    "{dtype}": (  # 2**{float(mp.log(error, 2)):.1f}')
            for coefficient in coefficients:
                print(f"        {coefficient!r},")
            print("    ),", flush=True)
        print("}")


if __name__ == "__main__":
    main()
