"""The code of special kernels (see `passes.specials`)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points
from stepgrad.execute.cpu.frame import Frame, begin, load, store
from stepgrad.execute.cpu.moves import emit_join, emit_running, split_move, vectors
from stepgrad.execute.cpu.packing import I64, Index, add, index, loop, multiply
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split


def split_special(body: Body, target: Target) -> Split:
    """How a special kernel is shared out."""
    if body.kind == "check":
        return Split(1)
    if body.kind in ("join", "running"):
        return split_move(body, target)
    if body.kind == "random":
        return Split(-(-body.inner // 4), 16) if body.inner > 256 else Split(0)
    lanes = target.lanes(points.TYPES[body.dtypes[0]])
    return Split(body.inner, lanes, axis="columns") if body.inner > lanes else Split(0)


def emit_special(module: ir.Module, name: str, body: Body, split: Split, target: Target) -> None:
    """Emits a special kernel."""
    frame = begin(module, name, body, split)
    if body.kind == "check":
        _emit_check(frame)
    else:
        emitters = {"random": _emit_random, "scatter": _emit_scatter, "join": emit_join, "running": emit_running}
        emitters[body.kind](frame, split, target)
    frame.b.ret_void()


def _emit_check(frame: Frame) -> None:
    """Ends the run if the flag is set. All threads do this, so all of them end."""
    b = frame.b
    flag, fault = frame.operands
    with b.if_then(load(b, flag, "bool", 0, 0, 0, None)):
        store(b, index(1), fault, "int64", 0, 0, None)


# --- adding rows where indices say


def _emit_scatter(frame: Frame, split: Split, target: Target) -> None:
    body, b = frame.body, frame.b
    dtype, columns = body.dtypes[0], body.inner
    lanes = target.lanes(points.TYPES[dtype])
    while lanes > 1 and lanes // 2 >= columns:
        lanes //= 2
    values, indices, out = frame.operands
    low: Index = frame.low if split.length else 0
    high: Index = frame.high if split.length else columns

    def along(emit: Any) -> None:
        """Walks over the thread's columns, a vector at a time."""
        vectors(b, low, high, columns, lanes, emit)

    def clear(row: Index, _: Any) -> None:
        zero = points.constant(dtype, 0.0, lanes)
        along(lambda c, mask: store(b, zero, out, dtype, add(b, multiply(b, row, columns), c), 1, mask))

    loop(b, 0, body.reduced, 1, clear)

    def put(i: Index, _: Any) -> None:
        place = load(b, indices, body.dtypes[1], i, 0, 0, None)
        place = points.cast(b, place, "int64")
        place = b.select(b.icmp_signed("<", place, index(0)), b.add(place, index(body.reduced)), place)
        place = b.select(b.icmp_unsigned("<", place, index(body.reduced)), place, index(0))
        start = b.mul(place, index(columns))

        def one(c: Index, mask: Any) -> None:
            where = add(b, start, c)
            new = load(b, values, dtype, add(b, multiply(b, i, columns), c), 1, lanes, mask)
            old = load(b, out, dtype, where, 1, lanes, mask)
            store(b, b.fadd(old, new), out, dtype, where, 1, mask)

        along(one)

    loop(b, 0, body.rows, 1, put)


# --- random numbers: Philox4x64-10 (Salmon et al. 2011)

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10


def _emit_random(frame: Frame, split: Split, target: Target) -> None:
    body, b = frame.body, frame.b
    how, purpose, count = body.settings
    key = [load(b, frame.operands[0], "uint64", word, 0, 0, None) for word in range(2)]
    first: ir.Value = index(0)
    if purpose == 2:
        first = load(b, frame.operands[1], body.dtypes[1], 0, 0, 0, None)
    out, dtype = frame.operands[-1], body.dtypes[-1]

    def block(number: Index, _: Any, size: int = 4) -> None:
        words = _philox(b, key, b.add(first, index(number)), purpose)
        for i in range(size):
            value = _number(b, words[i], how, dtype, count)
            store(b, value, out, dtype, add(b, multiply(b, number, 4), i), 0, None)

    whole, rest = divmod(body.inner, 4)
    if not split.length:
        loop(b, 0, whole, 1, block)
        if rest:
            block(whole, None, rest)
        return
    end = b.select(b.icmp_signed("<", frame.high, index(whole)), frame.high, index(whole))
    loop(b, frame.low, end, 1, block)
    if rest:
        with b.if_then(b.icmp_signed(">", frame.high, index(whole))):
            block(whole, None, rest)


def _philox(b: ir.IRBuilder, key: list[ir.Value], number: ir.Value, purpose: int) -> list[ir.Value]:
    """The four words of a block."""
    wide = ir.IntType(128)
    counter: list[ir.Value] = [number, index(0), index(0), index(purpose)]
    keys = list(key)
    for turn in range(_ROUNDS):
        if turn:
            keys = [b.add(k, ir.Constant(I64, step)) for k, step in zip(keys, _STEPS, strict=True)]
        products = [
            b.mul(b.zext(counter[2 * i], wide), ir.Constant(wide, multiplier))
            for i, multiplier in enumerate(_MULTIPLIERS)
        ]
        high = [b.trunc(b.lshr(p, ir.Constant(wide, 64)), I64) for p in products]
        low = [b.trunc(p, I64) for p in products]
        counter = [
            b.xor(b.xor(high[1], counter[1]), keys[0]),
            low[1],
            b.xor(b.xor(high[0], counter[3]), keys[1]),
            low[0],
        ]
    return counter


def _number(b: ir.IRBuilder, word: ir.Value, how: str, dtype: str, count: int) -> ir.Value:
    if how == "words":
        return word
    if how == "integers":
        wide = ir.IntType(128)
        scaled = b.mul(b.zext(word, wide), ir.Constant(wide, count))
        return b.trunc(b.lshr(scaled, ir.Constant(wide, 64)), I64)
    bits = 53 if dtype == "float64" else 24
    kept = b.lshr(word, index(64 - bits))
    return b.fmul(b.uitofp(kept, points.TYPES[dtype]), points.constant(dtype, 2.0**-bits))
