"""What each parameter of a backward method gets: an input, the downstream gradient, the cache, the output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrad.check.backward.naming import CONTEXT, DATA, DOWNSTREAM, OUTPUT, RATE
from stepgrad.check.backward.signatures import parameters_of, signature_of
from stepgrad.errors import ArgumentError


@dataclass(frozen=True)
class Passed:
    """How a method of the user's is called after its forward.

    Attributes:
        sources: parameter -> what it gets: "input", "downstream", "context", "output" or "rate".
        inputs: parameter -> the input, where that is called otherwise: {"x": "X"}.
        positional: parameters in order.
    """

    sources: Mapping[str, str]
    inputs: Mapping[str, str]

    @property
    def takes_downstream(self) -> bool:
        return "downstream" in self.sources.values()

    @property
    def takes_rate(self) -> bool:
        return "rate" in self.sources.values()

    def call(self, function: Callable[..., Any], values: Mapping[str, Any], **others: Any) -> Any:
        """Calls the function: `values` are inputs by name, `others` what the sources stand for."""
        arguments = {
            name: values[self.inputs[name]] if source == "input" else others[source]
            for name, source in self.sources.items()
        }
        return call(function, arguments)


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Calls a function with arguments by name, where it takes them so; the rest by position."""
    kinds = {p.name: p.kind for p in signature_of(function).parameters.values()}
    by_position = [
        n for n in arguments if kinds.get(n, inspect.Parameter.VAR_POSITIONAL) in (inspect.Parameter.POSITIONAL_ONLY,)
    ]
    unnamed = [n for n in arguments if n not in kinds]
    if unnamed and inspect.Parameter.VAR_KEYWORD not in kinds.values():
        return function(*arguments.values())  # *args: all of them by position
    return function(
        *[arguments[n] for n in by_position], **{n: v for n, v in arguments.items() if n not in by_position}
    )


def passed(
    name: str,
    function: Callable[..., Any],
    inputs: Sequence[str],
    *,
    downstream: bool,
    context: bool,
    spare: Sequence[str] = (),
    loss: bool = False,
) -> Passed:
    """Decides what each parameter of a function gets.

    Args:
        name: what the function is called in messages.
        function: the user's backward, or loss.
        inputs: the names of the inputs.
        downstream: whether it may take a downstream gradient.
        context: whether forward returned more than its output.
        spare: those of `inputs` that forward returned under a name that no parameter has, or under none.
        loss: what forward returned is a loss: its downstream gradient is 1, which backward need not take.

    Raises:
        ArgumentError: a parameter could be nothing of all this.
    """
    sources: dict[str, str] = {}
    renamed: dict[str, str] = {}
    open_ = [p for p in parameters_of(function) if p.name != "self"]
    alone = len(open_) == 1  # then it is what arrives, whatever it is called
    lower = {n.lower(): n for n in reversed(inputs)}
    in_order = _in_order([p for p in open_ if p.name.lower() not in lower], spare, downstream, loss)
    for parameter in list(open_):
        p, required = parameter.name, parameter.default is parameter.empty
        if p in inputs or p in in_order:
            sources[p], renamed[p] = "input", in_order.get(p, p)
        elif downstream and "downstream" not in sources.values() and DOWNSTREAM.fullmatch(p):
            sources[p] = "downstream"
        elif context and CONTEXT.fullmatch(p):
            sources[p] = "context"
        elif RATE.fullmatch(p):
            sources[p] = "rate"
        elif required and OUTPUT.fullmatch(p) and not loss and not (downstream and alone):
            sources[p] = "output"
        elif required and inputs and DATA.fullmatch(p) and not alone and p.lower() not in lower:
            sources[p], renamed[p] = "input", inputs[0]
        else:
            continue
        open_.remove(parameter)
    open_ = [p for p in open_ if p.default is p.empty]
    if downstream and not loss and "downstream" not in sources.values():
        unknown = [p for p in open_ if p.name.lower() not in lower]
        if unknown:
            sources[unknown[0].name] = "downstream"
            open_.remove(unknown[0])
    for parameter in list(open_):
        p = parameter.name
        if p.lower() in lower:
            sources[p], renamed[p] = "input", lower[p.lower()]
            open_.remove(parameter)
    if open_ and context and "context" not in sources.values():
        sources[open_.pop(0).name] = "context"
    if open_:
        missing = ", ".join(p.name for p in open_)
        raise ArgumentError(
            f"{name} needs {missing}, and there is no value of that name",
            f"known are the inputs {', '.join(inputs) or '(none)'}, what forward returned, and a downstream gradient",
            f"pass it: inputs={{…, {open_[0].name!r}: …}}",
        )
    order = [p.name for p in parameters_of(function) if p.name in sources]
    return Passed({n: sources[n] for n in order}, renamed)


def _in_order(
    parameters: Sequence[inspect.Parameter], spare: Sequence[str], downstream: bool, loss: bool
) -> dict[str, str]:
    """Parameter -> value, where as many are left of the one as of the other.

    One of the parameters may be the downstream gradient; it must be, if forward's output is no loss.
    """
    left = [p.name for p in parameters if p.default is p.empty]
    if len(left) == len(spare) and (loss or not downstream):
        return dict(zip(left, spare, strict=True))
    begin = next((n for n in left if DOWNSTREAM.fullmatch(n)), None if loss else next(iter(left), None))
    others = [n for n in left if n != begin]
    return dict(zip(others, spare, strict=True)) if downstream and len(others) == len(spare) else {}
