"""A mutant: a network with one mistake, and which lines of its text count as the faulty ones."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass, replace

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import functions

ABOUT_RESULTS = {"gradient-missing", "gradient-extra"}
"""Mistakes of what is returned: there may be no line where something wrong stands."""


@dataclass(frozen=True)
class Edit:
    """Text that takes the place of other text.

    Attributes:
        mistake: the catalogue's name.
        changes: (start, end, text), in characters of the source, not overlapping.
        context: whether all lines of the new text count as faulty, and not only those that differ.
    """

    mistake: str
    changes: tuple[tuple[int, int, str], ...]
    context: bool = False


@dataclass(frozen=True)
class Mutant:
    """A network with a planted mistake.

    Attributes:
        network: the correct one.
        mistakes: names of the mistake, the planted one first; further ones if what was done has two names.
        source: its text.
        lines: numbers, in this text, of the lines that may be called faulty.
        change: the lines before and after, for reading.
        edit: what was done to the correct text.
    """

    network: Network
    mistakes: tuple[str, ...]
    source: str
    lines: frozenset[int]
    change: str
    edit: Edit

    @property
    def mistake(self) -> str:
        return self.mistakes[0]

    def also(self, other: Mutant) -> Mutant:
        """The same change found by another rule."""
        names = dict.fromkeys(self.mistakes + other.mistakes)
        return replace(self, mistakes=tuple(names), lines=self.lines | other.lines)

    @property
    def in_forward(self) -> bool:
        """Whether a line that the forward runs was changed."""
        return self.source.splitlines() != self.network.source.splitlines() and bool(
            self.lines & forward_lines(self.network, self.source)
        )


def forward_lines(network: Network, source: str) -> set[int]:
    """The numbers of the forward's own lines in a mutant's text."""
    name = "forward" if network.is_object else network.declared["PAIR"][0]
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def planted(network: Network, edit: Edit) -> Mutant:
    """Makes the text of a mutant, and finds its faulty lines."""
    source, lines, shift = network.source, set(), 0
    for start, end, text in sorted(edit.changes):
        source = source[: start + shift] + text + source[end + shift :]
        if edit.context:
            first = source.count("\n", 0, start + shift) + 1
            lines |= set(range(first, first + text.rstrip("\n").count("\n") + 1))
        shift += len(text) - (end - start)
    before, after = network.source.splitlines(), source.splitlines()
    removed, added = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        removed += [line.strip() for line in before[i1:i2]]
        added += [line.strip() for line in after[j1:j2]]
        if tag == "delete":
            lines |= around_deletion(network, set(range(i1 + 1, i2 + 1)), j1 - i1)
        else:
            lines |= {j + 1 for j in range(j1, j2) if after[j].strip()} or set(range(j1 + 1, j2 + 1))
    if edit.mistake in ABOUT_RESULTS:
        lines |= result_lines(network, source)
    lines = whole_statements(source, lines)
    change = " ; ".join(removed) + "  →  " + (" ; ".join(added) or "(deleted)")
    return Mutant(network, (edit.mistake,), source, frozenset(lines), change, edit)


def result_lines(network: Network, source: str) -> set[int]:
    """Where a backward begins, and where it returns: the places to say that a gradient is missing, or too many."""
    name = "backward" if network.is_object else network.declared["PAIR"][1]
    found: set[int] = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            returns = {node.lineno for node in ast.walk(function) if isinstance(node, ast.Return)}
            found |= {function.lineno} | returns
    return found


def moved(lines: frozenset[int], old: str, new: str) -> frozenset[int]:
    """Line numbers in one text as those of the equal lines in another."""
    there = {}
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    for first, second, count in matcher.get_matching_blocks():
        there |= {first + k + 1: second + k + 1 for k in range(count)}
    return frozenset(there[line] for line in lines if line in there)


def whole_statements(source: str, lines: set[int]) -> set[int]:
    """Lines, with the other lines of the statements that they belong to."""
    found = set(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)):
            extent = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if extent & lines:
                found |= extent
    return found


def around_deletion(network: Network, deleted: set[int], shift: int) -> set[int]:
    """The lines that show it when a statement is missing: where its variable is set, and where it is read next.

    They are numbered as in the mutant, in which the lines before the deletion have moved by `shift`.
    """
    found: set[int] = set()
    for function in functions(network).values():
        statements = sorted(
            (node for node in ast.walk(function) if isinstance(node, ast.stmt) and not hasattr(node, "body")),
            key=lambda node: node.lineno,
        )
        gone = [node for node in statements if node.lineno in deleted]
        if not gone:  # a part of a statement, maybe
            inside = [n for n in statements if n.lineno < min(deleted) <= (n.end_lineno or 0)]
            found |= {node.lineno for node in inside}
            continue
        variables = {name for node in gone for name in _written(node)}
        kept = [node for node in statements if node.lineno not in deleted]
        found |= {node.lineno for node in kept if variables & _written(node)}
        readers = [node for node in kept if variables & _read(node)]
        readers = readers or [node for node in kept if isinstance(node, ast.Return)]
        later = [node for node in readers if node.lineno > max(deleted)]
        found |= {node.lineno for node in (later or readers)[:1]}
    return {line + shift - (len(deleted) if line > max(deleted) else 0) for line in found}


def _base(node: ast.expr) -> str:
    """The variable that an assignment writes to: `x` for `x[mask]`, but `grads['W']` for an entry of a dict."""
    while isinstance(node, ast.Subscript) and not _is_key(node.slice):
        node = node.value
    return ast.unparse(node)


def _is_key(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_key(node.left)
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _written(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Assign):
        parts = [t for target in statement.targets for t in getattr(target, "elts", [target])]
        return {_base(part) for part in parts}
    if isinstance(statement, ast.AugAssign):
        return {_base(statement.target)}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and statement.value.args:
        return {_base(statement.value.args[0])}
    return set()


def _read(statement: ast.stmt) -> set[str]:
    return {
        ast.unparse(node)
        for node in ast.walk(statement)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Load)
    }


def rewriting(network: Network, mistake: str, *pairs: tuple[ast.stmt, str]) -> Edit:
    """An edit that gives whole statements another text, in their own indentation."""
    changes = []
    for statement, text in pairs:
        start, end = span(network.source, statement)
        indent = " " * statement.col_offset
        changes.append((start, end, text.replace("\n", "\n" + indent)))
    return Edit(mistake, tuple(changes))


def deleting(network: Network, mistake: str, statement: ast.stmt) -> Edit:
    """An edit that removes a statement with its lines."""
    start, end = span(network.source, statement)
    return Edit(mistake, ((start - statement.col_offset, end + 1, ""),))


def span(source: str, node: ast.AST) -> tuple[int, int]:
    """Where the text of a node starts and ends, in characters."""
    rows = source.splitlines(keepends=True)

    def offset(line: int, column: int) -> int:
        return sum(map(len, rows[: line - 1])) + len(rows[line - 1].encode()[:column].decode())

    assert isinstance(node, (ast.stmt, ast.expr))
    return offset(node.lineno, node.col_offset), offset(node.end_lineno or 0, node.end_col_offset or 0)
