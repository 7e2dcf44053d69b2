"""The C function behind the fast entry: a call of a program as a builtin function of Python.

It looks at its arguments as CPython and NumPy lay them out in memory, puts their addresses into the program's
slots, runs it, and returns new arrays or floats. `builtin.py` makes Python objects of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from llvmlite import ir

from stepgrad.execute.cpu.building import (
    F32,
    F64,
    I32,
    I64,
    NULL,
    PTR,
    VOID,
    call,
    counting,
    field,
    function,
    load,
    number,
    store,
    word,
)
from stepgrad.execute.cpu.driver import emit_enter, emit_leave
from stepgrad.execute.cpu.words import Code, Entered, Program

TYPE, FLOAT = 8, 16
"""Offsets in bytes: an object's type, a float's value."""
DATA, NDIM, SHAPE, DTYPE, FLAGS = 16, 24, 32, 56, 64
"""Offsets in bytes of the fields of an array."""
CONTIGUOUS, ALIGNED = 0x1, 0x100
"""Flags of an array."""


class Kind(enum.IntEnum):
    """What passes through a port."""

    ARRAY = 0
    FLOAT32 = 1
    """A Python float, in memory a float32."""
    FLOAT64 = 2


class Entry(enum.IntEnum):
    """The words of an entry's block; its ports follow, inputs first."""

    API = 0
    PROGRAM = 1
    POOL = 2
    THREADS = 3
    SMALL = 4
    INPUTS = 5
    OUTPUTS = 6
    SLOW = 7
    FAILED = 8
    FINISH = 9
    CONTEXT = 10
    CONTEXT_VALUE = 11
    TENSORS = 12
    WATCHED = 13
    SEEN = 14
    """Where two numbers stand that have to be the same."""
    PORTS = 16


class PortWord(enum.IntEnum):
    """The words of a port."""

    KIND = 0
    SLOT = 1
    NDIM = 2
    SHAPE = 3
    DTYPE = 4
    HELD = 5
    """The array out of a tensor, which somebody else could let go of during the run."""
    VALUE = 6
    """The memory of a float."""
    WORDS = 8


class Api(enum.IntEnum):
    """The words of the table of what the interpreter, NumPy and the driver offer."""

    ARRAY = 0
    FLOAT = 1
    TENSOR = 2
    TENSOR_VALUE = 3
    NONE = 4
    NOT_IMPLEMENTED = 5
    RUN = 6
    NEW_ARRAY = 7
    PyThread_get_thread_ident = 8
    PyEval_SaveThread = 9
    PyEval_RestoreThread = 10
    PyObject_Vectorcall = 11
    PyFloat_FromDouble = 12
    Py_IncRef = 13
    Py_DecRef = 14
    PyTuple_New = 15
    PyTuple_SetItem = 16
    PyContextVar_Get = 17


def emit(module: ir.Module, triple: str) -> None:
    """Adds `entry(block, arguments, count, keywords) -> object`, which is called as a builtin function is."""
    entry, builder = function(module, "entry", PTR, PTR, PTR, I64, PTR)
    block, arguments, count, keywords = entry.args
    words = field(builder, block, DATA, PTR)
    api, program = load(builder, words, Entry.API, PTR), load(builder, words, Entry.PROGRAM, PTR)
    inputs, outputs = load(builder, words, Entry.INPUTS), load(builder, words, Entry.OUTPUTS)
    ports = word(builder, words, Entry.PORTS)
    made = builder.alloca(PTR, outputs)
    slow, leave_slow, failed = (builder.append_basic_block(name) for name in ("slow", "leave_slow", "failed"))

    def python(name: Api, result: ir.Type, *operands: ir.Value) -> ir.Value:
        return call(builder, load(builder, api, name), result, *operands)

    def port(index: ir.Value) -> ir.Value:
        return word(builder, ports, builder.mul(index, number(PortWord.WORDS)))

    def unless(condition: ir.Value, otherwise: ir.Block) -> None:
        with builder.if_then(builder.not_(condition), likely=False):
            builder.branch(otherwise)

    def equal(one: ir.Value, other: ir.Value) -> ir.Value:
        return builder.icmp_unsigned("==", one, other)

    def drop() -> None:
        with counting(builder, outputs) as (index, _):
            python(Api.Py_DecRef, VOID, load(builder, made, index, PTR))

    unless(equal(keywords, NULL), slow)
    unless(equal(count, inputs), slow)
    watched, seen = (load(builder, words, each, PTR) for each in (Entry.WATCHED, Entry.SEEN))
    unless(equal(load(builder, watched, 0), load(builder, seen, 0)), slow)
    _check_context(builder, words, api, slow)
    thread = python(Api.PyThread_get_thread_ident, I64)
    unless(equal(emit_enter(builder, program, thread), number(Entered.NOW)), slow)
    rows = _Rows(builder, program, load(builder, words, Entry.THREADS))
    with counting(builder, inputs) as (index, _):
        _take(builder, api, words, port(index), load(builder, arguments, index, PTR), rows, leave_slow)
    with counting(builder, inputs) as (index, _):
        held = load(builder, port(index), PortWord.HELD, PTR)
        with builder.if_then(builder.icmp_unsigned("!=", held, NULL)):
            python(Api.Py_IncRef, VOID, held)
    with counting(builder, outputs) as (index, _):
        store(builder, NULL, made, index)
    broken = builder.alloca(ir.IntType(1))
    builder.store(ir.Constant(ir.IntType(1), 0), broken)
    with counting(builder, outputs) as (index, _):
        out = port(builder.add(inputs, index))
        with builder.if_then(equal(load(builder, out, PortWord.KIND), number(Kind.ARRAY))):
            dtype = load(builder, out, PortWord.DTYPE, PTR)
            python(Api.Py_IncRef, VOID, dtype)  # a new array keeps a reference to it
            ndim = builder.trunc(load(builder, out, PortWord.NDIM), I32)
            shape, array = load(builder, out, PortWord.SHAPE, PTR), load(builder, api, Api.ARRAY, PTR)
            zero = ir.Constant(I32, 0)
            new = python(Api.NEW_ARRAY, PTR, array, dtype, ndim, shape, NULL, NULL, zero, NULL)
            store(builder, new, made, index)
            with builder.if_else(equal(new, NULL), likely=False) as (without_memory, fine):
                with without_memory:
                    builder.store(ir.Constant(ir.IntType(1), 1), broken)
                with fine:
                    rows.set(load(builder, out, PortWord.SLOT), field(builder, new, DATA))

    code = builder.alloca(I64)
    builder.store(number(-1), code)
    with builder.if_then(builder.not_(builder.load(broken)), likely=True):
        run = [load(builder, words, Entry.POOL, PTR), program, rows.threads, number(1)]
        small = builder.icmp_signed("!=", load(builder, words, Entry.SMALL), number(0))
        with builder.if_else(small) as (with_gil, without_gil):
            with with_gil:
                builder.store(python(Api.RUN, I64, *run), code)
            with without_gil:
                state = python(Api.PyEval_SaveThread, PTR)
                builder.store(python(Api.RUN, I64, *run), code)
                python(Api.PyEval_RestoreThread, VOID, state)
    with counting(builder, inputs) as (index, _):
        python(Api.Py_DecRef, VOID, load(builder, port(index), PortWord.HELD, PTR))
    ended = builder.load(code)
    with builder.if_then(equal(ended, number(Code.DONE)), likely=True), counting(builder, outputs) as (index, _):
        out = port(builder.add(inputs, index))
        kind = load(builder, out, PortWord.KIND)
        with builder.if_then(builder.icmp_signed("!=", kind, number(Kind.ARRAY))):
            address = rows.get(load(builder, out, PortWord.SLOT))
            single = equal(kind, number(Kind.FLOAT32))
            with builder.if_else(single) as (float32, float64):
                with float32:
                    narrow = builder.fpext(builder.load(address, typ=F32), F64)
                    narrow_block = builder.block
                with float64:
                    wide = builder.load(address, typ=F64)
                    wide_block = builder.block
            value = builder.phi(F64)
            value.add_incoming(narrow, narrow_block)
            value.add_incoming(wide, wide_block)
            new = python(Api.PyFloat_FromDouble, PTR, value)
            store(builder, new, made, index)
            with builder.if_then(equal(new, NULL), likely=False):
                builder.store(number(-1), code)
    emit_leave(builder, program)
    unless(equal(builder.load(code), number(Code.DONE)), failed)
    _give_back(builder, words, api, made, outputs, drop)

    builder.position_at_end(failed)
    drop()
    ended = builder.load(code)
    with builder.if_then(equal(ended, number(Code.WORKERS))):
        builder.branch(slow)
    with builder.if_then(equal(ended, number(Code.FAILED))):
        raiser = load(builder, words, Entry.FAILED, PTR)
        builder.ret(python(Api.PyObject_Vectorcall, PTR, raiser, NULL, number(0), NULL))
    builder.ret(NULL)  # there was no memory; the exception is set

    builder.position_at_end(leave_slow)
    emit_leave(builder, program)
    builder.branch(slow)
    builder.position_at_end(slow)
    other = load(builder, words, Entry.SLOW, PTR)
    with builder.if_then(equal(other, NULL)):
        builder.ret(_new_reference(builder, api, Api.NOT_IMPLEMENTED))
    builder.ret(python(Api.PyObject_Vectorcall, PTR, other, arguments, count, keywords))


class _Rows:
    """The slots of all threads that will run the program."""

    def __init__(self, builder: ir.IRBuilder, program: ir.Value, threads: ir.Value) -> None:
        self._builder, self.threads = builder, threads
        self._slots = load(builder, program, Program.SLOTS, PTR)
        self._per_thread = load(builder, program, Program.SLOTS_PER_THREAD)

    def set(self, slot: ir.Value, address: ir.Value) -> None:
        """Emits the writing of one slot for every thread."""
        with counting(self._builder, self.threads) as (thread, _):
            place = self._builder.add(self._builder.mul(thread, self._per_thread), slot)
            store(self._builder, address, self._slots, place)

    def get(self, slot: ir.Value) -> ir.Value:
        """Emits the reading of thread 0's."""
        return load(self._builder, self._slots, slot, PTR)


def _check_context(builder: ir.IRBuilder, words: ir.Value, api: ir.Value, slow: ir.Block) -> None:
    """Emits: if the context variable has not the value that it should, go the slow way."""
    variable = load(builder, words, Entry.CONTEXT, PTR)
    place = builder.alloca(PTR)
    with builder.if_then(builder.icmp_unsigned("!=", variable, NULL)):
        call(builder, load(builder, api, Api.PyContextVar_Get), I32, variable, NULL, place)
        value = builder.load(place)
        call(builder, load(builder, api, Api.Py_DecRef), VOID, value)
        expected = load(builder, words, Entry.CONTEXT_VALUE, PTR)
        with builder.if_then(builder.icmp_unsigned("!=", value, expected), likely=False):
            builder.branch(slow)


def _take(
    builder: ir.IRBuilder, api: ir.Value, words: ir.Value, port: ir.Value, given: ir.Value, rows: _Rows, no: ir.Block
) -> None:
    """Emits the taking of one argument: its address goes to its slot, or control to `no` if it does not fit."""

    def need(condition: ir.Value) -> None:
        with builder.if_then(builder.not_(condition), likely=False):
            builder.branch(no)

    def equal(one: ir.Value, other: ir.Value) -> ir.Value:
        return builder.icmp_unsigned("==", one, other)

    kind, slot = load(builder, port, PortWord.KIND), load(builder, port, PortWord.SLOT)
    type = field(builder, given, TYPE, PTR)
    store(builder, NULL, port, PortWord.HELD)
    with builder.if_else(equal(kind, number(Kind.ARRAY)), likely=True) as (is_array, is_number):
        with is_number:
            need(equal(type, load(builder, api, Api.FLOAT, PTR)))
            value, memory = field(builder, given, FLOAT, F64), word(builder, port, PortWord.VALUE)
            with builder.if_else(equal(kind, number(Kind.FLOAT32))) as (float32, float64):
                with float32:
                    builder.store(builder.fptrunc(value, F32), memory)
                with float64:
                    builder.store(value, memory)
            rows.set(slot, builder.ptrtoint(memory, I64))
        with is_array:
            before, array_type = builder.block, load(builder, api, Api.ARRAY, PTR)
            boxed, checked = builder.append_basic_block("boxed"), builder.append_basic_block("checked")
            builder.cbranch(equal(type, array_type), checked, boxed)
            builder.position_at_end(boxed)
            need(builder.icmp_signed("!=", load(builder, words, Entry.TENSORS), number(0)))
            need(equal(type, load(builder, api, Api.TENSOR, PTR)))
            place = builder.gep(given, [load(builder, api, Api.TENSOR_VALUE)], source_etype=ir.IntType(8))
            inner = builder.load(place, typ=PTR)
            need(builder.icmp_unsigned("!=", inner, NULL))
            need(equal(field(builder, inner, TYPE, PTR), array_type))
            store(builder, inner, port, PortWord.HELD)
            unboxed = builder.block
            builder.branch(checked)
            builder.position_at_end(checked)
            array = builder.phi(PTR)
            array.add_incoming(given, before)
            array.add_incoming(inner, unboxed)
            ndim = load(builder, port, PortWord.NDIM)
            need(equal(field(builder, array, DTYPE, PTR), load(builder, port, PortWord.DTYPE, PTR)))
            need(equal(builder.zext(field(builder, array, NDIM, I32), I64), ndim))
            good = ir.Constant(I32, CONTIGUOUS | ALIGNED)
            need(equal(builder.and_(field(builder, array, FLAGS, I32), good), good))
            shape, expected = field(builder, array, SHAPE, PTR), load(builder, port, PortWord.SHAPE, PTR)
            with counting(builder, ndim) as (axis, _):
                need(equal(load(builder, shape, axis), load(builder, expected, axis)))
            rows.set(slot, field(builder, array, DATA))


def _give_back(
    builder: ir.IRBuilder, words: ir.Value, api: ir.Value, made: ir.Value, outputs: ir.Value, drop: Callable[[], None]
) -> None:
    """Emits the result: what `finish` makes of the outputs; or the only one, a tuple of them, or None."""
    finish = load(builder, words, Entry.FINISH, PTR)
    with builder.if_then(builder.icmp_unsigned("!=", finish, NULL)):
        function = load(builder, api, Api.PyObject_Vectorcall)
        result = call(builder, function, PTR, finish, made, outputs, NULL)
        drop()
        builder.ret(result)
    with builder.if_then(builder.icmp_signed("==", outputs, number(1))):
        builder.ret(load(builder, made, 0, PTR))
    with builder.if_then(builder.icmp_signed("==", outputs, number(0))):
        builder.ret(_new_reference(builder, api, Api.NONE))
    result = call(builder, load(builder, api, Api.PyTuple_New), PTR, outputs)
    with builder.if_then(builder.icmp_unsigned("==", result, NULL), likely=False):
        drop()
        builder.ret(NULL)
    with counting(builder, outputs) as (index, _):
        item = load(builder, made, index, PTR)
        call(builder, load(builder, api, Api.PyTuple_SetItem), I32, result, index, item)
    builder.ret(result)


def _new_reference(builder: ir.IRBuilder, api: ir.Value, which: Api) -> ir.Value:
    found = load(builder, api, which, PTR)
    call(builder, load(builder, api, Api.Py_IncRef), VOID, found)
    return found
