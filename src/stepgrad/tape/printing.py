"""How a tape prints: one equation a line, in a form that `parse` reads back."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation, Role, leaves
from stepgrad.tape.op import Op, type_of
from stepgrad.tape.places import place
from stepgrad.tape.tape import Tape

_LEAVES = {"input": INPUT, "constant": CONSTANT, "cell": CELL}


def print_tape(tape: Tape) -> str:
    """The tape as text.

    Example:
        >>> x = sg.tensor([1.0, 2.0], name="x")
        >>> print(Tape.of((x * 2).sum()))
        x: float64[2] = input
        %1: float64[2] = multiply(x, 2)
        %2: float64[] = sum(%1, axis=(0,), keepdims=False)
        return %2
    """
    labels = label(tape)
    lines = [f"{labels[e]}: {e.type!r} = {e.op.name}" for e in tape.leaves() if e.op is not LITERAL]
    lines += [line(e, labels) for e in tape]
    return "\n".join([*lines, "return " + ", ".join(labels[e] for e in tape.outputs)])


def label(tape: Tape) -> dict[Equation, str]:
    """A distinct label for every equation and leaf: its name where it has one of its own, else %n."""
    labels: dict[Equation, str] = {}
    taken: set[str] = set()
    for equation in [*tape.leaves(), *tape.equations]:
        if equation.op is LITERAL:
            labels[equation] = repr(equation.value)
            continue
        name = equation.name if equation.name and equation.name.isidentifier() else None
        text = name if name and name not in taken else f"%{len(taken)}"
        taken.add(text)
        labels[equation] = text
    return labels


def line(equation: Equation, labels: dict[Equation, str] | None = None) -> str:
    """One equation: `Z1: float64[4,5] = add(%1, b1)`, with its role and origin if it is not forward."""
    names = labels or {}

    def show(e: Equation) -> str:
        return names.get(e) or e.name or (repr(e.params["value"]) if e.op is LITERAL else f"%{e.serial}")

    arguments = [show(e) for e in equation.inputs] + [f"{k}={_param(v)}" for k, v in equation.params.items()]
    call = equation.op.name + (f"({', '.join(arguments)})" if equation.op not in leaves else "")
    text = f"{show(equation)}: {equation.type!r} = {call}"
    if equation.role is not Role.FORWARD:
        text += f"  # {equation.role.value}" + (f" of {show(equation.of)}" if equation.of is not None else "")
    return (
        text
        if labels
        else text + ("" if equation.where is None else "  # line {1} of {0}".format(*place(equation.where)))
    )


def _param(value: Any) -> str:
    if isinstance(value, np.dtype):
        return repr(str(value))
    return repr(value)


_EQUATION = re.compile(r"(?P<name>\S+): (?P<dtype>\w+)\[(?P<shape>[\d,]*)\]~? = (?P<op>\w+)(?:\((?P<arguments>.*)\))?$")


def parse(text: str, ops: dict[str, Op]) -> Tape:
    """Reads a printed tape back: the same equations, types and roles, without values.

    Args:
        text: what `print_tape` wrote.
        ops: the ops by name (`stepgrad.ops.registry`).
    """
    known: dict[str, Equation] = {}
    equations: list[Equation] = []
    outputs: list[Equation] = []
    for number, row in enumerate(text.strip().splitlines(), 1):
        body, _, comment = row.strip().partition("  # ")
        if body.startswith("return "):
            outputs = [known[name.strip()] for name in body.removeprefix("return ").split(",")]
            continue
        match = _EQUATION.match(body)
        op = match and (_LEAVES.get(match["op"]) or ops.get(match["op"]))
        if not match or not op:
            raise ArgumentError(
                f"line {number} of a printed tape can't be read: {row.strip()}",
                "a line reads `name: dtype[shape] = op(inputs, param=value)`"
                if not match
                else f"no op {match['op']!r}",
                "pass the text that print(tape) wrote",
            )
        inputs, params = _arguments(match["arguments"] or "", known)
        role = Role(comment.split()[0]) if comment else Role.FORWARD
        of = known.get(comment.partition(" of ")[2]) if comment else None
        shape = tuple(int(n) for n in match["shape"].split(",") if n)
        type = type_of(shape, np.dtype(match["dtype"]))
        equation = Equation(op, inputs, params, type, type.is_float and op is not CONSTANT, role, of)
        equation.name = match["name"] if match["name"].isidentifier() else None
        known[match["name"]] = equation
        if op not in leaves:
            equations.append(equation)
    return Tape(equations, [e for e in known.values() if e.op in (INPUT, CELL)], outputs)


def _arguments(text: str, known: dict[str, Equation]) -> tuple[tuple[Equation, ...], dict[str, Any]]:
    from stepgrad.tape.leaves import literal

    call = ast.parse(f"f({text.replace('%', '_serial_')})", mode="eval").body
    assert isinstance(call, ast.Call)
    inputs = []
    for argument in call.args:
        name = ast.unparse(argument).replace("_serial_", "%")
        inputs.append(known[name] if name in known else literal(ast.literal_eval(name)).equation)
    params = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    return tuple(inputs), {k: np.dtype(v) if k == "dtype" else v for k, v in params.items()}
