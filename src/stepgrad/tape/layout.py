"""Layout: tables, sizes and counts as text."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns side by side; those in `right` are aligned to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "   ".join(cells).rstrip()

    return [line(header), "   ".join("─" * w for w in widths), *map(line, rows)]


def size_text(count: int) -> str:
    """A number of bytes with three digits and a unit.

    Example:
        >>> size_text(560), size_text(1234567)
        ('560 B', '1.23 MB')
    """
    return f"{count} B" if count < 1000 else _scaled(count, "B")


def plural(count: int, noun: str) -> str:
    """`1 value`, `2 values`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def count_text(count: int) -> str:
    """A large count, short.

    Example:
        >>> count_text(12345), count_text(10**30)
        ('12,345', '1.00e+30')
    """
    if count < 10_000_000:
        return f"{count:,}"
    digits = str(count)  # exact integers may be too large for a float
    return f"{digits[0]}.{digits[1:3]}e+{len(digits) - 1}"


def ratio_text(numerator: int, denominator: int) -> str:
    """`3.2` for 32/10; large ratios as counts."""
    if not denominator:
        return "–"
    if numerator >= 1000 * denominator:
        return count_text(numerator // denominator)
    return f"{numerator / denominator:.3g}"


def _scaled(count: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5 or prefix == "T":
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    raise AssertionError
