"""`sg.compile`: its settings, looked at before anything is compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from stepgrad.compile.compiled import Compiled
from stepgrad.compile.entries import EXECUTORS
from stepgrad.errors import ArgumentError
from stepgrad.rules import check_callable


def compile(
    fn: Callable[..., Any] | None = None,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    recheck: str = "second",
    shadow: bool = False,
    denormals: str = "keep",
    executor: str | None = None,
) -> Any:
    """Makes one program of a function, such as a whole training step: forward pass, backward pass and update.

    The function is recorded at its first call, without values, and the program is run from then on.
    There is one program for each structure, shape and dtype of the arguments. Arrays, tensors and
    Python floats are inputs; other arguments (int, bool, str, …) are built in, and each value of them
    has a program of its own. Parameters and states are read when the program runs, and those that the
    function assigns to are updated in place.

    Args:
        fn: any function of tensors and cells; a method; a module. Left out, this makes a decorator.
        memory: the most that the values between kernels may take, in bytes or as in "64MB"; what does not
            fit is computed again. `program.memory()` says what it costs. Parameters, arguments and
            results come on top.
        threads: how many threads run it; by default one for each core.
        recheck: "second" records the function again at its second call and compares, so that a Python
            value that has changed is noticed, and at later calls if an attribute of a module or optimizer has been
            set to something else since (`model.eval()`, say); "always" does so at each call, "never" not at all.
        shadow: compare each part of the program with NumPy, and name the first equation that differs.
        denormals: numbers closer to 0 than 1e-38 (float32) are computed with ("keep"), as NumPy does, or
            count as 0 ("flush"), as in many libraries. Processors take a hundred times as long for an
            operation with one, and the moments of parameters that get no gradient end as such numbers.
            Shadowed programs keep them.
        executor: "cpu" or "numpy"; by default the fastest there is.

    Raises:
        ArgumentError: a setting out of its range.
        AbstractValueError: at the first call, the function asks for the value of a tensor or cell.
        StaleError: when it is recorded again, it is not what it was.
        BudgetError: the values do not fit into `memory`; the least that they fit into is named.

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.SGD({"W": W}, lr=0.25)
        >>> @sg.compile
        ... def step(x):
        ...     loss = sg.sum(W * W * x)
        ...     opt.step(sg.backward(loss, {"W": W}))
        ...     return loss
        >>> [round(step(np.float32(1)).item(), 4) for _ in range(3)]
        [5.0, 1.25, 0.3125]
    """
    if recheck not in ("second", "always", "never"):
        raise ArgumentError(
            f"compile was given recheck={recheck!r}",
            "it says when a function is recorded again to find Python values that have changed",
            'use "second", "always" or "never"',
        )
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ArgumentError(
            f"compile was given threads={threads!r}", "threads are counted from 1", "use for example threads=2"
        )
    if denormals not in ("keep", "flush"):
        raise ArgumentError(
            f"compile was given denormals={denormals!r}", "they are kept or flushed", 'use "keep" or "flush"'
        )
    if not isinstance(shadow, bool):
        raise ArgumentError(f"compile was given shadow={shadow!r}", "it is on or off", "use shadow=True")
    if executor is not None and executor not in EXECUTORS:
        raise ArgumentError(
            f"compile was given executor={executor!r}", "there is no such executor", f"use one of {list(EXECUTORS)}"
        )
    settings = (_bytes(memory), threads, recheck, shadow, denormals, executor)
    if fn is None:
        return lambda fn: _compiled(fn, settings)
    return _compiled(fn, settings)


def _compiled(fn: Any, settings: tuple[Any, ...]) -> Compiled:
    check_callable(fn, "compile")
    return Compiled(fn.fn if isinstance(fn, Compiled) else fn, *settings)


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def _bytes(memory: int | str | None) -> int | None:
    if memory is None:
        return None
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B\s*", memory.upper()) if isinstance(memory, str) else None
    if match is None or not float(match[1]):
        raise ArgumentError(
            f"compile was given memory={memory!r}",
            "it is the most that a run may take, a number of bytes",
            'use for example memory="64MB", "1.5GiB" or 64_000_000',
        )
    return int(float(match[1]) * _UNITS[match[2] or ""])
