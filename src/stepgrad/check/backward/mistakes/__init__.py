"""The catalogue of mistakes in backward passes: one small file for each family.

The matcher, the tests and the page docs/mistakes.md are all made from it. A mistake is added to the file
of its family, and to `RANKS`.
"""

from stepgrad.check.backward.mistakes import activation, batch, cached, interface, layout, paths, scale
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake

FAMILIES: tuple[Family, ...] = (
    layout.FAMILY,
    cached.FAMILY,
    activation.FAMILY,
    scale.FAMILY,
    paths.FAMILY,
    batch.FAMILY,
    interface.FAMILY,
)

CATALOGUE: dict[str, Mistake] = {m.name: m for family in FAMILIES for m in family.mistakes}
"""Name -> mistake."""

RANKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Comparing runs has seen it; values only show its consequences.",
        (
            "gradient-missing",
            "gradient-extra",
            "not-reset-between-calls",
            "cache-mutated",
            "weights-after-update",
            "stale-cache",
            "forward-disagrees-with-cache",
        ),
    ),
    (
        "The numbers are right up to rounding: nothing else looks like that.",
        ("wrong-dtype", "low-precision"),
    ),
    (
        "The numbers are right, in another arrangement or summed otherwise; the shape tells, or the operator.",
        (
            "elementwise-for-matmul",
            "keepdims-lost",
            "transposed",
            "softmax-diagonal-only",
            "bias-not-summed",
            "broadcast-not-undone",
            "bias-summed-to-scalar",
            "bias-wrong-axis",
        ),
    ),
    ("A sign, then numbers that have a meaning: the most particular one first.", ("sign", "mean-on-weights-only")),
    (
        "One number is the batch size, or 1/keep, or 2 next to a square; only then any size, or any number at all.",
        ("mean-missing", "mean-twice", "dropout-not-scaled", "half-of-the-loss", "wrong-divisor", "constant-factor"),
    ),
    (
        "Activations before caches: Z for A inside a derivative is a mistake about derivatives. Clipping is none.",
        (
            "clip-mismatch",
            "leaky-slope-lost",
            "derivative-dropped-without-fused-loss",
            "derivative-kept-with-fused-loss",
            "activation-derivative-missing",
            "derivative-twice",
            "mask-inverted",
            "mask-from-gradient",
            "derivative-at-activation",
            "derivative-of-preactivation",
            "activation-as-mask",
        ),
    ),
    (
        "A particular path before any path; rounded predictions leave zeros, which look like a missing path.",
        (
            "regulariser-mismatch",
            "rounded-predictions",
            "batch-statistics-as-constants",
            "dropout-mask-redrawn",
            "overwritten-at-fan-out",
            "downstream-ignored",
            "path-forgotten",
        ),
    ),
    (
        "A value of this layer before one of another: Z1 for A1 before A0 for A1.",
        ("preactivation-for-activation", "other-layers-weights", "weights-not-transposed"),
    ),
    ("What can imitate many others, by chance of equal shapes.", ("other-layers-cache",)),
    ("The loosest: another order of steps, other examples.", ("wrong-order", "batch-leakage")),
    ("No values to go by.", ("not-deterministic",)),
)
"""Which mistake is named first where several would give the same wrong value: reasons, and names in order."""

RANK: dict[str, int] = {name: i for i, name in enumerate(n for _, names in RANKS for n in names)}

__all__ = ["CATALOGUE", "FAMILIES", "RANK", "RANKS", "Example", "Family", "Guess", "Mistake"]
