"""The catalogue as a page of the docs: `python -m stepgrad.check.backward.mistakes.page > docs/mistakes.md`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from stepgrad.check.backward.mistakes import FAMILIES, RANKS
from stepgrad.check.backward.mistakes.mistake import Mistake
from stepgrad.check.backward.mistakes.networks import NETWORKS

_WIDTH = 110

_INTRODUCTION = """\
When a line of a backward pass is wrong, `sg.check_backward` computes what each of these mistakes would have
produced there, and names the one that gives the wrong value at every random point. The examples are lines of
the [networks at the end](#the-networks): `-` is right, `+` is the mistake. What matches nothing is `unknown`,
and its structure is shown: ratio, zeros, rank.

`>` against `>=` at zero is a convention, not a mistake.
"""

_RANKING = """\
Several mistakes can give the same value. Then the more particular one is named first:
"""


def page() -> str:
    """The page as Markdown; made from the catalogue, so it is never edited by hand."""
    parts = ["# Mistakes in backward passes", _INTRODUCTION, *_contents()]
    for family in FAMILIES:
        parts.append(f"## {family.name[0].upper()}{family.name[1:]}")
        for mistake in family.mistakes:
            parts += _entry(mistake)
    parts += ["## Which is named first", _RANKING, *_ranks(), "## The networks"]
    for network in NETWORKS:
        parts += [f"### {network.name}", f"{network.title}.", f"```py\n{network.source}```"]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _contents() -> Iterator[str]:
    rows = ["| family | mistakes |", "| --- | --- |"]
    for family in FAMILIES:
        names = ", ".join(f"[{m.name}](#{m.name})" for m in family.mistakes)
        rows.append(f"| {family.name} | {names} |")
    yield "\n".join(rows)


def _entry(mistake: Mistake) -> Iterator[str]:
    yield f"### {mistake.name}"
    for word, text in (("Arises", mistake.arises), ("Gives", mistake.produces), ("Fix", mistake.fix)):
        yield textwrap.fill(f"**{word}:** {text}", _WIDTH, break_long_words=False, break_on_hyphens=False)
    example = mistake.example
    lines = [f"- {line}" for line in example.right.splitlines()] + [f"+ {line}" for line in example.wrong.splitlines()]
    yield "\n".join([f"In [{example.network.name}](#{example.network.name}):", "", "```diff", *lines, "```"])


def _ranks() -> Iterator[str]:
    rows: list[str] = []
    for reason, names in RANKS:
        listed = ", ".join(f"`{name}`" for name in names)
        text = textwrap.fill(f"{reason} {listed}", _WIDTH - 3, break_long_words=False, break_on_hyphens=False)
        rows.append(f"{len(rows) + 1}. " + text.replace("\n", "\n   "))
    yield "\n".join(rows)


if __name__ == "__main__":
    print(page(), end="")
