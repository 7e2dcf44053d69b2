"""The document: a trace as JSON, on which a page can be built without Python. docs/trace-format.md describes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.cells import Parameter
from stepgrad.explain.cost import bytes_moved, flops
from stepgrad.explain.formulas import Line
from stepgrad.explain.ledger import cached
from stepgrad.explain.steps import Gradient, Step
from stepgrad.tape.equation import CELL, INPUT, LITERAL, Equation
from stepgrad.tape.expressions import call_text, literal_text, tidy

if TYPE_CHECKING:
    from stepgrad.explain.trace import Trace

FORMAT = "stepgrad-trace"
VERSION = 1

NUMBERS = 64
"""Arrays with at most this many elements are in the document in full."""

_EXACT = 2**53 - 1
"""Larger integers are written as strings: JavaScript would round them."""

Document = dict[str, Any]


def document(trace: Trace, numbers: int = NUMBERS) -> Document:
    """The trace as dicts, lists, numbers and strings.

    Args:
        trace: what to describe.
        numbers: arrays with at most this many elements are written in full.
    """
    return _Document(trace, numbers).whole()


def json_text(made: Document) -> str:
    """The document as strict JSON: one line for each entry of its tables, and no NaN or Infinity."""
    parts = []
    for key, value in made.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join("  " + _dumps(item) for item in value) + "\n]"
        else:
            text = _dumps(value)
        parts.append(f"{_dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class _Document:
    """Numbers the values of a trace, and describes everything by these numbers."""

    def __init__(self, trace: Trace, numbers: int) -> None:
        self.trace, self.made, self.numbers = trace, trace.arranged, numbers
        made = self.made
        self.step_of = {e: s.number for s in trace.steps for e in (*s.equations, *s.backward)}
        self.roles: dict[Equation, str] = {}
        leaves = (*made.inputs.values(), *made.parameters.values(), *made.constants.values())
        for leaf in leaves:
            self.roles[leaf] = _leaf_role(leaf)
        for seed in made.seeds.values():
            self.roles.setdefault(seed, "downstream")
        for role, equations in (("forward", made.forward), ("backward", made.backward), ("update", made.update)):
            for equation in equations:
                for source in equation.inputs:
                    if source.op is not LITERAL:
                        self.roles.setdefault(source, _leaf_role(source) if not source.inputs else "forward")
                self.roles[equation] = role
        for equation in (*made.outputs, *made.wanted_gradients().values()):
            self.roles.setdefault(equation, _leaf_role(equation))
        self.ids = {e: i for i, e in enumerate(self.roles)}
        self.labels: dict[Equation, str] = {}
        for step in trace.steps:
            for part in (step.equations, step.backward):
                self.labels |= {e: f"e{n}" for n, e in enumerate(part, 1) if e not in trace.names}

    def whole(self) -> Document:
        trace, made = self.trace, self.made
        moments = walk_of(trace.steps)
        return {
            "format": FORMAT,
            "version": VERSION,
            "function": trace.function,
            "file": trace.place[0] if trace.place else None,
            "line": trace.place[1] if trace.place else None,
            "inputs": self._ids(made.inputs.values()),
            "parameters": self._ids(made.parameters.values()),
            "constants": self._ids(made.constants.values()),
            "outputs": self._ids(made.outputs),
            "begins": [{"of": self.ids[e], "value": self.ids[seed]} for e, seed in made.seeds.items()],
            "gradients": [
                {"of": self.ids[self._leaf(name)], "value": self.ids[e], "name": made.targets[self._leaf(name)]}
                for name, e in made.wanted_gradients().items()
            ],
            "assigned": [{"to": name, "value": self.ids[e]} for name, e in made.assigned.items() if e in self.ids],
            "walk": [{"pass": name, "step": step.number} for name, step in moments],
            "steps": [self._step(s) for s in trace.steps],
            "edges": self._edges(),
            "values": [self._value(e) for e in self.ids],
            "equations": [self._equation(e) for e in self.ids if e.inputs and self.roles[e] in _PASSES],
            "cache": self._cache(moments),
            "cost": self._cost(),
        }

    def _ids(self, equations: Iterable[Equation]) -> list[int]:
        return [self.ids[e] for e in equations]

    def _leaf(self, name: str) -> Equation:
        return self.made.inputs.get(name) or self.made.parameters[name]

    # --- steps

    def _step(self, step: Step) -> Document:
        statement = step.statement
        backward = None
        if goes_back(step):
            backward = {
                "arrives": [self._gradient(g) | {"from": self._senders(step, g)} for g in step.arrives],
                "reads": self._ids(step.reads),
                "formulas": [self._formula(line) for line in step.backward_lines],
                "gives": [
                    self._gradient(g)
                    | {"kind": _kind(g), "part": list(g.part) if g.part else None, "to": self.step_of.get(g.of)}
                    for g in step.gives
                ],
                "equations": self._ids(step.backward),
                "flops": count(sum(map(flops, step.backward))),
            }
        return {
            "number": step.number,
            "pass": step.kind,
            "text": statement.text,
            "file": _base(statement.file),
            "line": statement.line,
            "scope": list(step.scope),
            "inputs": self._ids(step.inputs),
            "outputs": self._ids(step.outputs),
            "formulas": [self._formula(line) for line in step.lines],
            "equations": self._ids(step.equations),
            "flops": count(sum(map(flops, step.equations))),
            "backward": backward,
        }

    def _formula(self, line: Line) -> Document:
        return {
            "value": self.ids[line.equation],
            "name": line.name,
            "text": line.text,
            "reads": [self.ids[e] for e in line.reads if e in self.ids],
            "equations": self._ids(line.equations),
        }

    def _gradient(self, g: Gradient) -> Document:
        return {"name": g.name, "text": g.text, "of": self.ids[g.of], "value": self.ids[g.equation]}

    def _senders(self, step: Step, arriving: Gradient) -> list[int]:
        """The later steps that the gradient comes from, last step first."""
        return [s for s in self._giving.get(arriving.of, ()) if s != step.number]

    @property
    def _giving(self) -> dict[Equation, list[int]]:
        if not hasattr(self, "_given"):
            self._given: dict[Equation, list[int]] = {}
            for step in reversed(self.trace.steps):
                for g in step.gives:
                    self._given.setdefault(g.of, []).append(step.number)
        return self._given

    def _edges(self) -> list[Document]:
        edges: list[Document] = []
        for step in self.trace.steps:
            edges += [
                self._edge("forward", source, source, self.step_of.get(source), step.number) for source in step.inputs
            ]
        for value, seed in self.made.seeds.items():
            edges.append(self._edge("backward", seed, value, None, self.step_of.get(value)))
        for step in reversed(self.trace.steps):
            edges += [self._edge("backward", g.equation, g.of, step.number, self.step_of.get(g.of)) for g in step.gives]
        return edges

    def _edge(self, kind: str, value: Equation, of: Equation, source: int | None, target: int | None) -> Document:
        return {"kind": kind, "value": self.ids[value], "of": self.ids[of], "from": source, "to": target}

    # --- values and equations

    def _value(self, equation: Equation) -> Document:
        array = None if equation.value is None else np.asarray(equation.value)
        small = array is not None and array.size <= self.numbers
        return {
            "id": self.ids[equation],
            "name": self.trace.names.get(equation),
            "text": self._text(equation),
            "role": self.roles[equation],
            "shape": list(equation.type.shape),
            "dtype": equation.type.dtype.name,
            "step": self.step_of.get(equation),
            "statistics": None if array is None else statistics(array),
            "numbers": numbers_of(array) if array is not None and small else None,
            "truncated": not small,
        }

    def _text(self, equation: Equation) -> str:
        if equation in self.trace.names or equation.value is not None or equation in self.made.written.inline:
            return self.made.text(equation)
        return self.labels.get(equation, equation.op.name)

    def _equation(self, equation: Equation) -> Document:
        return {
            "value": self.ids[equation],
            "label": self._label(equation),
            "op": equation.op.name,
            "operands": [
                {"number": number(np.asarray(e.params["value"]))} if e.op is LITERAL else {"value": self.ids[e]}
                for e in equation.inputs
            ],
            "settings": {k: _setting(v) for k, v in equation.params.items()},
            "text": tidy(call_text(equation, [f"({self._label(e)})" for e in equation.inputs])),
            "of": self.ids.get(equation.of) if equation.of is not None else None,
            "operand": equation.operand,
            "flops": count(flops(equation)),
            "bytes": count(bytes_moved(equation)),
        }

    def _label(self, equation: Equation) -> str:
        if equation.op is LITERAL:
            return literal_text(equation)
        return self.labels.get(equation) or self._text(equation)

    # --- cache and cost

    def _cache(self, moments: Sequence[tuple[str, Step]]) -> Document:
        ledger = self.trace.cache()
        rows: list[Document] = []
        for equation, row in zip(cached(self.made), ledger.rows, strict=True):
            rows.append(
                {
                    "value": self.ids[equation],
                    "name": row.name,
                    "bytes": row.bytes,
                    "kind": row.kind,
                    "view_of": row.view_of,
                    "saved_by": self.step_of.get(equation),
                    "read_by": list(row.read_by),
                    "freed_after": row.freed_after,
                }
            )
        kept = []
        now = 0
        for name, step in moments:
            for entry in rows:
                if entry["kind"] == "saved" and (name, step.number) == ("forward", entry["saved_by"]):
                    now += entry["bytes"]
                if (name, step.number) == ("backward", entry["freed_after"]):
                    now -= entry["bytes"]
            kept.append(now)
        return {
            "rows": rows,
            "kept": kept,
            "saved_bytes": ledger.saved_bytes,
            "held_bytes": ledger.held_bytes,
            "peak_bytes": ledger.peak_bytes,
        }

    def _cost(self) -> Document:
        cost = self.trace.cost()
        return {
            "forward_flops": count(cost.forward_flops),
            "backward_flops": count(cost.backward_flops),
            "forward_bytes": count(cost.forward_bytes),
            "backward_bytes": count(cost.backward_bytes),
            "paths": count(cost.paths),
            "without_reuse": count(cost.without_reuse),
            "ratio": number(np.float64(cost.ratio)),
            "reuse": number(np.float64(cost.reuse)),
        }


_PASSES = ("forward", "backward", "update")


def goes_back(step: Step) -> bool:
    """Gradients pass through this step."""
    return step.kind == "forward" and bool(step.arrives) and bool(step.gives or step.backward_lines)


def walk_of(steps: Sequence[Step]) -> list[tuple[str, Step]]:
    """The order in which things happen: forward through the steps, back through them, then the update."""
    forward = [s for s in steps if s.kind == "forward"]
    return [
        *(("forward", s) for s in forward),
        *(("backward", s) for s in reversed(forward) if goes_back(s)),
        *(("update", s) for s in steps if s.kind == "update"),
    ]


def _leaf_role(leaf: Equation) -> str:
    if leaf.op is CELL:
        return "parameter" if isinstance(leaf.params["cell"], Parameter) else "state"
    return "input" if leaf.op is INPUT else "constant"


def _kind(g: Gradient) -> str:
    if g.part is not None and g.part[0] < g.part[1]:
        return "part"
    return "upstream" if g.kind == "upstream" else "gradient"


def _base(file: str) -> str | None:
    """The file without its folders: they belong to one machine."""
    return file.replace("\\", "/").rsplit("/", 1)[-1] or None


# --- numbers


def count(n: int) -> int | str:
    """An integer, as a string if JavaScript could not hold it."""
    return int(n) if abs(n) <= _EXACT else str(int(n))


def number(x: Any) -> Any:
    """One number as JSON: NaN and infinities as strings, a complex number as [real, imaginary]."""
    x = np.asarray(x)[()]
    if x.dtype.kind == "c":
        return [number(x.real), number(x.imag)]
    if x.dtype.kind == "b":
        return bool(x)
    if x.dtype.kind in "iu":
        return count(int(x))
    if np.isfinite(x):
        return float(str(x))  # the shortest decimal that gives the same number in its own dtype
    return "NaN" if np.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def numbers_of(array: Any) -> Any:
    """An array as nested lists of numbers."""
    return [numbers_of(row) for row in array] if array.ndim else number(array)


def statistics(array: Any) -> Document | None:
    """Minimum, maximum, mean and norm of the finite numbers, and how many are not finite; None without numbers.

    Those of complex numbers are of their absolute values.
    """
    if not array.size or array.dtype.kind not in "fiubc":
        return None
    plain = np.abs(array) if array.dtype.kind == "c" else array
    with np.errstate(all="ignore"):
        plain = plain.astype(np.float64).ravel()
        finite = plain[np.isfinite(plain)]
        nan = int(np.isnan(plain).sum())
        found: Document = dict.fromkeys(("min", "max", "mean", "norm"))
        if finite.size:
            top = float(np.abs(finite).max())
            norm = top * math.sqrt(float(np.square(finite / top).sum())) if top else 0.0
            mean = float(np.mean(finite / top)) * top if top else 0.0
            found = {
                "min": number(finite.min()),
                "max": number(finite.max()),
                "mean": number(np.float64(f"{mean:.12g}")),
                "norm": number(np.float64(f"{norm:.12g}")),
            }
    return found | {"nan": nan, "infinite": int(plain.size - finite.size - nan)}


def _setting(value: Any) -> Any:
    if isinstance(value, np.dtype | type):
        return np.dtype(value).name if isinstance(value, np.dtype) else value.__name__
    if isinstance(value, tuple | list):
        return [_setting(v) for v in value]
    if isinstance(value, bool | int | float | complex | np.generic):
        return number(np.asarray(value))
    return value if value is None or isinstance(value, str) else str(value)
