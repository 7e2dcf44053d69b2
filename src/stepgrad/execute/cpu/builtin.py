"""The fast entry: calling a program from Python in a fraction of a microsecond.

It is a real builtin function whose C code is compiled here (`entry.py`). What does not fit goes the slow way: to
the Python function that takes any arguments. The layouts that the C code relies on (NumPy's stable ABI, CPython's
object header) are compared with what Python says before the first use; where anything differs, there is no fast
entry, and everything works the slow way.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.execute.cpu import platform
from stepgrad.execute.cpu.entry import (
    ALIGNED,
    CONTIGUOUS,
    DATA,
    DTYPE,
    FLAGS,
    FLOAT,
    NDIM,
    SHAPE,
    TYPE,
    Api,
    Entry,
    Kind,
    PortWord,
    emit,
)
from stepgrad.execute.cpu.loaded import Loaded
from stepgrad.execute.cpu.pool import Words, keep_forever, machine_code, native, workers
from stepgrad.tensor import Tensor


@dataclass(frozen=True)
class Port:
    """An input or output of a program.

    Attributes:
        slot: where its address goes.
        shape, dtype: of the array.
        number: it is a Python float instead. As an input it is put into memory of the entry's own; as an
            output it is read from where the slot points to. The dtype is float32 or float64.
    """

    slot: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    number: bool = False

    @property
    def kind(self) -> Kind:
        """What passes through."""
        if not self.number:
            return Kind.ARRAY
        return Kind.FLOAT32 if self.dtype.itemsize == 4 else Kind.FLOAT64


class _Block(np.ndarray[Any, np.dtype[np.int64]]):
    """An entry's words. The builtin function keeps it alive, and it keeps alive what its words point to."""

    kept: Any


def fast_entry(
    program: Loaded,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    slow: Callable[..., Any] | None = None,
    finish: Callable[..., Any] | None = None,
    tensors: bool = False,
    context: tuple[Any, Any] | None = None,
    watched: tuple[Words, Words] | None = None,
) -> Callable[..., Any] | None:
    """A builtin function that runs a program once.

    An argument fits if it is an array (exactly `np.ndarray`, C-contiguous and aligned) of the port's shape
    and dtype, a tensor with such a value, or for a number a float. If all fit, nobody is running the
    program and there are enough workers, the program is run; otherwise `slow` is called instead.

    Args:
        program: what to run. If it is small, the GIL is kept.
        inputs: the arguments, in order; none is passed by keyword.
        outputs: what is returned. Arrays are new at each call.
        slow: takes the call as it is if anything does not fit. Without it, NotImplemented is returned.
        finish: makes the result of the outputs. Without it, that is the only output, a tuple of them, or None.
        tensors: tensors are taken, too.
        context: a context variable and the value it has to have; another value goes the slow way.
        watched: two arrays of int64; if their first elements differ, the call goes the slow way.

    Returns:
        The function, or None where the interpreter's or NumPy's layouts are not the known ones.
    """
    table = api()
    if table is None:
        return None
    words: Words = platform.aligned((Entry.PORTS + (len(inputs) + len(outputs)) * PortWord.WORDS) * 8).view(np.int64)
    words[:] = 0
    block = words.view(_Block)
    shapes = []
    for i, port in enumerate([*inputs, *outputs]):
        row = words[Entry.PORTS + i * PortWord.WORDS :]
        shapes.append(np.array(port.shape, np.int64))
        row[PortWord.KIND], row[PortWord.SLOT] = port.kind, port.slot
        row[PortWord.NDIM], row[PortWord.SHAPE] = len(port.shape), shapes[-1].ctypes.data
        row[PortWord.DTYPE] = id(port.dtype)
    fail = program.fail
    watched = watched or (words, words)
    block.kept = (program, slow, finish, context, watched, shapes, [port.dtype for port in (*inputs, *outputs)], fail)
    words[Entry.API], words[Entry.PROGRAM], words[Entry.POOL] = table.ctypes.data, program.address, workers().address
    words[Entry.THREADS], words[Entry.SMALL] = 1 if program.small else program.threads, program.small
    words[Entry.INPUTS], words[Entry.OUTPUTS] = len(inputs), len(outputs)
    words[Entry.SLOW], words[Entry.FINISH] = (0 if f is None else id(f) for f in (slow, finish))
    words[Entry.FAILED], words[Entry.TENSORS] = id(fail), tensors
    words[Entry.WATCHED], words[Entry.SEEN] = (each.ctypes.data for each in watched)
    if context is not None:
        words[Entry.CONTEXT], words[Entry.CONTEXT_VALUE] = id(context[0]), id(context[1])
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return new(ctypes.addressof(_method()), block, None)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@functools.cache
def _method() -> _MethodDef:
    code = machine_code("entry", ("entry",), emit)
    fastcall, keywords = 0x80, 0x02
    made = _MethodDef(b"compiled", code["entry"], fastcall | keywords, b"Runs a compiled function.")
    keep_forever(made)
    return made


@functools.cache
def api() -> Words | None:
    """The table of what entries need (`Api`), or None where a layout is not the known one."""
    names = [each.name for each in Api if each.name.startswith("Py")]
    found = platform.python_addresses(*names)
    if found is None or not _is_known_python() or not _is_known_array() or (offset := _offset_of_value()) is None:
        return None
    new_array = _new_array()
    if new_array is None:
        return None
    table = np.zeros(len(Api), np.int64)
    keep_forever(table)
    table[Api.ARRAY], table[Api.FLOAT], table[Api.TENSOR] = id(np.ndarray), id(float), id(Tensor)
    table[Api.TENSOR_VALUE], table[Api.NONE], table[Api.NOT_IMPLEMENTED] = offset, id(None), id(NotImplemented)
    table[Api.RUN], table[Api.NEW_ARRAY] = native().addresses["run"], new_array
    for name, address in zip(names, found, strict=True):
        table[Api[name]] = address
    return table


def _read(address: int, type: Any = ctypes.c_int64) -> Any:
    return type.from_address(address).value


def _is_known_python() -> bool:
    """Whether objects begin with a count and a type, 8 bytes each, and the GIL protects them."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or object.__basicsize__ != 16 or not locked:
        return False
    probe = 0.1 + 0.2
    return _read(id(probe) + TYPE) == id(float) and _read(id(probe) + FLOAT, ctypes.c_double) == probe


def _is_known_array() -> bool:
    """Whether the fields of arrays are where they are expected."""
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for probe in (whole, whole[:, 1:], whole.T, whole[0, 0, 0:0], np.array(1.5)):
        at = id(probe)
        if type(probe) is not np.ndarray or _read(at + TYPE) != id(np.ndarray):
            return False
        if _read(at + DATA) != probe.ctypes.data or _read(at + NDIM, ctypes.c_int32) != probe.ndim:
            return False
        if tuple(_read(_read(at + SHAPE) + 8 * axis) for axis in range(probe.ndim)) != probe.shape:
            return False
        flags = _read(at + FLAGS, ctypes.c_int32)
        if _read(at + DTYPE) != id(probe.dtype) or flags != probe.flags.num:
            return False
    return bool(whole.flags.num & CONTIGUOUS and whole.flags.num & ALIGNED and not whole.T.flags.num & CONTIGUOUS)


def _offset_of_value() -> int | None:
    """Where in a tensor its value stands."""
    probe = Tensor.__new__(Tensor)
    marker = object()
    probe.value = marker
    for offset in range(object.__basicsize__, Tensor.__basicsize__, 8):
        if _read(id(probe) + offset) == id(marker):
            return offset
    return None


def _new_array() -> int | None:
    """The address of NumPy's PyArray_NewFromDescr, found in its table of C functions and tried."""
    try:
        capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        functions = get(capsule, None)
    except (AttributeError, ValueError):
        return None
    array_type, new_from_descr = 2, 94  # their places in NumPy's stable ABI
    if _read(functions + 8 * array_type) != id(np.ndarray):
        return None
    address: int = _read(functions + 8 * new_from_descr)
    dtype, shape = np.dtype(np.float32), np.array([2, 3], np.int64)
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    prototype = ctypes.PYFUNCTYPE(
        ctypes.py_object, pointer, pointer, integer, pointer, pointer, pointer, integer, pointer
    )
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))
    made = prototype(address)(id(np.ndarray), id(dtype), 2, shape.ctypes.data, None, None, 0, None)
    fits = type(made) is np.ndarray and made.shape == (2, 3) and made.dtype is dtype and made.flags.c_contiguous
    return address if fits else None
