"""The listing: a program as text, kernel by kernel; and the log of how it came to be."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from stepgrad.execute.cpu.described import Described, Operand, describe, fallbacks, why_stored
from stepgrad.execute.cpu.naming import Names
from stepgrad.execute.cpu.plan import Plan
from stepgrad.tape.equation import CELL, INPUT
from stepgrad.tape.layout import plural, size_text

WIDTH = 112
LONGEST_PERIOD = 8
"""Kernels that repeat are folded if so many of them, or fewer, are what repeats."""


def listing(plan: Plan) -> str:
    """What `print(program)` shows."""
    names = Names(plan)
    kernels = describe(plan, names)
    lines = _totals(plan, kernels, names)
    i = 0
    while i < len(kernels):
        period, times = _repeated(kernels, i)
        for kernel in kernels[i : i + period]:
            lines += ["", *_kernel(kernel, kernels)]
        if times > 1:
            lines += ["", *_folded(kernels[i : i + period * times], period, times)]
        i += period * times
    return "\n".join(lines)


def _totals(plan: Plan, kernels: Sequence[Described], names: Names) -> list[str]:
    native = {k.function for k in kernels if k.function}
    barriers = sum(k.barrier is not None for k in kernels)
    planned = sum(e.type.nbytes for e in plan.buffers.offsets)
    numpy = fallbacks(plan, names)
    cells = {e for e in plan.tensors if e.op is CELL}
    first = ", ".join(
        [
            plural(len(kernels), "kernel"),
            f"{plural(len(native), 'machine function')}",
            plural(barriers, "barrier"),
            plural(plan.threads, "thread"),
        ]
    )
    reused = f" ({size_text(planned)} without reuse)" if planned > plan.buffers.size else ""
    lines = [
        f"program: {first}",
        f"computes  {plural(len(plan.tape), 'equation')}, {count(sum(k.flops for k in kernels))}FLOP a step",
        f"memory    {size_text(plan.buffers.size)} for intermediate values{reused}, each `at` a byte of it; "
        f"{size_text(sum(e.type.nbytes for e in cells))} in {plural(len(cells), 'cell')}"
        + (f"; {size_text(plan.scratch)} of scratch for each thread" if plan.scratch else ""),
    ]
    inputs = [f"{names.of[e]} {e.type}" for e in plan.tape.inputs if e.op is INPUT]
    lines += _wrapped("takes     ", inputs)
    lines += _wrapped("returns   ", [f"{names.of[e]} {e.type}" for e in plan.results])
    lines += _wrapped("NumPy     ", [str(f) for f in numpy]) if numpy else ["NumPy     computes nothing"]
    return [line.rstrip() for line in lines]


def _kernel(kernel: Described, kernels: Sequence[Described]) -> list[str]:
    lines = []
    if kernel.barrier is not None:
        lines += [*_wrapped("──── barrier: ", [kernel.barrier]), ""]
    size = f"{count(kernel.flops)}FLOP" if kernel.flops else ""
    room = WIDTH - len(kernel.name) - len(size) - 4
    title = textwrap.shorten(kernel.title, room, placeholder=" …")
    head = f"{kernel.name:<3} {title}"
    lines.append(f"{head}{size:>{WIDTH - len(head)}}" if size else head)
    if kernel.chain:
        lines += _wrapped("    ", [" → ".join(_ends(kernel.chain))])
    both = [o for o in kernel.writes if o in kernel.reads]
    for does, operands in (
        ("reads", [o for o in kernel.reads if o not in both]),
        ("writes", [o for o in kernel.writes if o not in both]),
        ("updates", both),
    ):
        lines += _wrapped(f"    {does:<8}", _together(operands))
    twins = [k.name for k in kernels if k.function == kernel.function and k is not kernel] if kernel.function else []
    same = f"; its machine function also runs {ranges(twins)}" if twins else ""
    lines += _wrapped("    runs    ", [kernel.shared + same])
    if kernel.lines:
        lines += _wrapped("    from    ", [", ".join(kernel.lines)])
    return lines


def _ends(chain: Sequence[str]) -> Sequence[str]:
    return chain if len(chain) < 9 else [*chain[:4], "…", *chain[-4:]]


def _together(operands: Sequence[Operand]) -> list[str]:
    """Operands as text; those of one type that live side by side in words."""
    groups: dict[object, list[Operand]] = {}
    for o in operands:
        groups.setdefault((o.type, o.home) if o.home in _HOMES else o, []).append(o)
    texts = []
    for group in groups.values():
        first = group[0]
        size = f" {size_text(first.type.nbytes)}{' each,' if len(group) > 1 else ''}" if first.type.size > 1 else ""
        names = ", ".join(o.name for o in group)
        texts.append(f"{names} {first.type}{size} {_HOMES[first.home] if len(group) > 1 else first.home}")
    return texts


_HOMES = {"input": "inputs", "cell": "cells", "constant": "constants", "result": "results"}


def _shown(operand: Operand) -> str:
    size = f" {size_text(operand.type.nbytes)}" if operand.type.size > 1 else ""
    return f"{operand.name} {operand.type}{size} {operand.home}"


def _wrapped(start: str, items: Iterable[str], separator: str = "; ") -> list[str]:
    text = separator.join(item.replace(" ", "\0") if len(item) < WIDTH // 2 else item for item in items)
    if not text:
        return []
    made = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in made]


def count(number: float) -> str:
    """A count with three digits and a prefix: `1.05 M`; a unit follows."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"


# --- what repeats


def _signature(kernel: Described) -> object:
    step = kernel.step
    homes = tuple(o.home.split()[0] for o in (*kernel.reads, *kernel.writes))
    return step.kernel.body, step.split, step.barrier, homes, kernel.title


def _repeated(kernels: Sequence[Described], i: int) -> tuple[int, int]:
    """How many kernels from here on are what repeats, and how often; (1, 1) if nothing does."""
    best = (1, 1)
    for period in range(1, LONGEST_PERIOD + 1):
        pattern = [_signature(k) for k in kernels[i : i + period]]
        times = 1
        while [_signature(k) for k in kernels[i + times * period : i + (times + 1) * period]] == pattern:
            times += 1
        if times > 2 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _folded(kernels: Sequence[Described], period: int, times: int) -> list[str]:
    what = f"the kernel {kernels[0].name}" if period == 1 else f"the kernels {ranges(k.name for k in kernels[:period])}"
    rest = kernels[period:]
    ends = [k.chain[-1] for k in rest[period - 1 :: period] if k.chain]
    shown = ends if len(ends) < 5 else [*ends[:2], "…", ends[-1]]
    again = f"{what} again, {times - 1} times more: to {', '.join(shown)}"
    return _wrapped(f"{ranges(k.name for k in rest)}  ", [again])


def ranges(names: Iterable[str]) -> str:
    """`k1-k4, k7` of k1, k2, k3, k4 and k7."""
    numbers = [int(name[1:]) for name in names]
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][-1] == n - 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    texts = [f"k{p[0]}-k{p[-1]}" if len(p) > 1 else f"k{p[0]}" for p in parts]
    return ", ".join(texts) if len(texts) < 4 else f"{len(numbers)} others"


# --- the log


class Story:
    """How a program came to be, as text: what the passes changed, what was fused, stored and waited for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def log(plan: Plan) -> Story:
    """What every pass changed and why, and what was decided after them."""
    names = Names(plan)
    kernels = describe(plan, names)
    computed = sum(len(k.members) for k in kernels)
    again = sorted(plan.fusion.sunk, key=lambda e: e.serial)
    lines = [str(plan.log), f"fusion: {plural(computed, 'equation')} -> {plural(len(kernels), 'kernel')}"]
    lines += [f"  {k.name} {k.title} ({plural(len(k.members), 'equation')})" for k in kernels if len(k.members) > 1]
    if again:
        lines.append(
            "  computed again by each kernel that reads them, for that is cheaper than reading them from memory:"
        )
        lines += _wrapped("    ", [names.of[e] for e in again])
    stored = why_stored(plan, kernels, names)
    lines.append(f"stored: {plural(len(stored), 'value')}, all others stay in registers")
    lines += [f"  {_shown(operand)}: {why}" for operand, why in stored]
    barriers = [k for k in kernels if k.barrier is not None]
    lines.append(f"scheduling: {plural(len(barriers), 'barrier')}, {plural(plan.threads, 'thread')}")
    lines += [f"  before {k.name}: {k.barrier}" for k in barriers]
    planned = sum(e.type.nbytes for e in plan.buffers.offsets)
    lines.append(
        f"buffers: {plural(len(plan.buffers.offsets), 'intermediate value')} of {size_text(planned)} "
        f"in {size_text(plan.buffers.size)}"
    )
    numpy = fallbacks(plan, names)
    lines.append(f"NumPy: {plural(len(numpy), 'equation')}")
    lines += [f"  {f}" for f in numpy]
    return Story("\n".join(lines))
