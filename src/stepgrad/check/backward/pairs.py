"""Finding the forward and backward passes in a file, by the names of its functions and classes."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from stepgrad.check.backward.naming import BACKWARDS, FORWARDS, LOSSES, gradient_roots
from stepgrad.check.backward.objects import method
from stepgrad.check.backward.passing import passed
from stepgrad.check.backward.signatures import parameters_of, returned_names
from stepgrad.check.backward.state import is_users
from stepgrad.errors import ArgumentError
from stepgrad.rules import CustomRule

Function = Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """A forward and a backward in a file.

    Attributes:
        kind: "functions", "loss apart", "both in one", "object", "class" or "framework".
        name: what it is called in messages.
        forward: the forward; for an object, class or function of a framework that itself.
        backward: the backward, where it is a function of its own.
        loss: the loss, where that is a function of its own.
    """

    kind: str
    name: str
    forward: Any
    backward: Function | None = None
    loss: Function | None = None

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions whose parameters need values."""
        return tuple(f for f in (self.forward, self.loss, self.backward) if f is not None)


def find_pairs(module: ModuleType) -> list[Pair]:
    """The forward and backward passes of a module, in the order in which they stand there.

    Functions are pairs by their names: `x_forward` and `x_backward`, `forward_prop` and
    `backward_prop`, `relu` and `relu_backward`, `compute_cost` and `compute_gradient`; the only backward
    and the only forward of a file belong together whatever they are called. A function that returns a
    loss and gradients is both. Classes and objects with methods of these names, subclasses of
    `torch.autograd.Function` and `jax.custom_vjp` functions are found by their kind.
    """
    frameworks = list(_of_frameworks(module))
    theirs = [getattr(pair.forward, part, None) for pair in frameworks for part in ("fwd", "bwd")]
    own = {name: f for name, f in vars(module).items() if _is_own(f, module) and f not in theirs}
    return sorted([*_of_functions(own), *_of_classes(module), *frameworks], key=_line)


def pair_named(module: ModuleType, name: str) -> Pair | None:
    """The pair that a name in a file stands for: its backward, its class, an object, a function of a framework.

    None for what is no such thing: its gradient can be checked by differences.
    """
    thing = getattr(module, name, None)
    if isinstance(thing, CustomRule):
        return Pair("framework", name, thing)
    for pair in _of_frameworks(module):
        if pair.forward is thing:
            return pair
    if isinstance(thing, type) or is_users(thing):
        forward, backward = method(thing, FORWARDS), method(thing, BACKWARDS)
        if forward and backward:
            return Pair("class" if isinstance(thing, type) else "object", name, thing)
    for pair in find_pairs(module):
        if thing is not None and (thing is pair.backward or (thing is pair.forward and pair.backward is None)):
            return pair
    return None


def called_backwards(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """The other backwards that one calls, directly or through others: they are checked with it.

    In a course's network the division by the number of examples may stand in a layer's backward; only the
    whole is then right.
    """
    by_name = {p.backward.__name__: p for p in pairs if p.backward is not None}
    found: dict[str, None] = {}
    todo = [pair]
    while todo:
        backward = todo.pop().backward
        for name in getattr(getattr(backward, "__code__", None), "co_names", ()):
            if name in by_name and name not in found and by_name[name] is not pair:
                found[name] = None
                todo.append(by_name[name])
    return [p.name for p in pairs if p.name in found]


def _is_own(value: Any, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__ and value.__name__ != "<lambda>"


def _line(pair: Pair) -> int:
    function = inspect.unwrap(pair.backward or pair.forward) if callable(pair.backward or pair.forward) else None
    code = getattr(function, "__code__", None)
    if code is not None:
        return int(code.co_firstlineno)
    kind = pair.forward if isinstance(pair.forward, type) else type(pair.forward)
    try:
        return inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return sys.maxsize


# --- functions

_WORDS = [
    ("backward_propagation", "forward_propagation"), ("backward_propagate", "forward_propagate"),
    ("backpropagation", "forward_propagation"), ("back_propagation", "forward_propagation"),
    ("back_propagate", "forward_propagate"), ("backward_prop", "forward_prop"), ("back_prop", "forward_prop"),
    ("backprop", "forward"), ("backprop", "forwardprop"), ("backprop", "feedforward"), ("backprop", "feed_forward"),
    ("bprop", "fprop"), ("backward_pass", "forward_pass"), ("backwards", "forwards"), ("backward", "forward"),
    ("bwd", "fwd"), ("_backward", ""), ("_backprop", ""), ("_bwd", ""), ("_vjp", ""), ("backward_", ""),
    ("gradients", "cost"), ("gradients", "loss"), ("gradient", "cost"), ("gradient", "loss"), ("gradient", "objective"),
    ("gradient", "loss_fn"), ("gradient", "cost_fn"), ("grads", "loss"), ("grads", "cost"), ("grads", "loss_fn"),
    ("grad", "loss"), ("grad", "cost"), ("_grads", "_forward"), ("_grad", "_forward"), ("_grads", ""), ("_grad", ""),
    ("_gradients", ""), ("_gradient", ""), ("gradient_of_", ""), ("gradient", "f"),
]  # fmt: skip
_BACK = re.compile(r"backward|back_?pass|back_?prop|bwd|bprop|gradient|(^|_)grad(s)?($|_)|_vjp", re.IGNORECASE)
_AHEAD = re.compile(r"forward|fwd|fprop|predict|^model$|^net(work)?$", re.IGNORECASE)
_LOSS = re.compile(r"loss|cost|criterion|objective|cross_?entropy|mse|nll", re.IGNORECASE)
_NO_BACKWARD = re.compile(
    r"check|numerical|update|descent|clip|apply|test|plot|print|initiali[sz]e|optimi[sz]e|train|fit"
)


def _of_functions(own: Mapping[str, Function]) -> Iterator[Pair]:
    backwards = [n for n in own if _BACK.search(n) and not _NO_BACKWARD.search(n.lower()) and not _both(own[n])]
    forwards = [n for n in own if _AHEAD.search(n) and n not in backwards and not _NO_BACKWARD.search(n.lower())]
    losses = [n for n in own if (n in LOSSES or _LOSS.search(n)) and n not in backwards and not _both(own[n])]
    partners = {n: _partner(n, own) for n in backwards}
    if len(backwards) == 1 and partners[backwards[0]] is None and len(forwards) == 1:
        partners[backwards[0]] = forwards[0]
    for name, partner in partners.items():
        if partner is not None:
            forward, backward = own[partner], own[name]
            loss = next((own[n] for n in losses if n != partner), None)
            apart = loss is not None and partner not in losses and _begins_with_loss(forward, loss, backward)
            yield Pair("loss apart" if apart else "functions", name, forward, backward, loss if apart else None)
    for name, function in own.items():
        if name not in backwards and _both(function) and not _NO_BACKWARD.search(name.lower()):
            yield Pair("both in one", name, function)


def _partner(name: str, own: Mapping[str, Function]) -> str | None:
    lower = {n.lower(): n for n in own}
    for back, ahead in _WORDS:
        if back in name.lower():
            candidate = lower.get(name.lower().replace(back, ahead).strip("_"))
            if candidate is not None and candidate != name:
                return candidate
    return None


def _both(function: Function) -> bool:
    """Whether a function returns a loss and gradients, by what its return statement says."""
    if not re.search(r"loss|cost|propagate|objective|svm|softmax|step|net", function.__name__, re.IGNORECASE):
        return False
    names = [n or "" for n in returned_names(function)]
    gradients = [n for n in names if re.fullmatch(r"grads?|gradients?", n) or gradient_roots(n)]
    return len(names) > 1 and bool(gradients) and any(_LOSS.search(n) or n == "J" for n in names)


def _begins_with_loss(forward: Function, loss: Function, backward: Function) -> bool:
    """Whether a backward takes no downstream gradient, so that it begins with the loss.

    What it takes are inputs (those of forward, and of the loss), the cache, and the output.
    """
    if "loss" in _returned_text(forward) or "cost" in _returned_text(forward):
        return False
    inputs = list(dict.fromkeys(p.name for f in (forward, loss) for p in parameters_of(f)))
    try:
        return not passed(backward.__name__, backward, inputs, downstream=True, context=True).takes_downstream
    except ArgumentError:
        return True


def _returned_text(function: Function) -> str:
    return " ".join(n.lower() for n in returned_names(function) if n)


# --- classes, objects, frameworks


def _of_classes(module: ModuleType) -> Iterator[Pair]:
    """Objects of the module, then classes of which there is none."""
    seen: set[type] = set()
    for name, value in vars(module).items():
        if not name.startswith("__") and is_users(value) and type(value).__module__ == module.__name__:
            if type(value) not in seen and _has_both(type(value)):
                yield Pair("object", name, value)
            seen.add(type(value))
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and value not in seen and _has_both(value):
            yield Pair("class", name, value)


def _has_both(kind: type) -> bool:
    """Whether a class of plain Python has both methods, and they do something."""
    if inspect.isabstract(kind) or any(k.__module__.partition(".")[0] in ("torch", "jax") for k in kind.__mro__):
        return False
    functions = [getattr(kind, n) for n in (method(kind, FORWARDS), method(kind, BACKWARDS)) if n is not None]
    return len(functions) == 2 and not any(_is_empty(f) for f in functions)


def _is_empty(function: Function) -> bool:
    code = getattr(function, "__code__", None)
    return code is None or "NotImplementedError" in code.co_names or (not code.co_names and len(code.co_code) <= 8)


def _of_frameworks(module: ModuleType) -> Iterator[Pair]:
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if (
            torch is not None
            and isinstance(value, type)
            and issubclass(value, torch.autograd.Function)
            and "backward" in vars(value)
        ):
            yield Pair("framework", name, value)
        if jax is not None and isinstance(value, getattr(jax, "custom_vjp", ())):
            yield Pair("framework", name, value)
