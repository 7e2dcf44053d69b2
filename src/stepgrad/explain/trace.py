"""`sg.trace`: records a call and its backward pass, and explains them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad import missing
from stepgrad.cells import Parameter
from stepgrad.errors import ArgumentError, GradientError
from stepgrad.explain.arguments import Arguments, open_arguments
from stepgrad.explain.arrange import Arranged, Recorded, arrange
from stepgrad.explain.steps import Step
from stepgrad.explain.watch import Watcher
from stepgrad.files import write
from stepgrad.tape.backward import reachable, walk
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, Equation, Role
from stepgrad.tape.equation import leaves as leaf_ops
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array, ArrayLike, Tensor, describe
from stepgrad.tree import flatten, leaves_in_order, map_leaves

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
    outputs = _outputs(result)
    own = bool(took) and (not outputs or not any(e.role is Role.BACKWARD for e in reachable(outputs[:1])))
    if own:
        recorded = _own(arguments, watcher, equations, outputs, wrt, downstream)
    else:
        recorded = _walked(fn, arguments, watcher, equations, result, outputs, wrt, downstream)
    return Trace(fn, result, recorded)


def _items(wrt: Any) -> list[Any]:
    return list(wrt) if isinstance(wrt, Iterable) else [wrt]


def _outputs(result: Any) -> list[Equation]:
    return list(dict.fromkeys(x._tensor.equation for x in flatten(result)[0] if isinstance(x, ArrayLike)))


def _own(
    arguments: Arguments,
    watcher: Watcher,
    equations: list[Equation],
    outputs: list[Equation],
    wrt: Any,
    downstream: Any,
) -> Recorded:
    """The function took gradients itself: those are what is explained."""
    if wrt is not None or downstream is not None:
        raise ArgumentError(
            "sg.trace was given wrt or downstream for a function that calls sg.backward itself",
            "its own backward pass is what is explained",
            "leave them out, or trace the function that computes the loss",
        )
    seeds = {}
    for gradients in watcher.walks:
        root = next(iter(gradients))
        seeds[root] = gradients[root].equation
    return Recorded(arguments, watcher, equations, [], watcher.walks, seeds, outputs, own=True)


def _walked(
    fn: Callable[..., Any],
    arguments: Arguments,
    watcher: Watcher,
    equations: list[Equation],
    result: Any,
    outputs: list[Equation],
    wrt: Any,
    downstream: Any,
) -> Recorded:
    """The backward walk from what the function returned."""
    if not outputs:
        raise missing.not_on_tape(result, fn)
    seeds = _seeds(result, downstream)
    _cut(equations, watcher)
    leaves = _leaves(arguments, equations)
    targets = _targets(arguments, leaves, wrt)
    walked: list[Equation] = []
    with recording(equations=walked, closed=True, region=None, scope=()), np.errstate(all="ignore"):
        gradients = walk(seeds, targets)
    absent = [e for e in targets if e not in gradients]
    if wrt is not None and absent:
        missing.check(list(seeds), absent)
    ordered = dict(sorted(gradients.items(), key=lambda item: -item[0].serial))
    return Recorded(
        arguments,
        watcher,
        equations,
        walked,
        [ordered] if ordered else [],
        {e: g.equation for e, g in seeds.items()} if ordered else {},
        outputs,
        own=False,
    )


def _cut(equations: list[Equation], watcher: Watcher) -> None:
    """Makes inputs of what was computed before the function was called."""
    inside = set(equations)
    made: dict[Equation, Equation] = {}
    for equation in equations:
        if all(e in inside or e.op in leaf_ops for e in equation.inputs):
            continue
        for source in equation.inputs:
            if source not in inside and source.op not in leaf_ops and source not in made:
                leaf = Equation(INPUT if source.active else CONSTANT, (), {}, source.type, source.active)
                leaf.value, leaf.name, leaf.serial = source.value, source.name, source.serial
                made[source] = leaf
                if source in watcher.bound:
                    watcher.bound[leaf] = watcher.bound[source]
        equation.inputs = tuple(made.get(e, e) for e in equation.inputs)


def _seeds(result: Any, downstream: Any) -> dict[Equation, Tensor]:
    """The downstream gradients that the walk begins with."""
    values = [x._tensor for x in flatten(result)[0] if isinstance(x, ArrayLike)]
    if downstream is None:
        values = values[:1]
        given = [constant(np.ones(v.shape, v.dtype)) for v in values]
    else:
        in_order = leaves_in_order(downstream, result)
        given = [d._tensor if isinstance(d, ArrayLike) else as_tensor(np.asarray(d)) for d in in_order]
        values = values[:1] if len(given) == 1 else values
    if len(given) != len(values) or any(g.shape != v.shape for g, v in zip(given, values, strict=True)):
        raise ArgumentError(
            f"downstream gradients of shapes {[g.shape for g in given]} were given for values of shapes "
            f"{[v.shape for v in values]}",
            "a gradient has the shape of what it is the gradient of",
            "pass one array for each value that the function returns, of its shape",
        )
    if not values[0].equation.type.is_float:
        raise GradientError(
            f"the gradient of {describe(values[0])} was asked for",
            f"{values[0].dtype} numbers change in steps, so they have no derivative",
            "return a floating-point value first",
        )
    seeds: dict[Equation, Tensor] = {}
    for value, seed in zip(values, given, strict=True):
        if value.equation.type.is_float and value.equation not in seeds:
            seed = seeds[value.equation] = constant(np.array(seed.numpy(), value.dtype))
            seed.equation.value = seed.value
    return seeds


def _leaves(arguments: Arguments, equations: list[Equation]) -> list[Equation]:
    """The inputs, and the tensors and parameters from outside that the function used."""
    found = dict.fromkeys(arguments.inputs)
    for equation in equations:
        found.update(dict.fromkeys(e for e in equation.inputs if e.op in (INPUT, CELL)))
    return list(found)


def _targets(arguments: Arguments, leaves: list[Equation], wrt: Any) -> list[Equation]:
    floating = [e for e in leaves if e.type.is_float and (e.op is INPUT or isinstance(e.params["cell"], Parameter))]
    if wrt is None:
        return floating
    asked = [wrt] if isinstance(wrt, str) else list(wrt)
    chosen: list[Equation] = []
    for name in asked:
        matching = [e for e in floating if name in _called(arguments, e)]
        if not matching:
            raise ArgumentError(
                f"wrt={name!r} was given to sg.trace",
                "no floating-point input or parameter that the function used is called that",
                "name one of: " + ", ".join(dict.fromkeys(_called(arguments, e)[0] for e in floating)),
            )
        chosen += matching
    return list(dict.fromkeys(chosen))


def _called(arguments: Arguments, leaf: Equation) -> list[str]:
    """The names by which a leaf can be asked for."""
    cell = leaf.params.get("cell")
    names = [*arguments.inputs.get(leaf, ()), leaf.name, arguments.origins.get(leaf if cell is None else cell)]
    if cell is not None:
        names = [*arguments.cells.get(cell, ()), cell.name, *names]
    return [n for n in names if n] or ["(unnamed)"]


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
