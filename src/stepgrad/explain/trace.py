"""`sg.trace`: records a call and its backward pass, and explains them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.explain.arguments import open_arguments
from stepgrad.explain.arrange import Arranged, Recorded, arrange
from stepgrad.explain.recorded import outputs_of, own_passes, walked_passes
from stepgrad.explain.steps import Step
from stepgrad.explain.watch import Watcher
from stepgrad.files import write
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import Equation, Role
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array, ArrayLike
from stepgrad.tree import map_leaves

if TYPE_CHECKING:
    from stepgrad.explain.cost import Cost
    from stepgrad.explain.ledger import Ledger


def trace(
    fn: Callable[..., Any], /, *args: Any, wrt: str | Iterable[str] | None = None, downstream: Any = None, **kwargs: Any
) -> Trace:
    """Records a call of a function and its backward pass, to be explained.

    Gradients are taken of what the function returns (of the first tensor, if it returns several)
    with respect to every floating-point input and every parameter that was used. A function that
    calls `sg.backward` itself, such as a whole training step, is explained as it is.

    Args:
        fn: a function of arrays, written with NumPy or stepgrad; or a module.
        args, kwargs: its arguments. Arrays and tensors, also in lists and dicts, become inputs named
            by the signature. Python numbers are settings, unless there is nothing else to differentiate.
        wrt: names of the arguments or parameters to differentiate; by default all.
        downstream: the gradient that arrives at the value, if the value is more than one number;
            by default ones.

    Returns:
        A Trace: print it for the story of the pass; see `.steps`, `.gradients`, `.source()`,
        `.cache()`, `.cost()`.

    Raises:
        GradientError: the function returned something that was not computed from tensors.
        ArgumentError: `wrt` names nothing that was used, or `downstream` has another shape.

    Example:
        >>> def line(w, x):
        ...     y = w @ x
        ...     return y
        >>> t = sg.trace(line, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
        >>> t.gradients["w"]
        array([3., 4.])
    """
    if not callable(fn):
        raise ArgumentError(
            f"sg.trace was given {fn!r:.60}",
            "it records the call of a function",
            "pass the function and its arguments: sg.trace(f, x), not sg.trace(f(x))",
        )
    if wrt is not None and not all(isinstance(name, str) for name in ([wrt] if isinstance(wrt, str) else _items(wrt))):
        raise ArgumentError(
            f"sg.trace was given wrt={wrt!r:.60}",
            "it names arguments and parameters",
            "pass their names, for example wrt='W1' or wrt=['W1', 'b1']",
        )
    arguments = open_arguments(fn, args, kwargs)
    watcher = Watcher(sys._getframe())
    equations: list[Equation] = []
    with recording(
        equations=equations,
        observe=watcher,
        closed=True,
        differentiable=True,
        role=Role.FORWARD,
        of=None,
        operand=None,
        scope=(),
        region=None,
        masks=None,
    ):
        result = fn(*arguments.args, **arguments.kwargs)
    watcher.finish()
    took = [e for e in equations if e.role is Role.BACKWARD]
    outputs = outputs_of(result)
    own = bool(took) and (not outputs or not any(e.role is Role.BACKWARD for e in reachable(outputs[:1])))
    if own:
        recorded = own_passes(arguments, watcher, equations, outputs, wrt, downstream)
    else:
        recorded = walked_passes(fn, arguments, watcher, equations, result, outputs, wrt, downstream)
    return Trace(fn, result, recorded)


def _items(wrt: Any) -> list[Any]:
    return list(wrt) if isinstance(wrt, Iterable) else [wrt]


class Trace:
    """One call of a function and its backward pass, explained. Made by `sg.trace`.

    Print it to read the story of the pass.

    Attributes:
        function: the name of the function.
        place: where it is defined: file and line, or None.
        value: what it returned, as arrays.
        gradients: name of an input or parameter -> its gradient, an array.
        inputs: every array the pass began with, by name: inputs, parameters, and large constants.
            `source()`'s forward takes them as its arguments.
        steps: one for each line of the user's that ran; see `Step`.
        names: equation -> name, for what is on the tape.
        arranged: the parts from which all views are made.
    """

    def __init__(self, fn: Callable[..., Any], result: Any, recorded: Recorded) -> None:
        plain = getattr(fn, "func", fn)  # of a functools.partial
        self.function = getattr(plain, "__name__", type(plain).__name__)
        self.place = _place(plain)
        self.value = map_leaves(lambda x: x.numpy() if isinstance(x, ArrayLike) else x, result)
        self.recorded = recorded
        self.arranged: Arranged = arrange(recorded)
        self.names = self.arranged.names.of
        self.gradients: dict[str, Array] = {}
        for name, gradient in self.arranged.wanted_gradients().items():
            self.gradients[name] = np.asarray(gradient.value)

    @property
    def steps(self) -> list[Step]:
        return self.arranged.steps

    @functools.cached_property
    def inputs(self) -> dict[str, Array]:
        from stepgrad.explain.arrange import arguments_of

        return {name: np.asarray(leaf.value) for name, leaf in arguments_of(self.arranged).items()}

    @property
    def tape(self) -> Tape:
        """The single equations: forward, backward and update."""
        made = self.arranged
        leaves = [*made.inputs.values(), *made.parameters.values()]
        ends = [*made.outputs, *made.wanted_gradients().values()]
        return Tape([*made.forward, *made.backward, *made.update], leaves, ends)

    def source(self) -> str:
        """The passes as a NumPy module that runs on its own.

        Returns:
            Python source with `forward(**inputs) -> (value, cache)` and `backward(cache) -> gradients`,
            and, if the function trained, `update(...)`. `forward(**trace.inputs)` runs it.

        Example:
            >>> t = sg.trace(lambda w: np.sum(w * w), np.array([1.0, 2.0]))
            >>> exec(t.source())
            >>> value, cache = forward(**t.inputs)
            >>> backward(cache)
            {'w': array([2., 4.])}
        """
        from stepgrad.explain.source import source

        return source(self)

    def cache(self) -> Ledger:
        """The ledger of forward values that the backward pass reads; print it.

        Example:
            >>> sg.trace(lambda w: np.sum(np.exp(w)), np.array([1.0, 2.0])).cache().saved_bytes
            16
        """
        from stepgrad.explain.ledger import ledger

        return ledger(self.arranged)

    def cost(self) -> Cost:
        """What the passes cost, and what gradients would cost without reuse; print it.

        Example:
            >>> sg.trace(lambda w: np.sum(w * w * w), np.array([1.0, 2.0])).cost().paths
            3
        """
        from stepgrad.explain.cost import cost

        return cost(self.arranged)

    def show(self, numbers: bool = False, open: Any = ()) -> None:
        """Prints the story of the pass.

        Args:
            numbers: print the values as well.
            open: numbers of steps to open to their single equations; True opens all.
        """
        from stepgrad.explain.story import show

        show(self, numbers=numbers, open=open)

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The trace as plain data, which the pictures, the page and the stepper show; docs/trace-format.md."""
        from stepgrad.explain.document import document

        return document(self)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The trace as JSON, in the format that docs/trace-format.md describes.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Returns:
            The JSON; the same for the same call of the same function.

        Raises:
            FileError: it can't be written there.

        Example:
            >>> import json
            >>> json.loads(sg.trace(lambda w: np.sum(w * w), np.array([1.0, 2.0])).to_json())["version"]
            1
        """
        from stepgrad.explain.document import json_text

        return _written(json_text(self.document), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page to walk through both passes: one file that needs no network and nothing else.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Raises:
            FileError: it can't be written there.

        Example:
            >>> sg.trace(lambda w: np.sum(w * w), np.array([1.0, 2.0])).to_html()[:15]
            '<!DOCTYPE html>'
        """
        from stepgrad.explain.html import page

        return _written(page(self.document), path)

    def to_svg(self, path: str | os.PathLike[str] | None = None) -> str:
        """The graph as a picture: values flow down, gradients flow up.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Raises:
            FileError: it can't be written there.

        Example:
            >>> sg.trace(lambda w: np.sum(w * w), np.array([1.0, 2.0])).to_svg()[:4]
            '<svg'
        """
        from stepgrad.explain.svg import svg

        return _written(svg(self.document), path)

    def step_through(self) -> None:
        """Walks through both passes in the terminal, with the arrow keys.

        Raises:
            ArgumentError: there is no terminal.
        """
        from stepgrad.explain.stepper import run

        run(self.document)

    def _repr_html_(self) -> str:
        from stepgrad.explain.html import static

        return static(self.document)

    def __str__(self) -> str:
        from stepgrad.explain.story import story

        return story(self)

    __repr__ = __str__


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write(path, text.encode())
    return text


def _place(fn: Any) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(getattr(fn, "forward", fn)), "__code__", None)
    return None if code is None else (os.path.basename(code.co_filename), code.co_firstlineno)
