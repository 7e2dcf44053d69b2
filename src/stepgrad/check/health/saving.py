"""Recorded runs in files: JSON, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from typing import Any

from stepgrad import files
from stepgrad.check.health.record import VERSION, Run
from stepgrad.errors import FileError

_FORMAT = "stepgrad health"


def to_json(run: Run) -> str:
    """A run as JSON. NaN and infinities, which JSON does not have, are strings: "nan", "inf", "-inf"."""
    return json.dumps({"format": _FORMAT, **_plain(run)}, allow_nan=False, separators=(",", ":"))


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Writes a run to a file.

    Raises:
        FileError: it can't be written; what was there is untouched.
    """
    files.write(path, to_json(run).encode())


def load(path: str | os.PathLike[str]) -> Run:
    """Reads what `save` wrote.

    Raises:
        FileError: there is no such file, it is no recorded run, or it is of another version.
    """
    content = files.read(path)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        raise _no_run(path, "it is not JSON") from None
    if not isinstance(tree, dict) or tree.pop("format", None) != _FORMAT:
        raise _no_run(path, "it is JSON of something else")
    if tree.get("version") != VERSION:
        raise FileError(
            f"{path} is a recorded run of version {tree.get('version')!r}",
            f"this stepgrad reads version {VERSION}",
            "read it with the stepgrad that wrote it, or record the run again",
        )
    try:
        return typing.cast("Run", _made(Run, tree, ""))
    except _Unfit as problem:
        raise _no_run(path, str(problem)) from None


def _no_run(path: str | os.PathLike[str], why: str) -> FileError:
    return FileError(
        f"{path} is no recorded run", why, 'write one with health.save("run.json"), where health = sg.health(…)'
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return value


class _Unfit(Exception):  # noqa: N818 - it becomes a FileError
    """What was read does not fit the format."""


def _made(kind: Any, tree: Any, path: str) -> Any:
    """A value of a type from what JSON has of it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if tree is None:
            return None
        return _made(next(a for a in arguments if a is not types.NoneType), tree, path)
    if dataclasses.is_dataclass(kind):
        return _object(kind, _checked(tree, dict, path), path)
    if origin is tuple:
        items = _checked(tree, list, path)
        return tuple(_made(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        return {key: _made(arguments[1], each, f"{path}.{key}") for key, each in _checked(tree, dict, path).items()}
    if kind is float:
        if isinstance(tree, str) and tree in ("nan", "inf", "-inf"):
            return float(tree)
        return float(_checked(tree, (int, float), path))
    return _checked(tree, kind, path)


def _object(kind: Any, tree: dict[str, Any], path: str) -> Any:
    hints = _hints(kind)
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in tree and _required(f)]
    unknown = [name for name in tree if name not in hints]
    if missing or unknown:
        raise _Unfit(
            f"{path or 'the run'} {'lacks ' + missing[0] if missing else 'has an unknown field ' + unknown[0]}"
        )
    return kind(**{name: _made(hints[name], each, f"{path}.{name}") for name, each in tree.items()})


def _hints(kind: Any) -> dict[str, Any]:
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = typing.get_type_hints(kind)
    return found


_known: dict[Any, dict[str, Any]] = {}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _checked(value: Any, kind: Any, path: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise _Unfit(f"{path} is {value!r:.40}, and not {names}")
    return value
