"""Saved models: one safetensors file with the weights, and in its metadata what they mean.

The metadata entry "stepgrad" is JSON: {"format": 1, "written_by": version, "sizes": [64, 128, 10],
"columns": [...], "target": {...}}. A column is {"kind": "numeric", "name", "median", "mean", "std"}
or {"kind": "categorical", "name", "categories"}; the target {"kind": "classes", "name", "classes"}
or {"kind": "quantity", "name", "mean", "std"}.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from stepgrad import files, nn
from stepgrad.errors import FileError, StepgradError
from stepgrad.train import network
from stepgrad.train.columns import Categorical, Classes, Column, Numeric, Quantity, Target

FORMAT = 1

_KINDS: dict[str, type[Any]] = {
    "numeric": Numeric,
    "categorical": Categorical,
    "classes": Classes,
    "quantity": Quantity,
}


@dataclass(frozen=True)
class Model:
    """A trained network, with what is needed to use it on a table."""

    network: nn.Sequential
    sizes: tuple[int, ...]
    columns: tuple[Column, ...]
    target: Target


def save(path: str | Path, model: Model) -> None:
    """Writes a model; the file is complete, or as it was.

    Raises:
        FileError: it can't be written.
    """
    description = {
        "format": FORMAT,
        "written_by": f"stepgrad {metadata.version('stepgrad')}",
        "sizes": model.sizes,
        "columns": [_described(column) for column in model.columns],
        "target": _described(model.target),
    }
    text = json.dumps(description, ensure_ascii=False)
    files.write(path, safetensors.numpy.save(model.network.state_dict(), metadata={"stepgrad": text}))


def load(path: str | Path) -> Model:
    """Reads a model.

    Raises:
        FileError: it can't be read, is cut short, is of another kind or version, or does not
            hold what a model needs.
    """
    weights, text = _read(Path(path))
    try:
        description = json.loads(text)
        if description["format"] != FORMAT:
            raise FileError(
                f"{path} is a model of format {description['format']}, {description.get('written_by', '')}".rstrip(
                    ", "
                ),
                f"this version of stepgrad reads format {FORMAT}",
                "use the version of stepgrad that wrote it, or train again",
            )
        sizes = tuple(_whole(size) for size in description["sizes"])
        columns = tuple(_rebuilt(column, ("numeric", "categorical")) for column in description["columns"])
        target = _rebuilt(description["target"], ("classes", "quantity"))
        if len(sizes) < 2 or sizes[0] != sum(c.width for c in columns) or sizes[-1] != target.outputs:
            raise ValueError(f"layer sizes {list(sizes)} do not fit the columns")
        if sum(a * b + b for a, b in itertools.pairwise(sizes)) != sum(w.size for w in weights.values()):
            raise ValueError(f"layer sizes {list(sizes)} do not fit the weights")
        model = Model(network.build(sizes), sizes, columns, target)
        model.network.load_state_dict(weights)
    except FileError:
        raise
    except KeyError as error:
        raise _incomplete(path, f"the entry {error} is missing") from None
    except StepgradError as error:
        raise _incomplete(path, error.what) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _incomplete(path, str(error)) from None
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise _incomplete(path, f"the weights {name} hold NaN or Inf")
    return model


def _read(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """The weights and the description, after checking that the file is complete."""
    content = files.read(path)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("stepgrad")
            weights = safetensors.numpy.load(content)
    except SafetensorError as error:
        raise FileError(
            f"{path} can't be read as a model ({len(content):,} bytes)",
            f"it is not a complete safetensors file: it was cut short, or is something else ({error})",
            "copy it again from where it was written, or train again with --out",
        ) from None
    if text is None:
        raise FileError(
            f"{path} is a safetensors file, and not a model of stepgrad",
            "it says nothing about columns and layers",
            "name a file that was written by stepgrad train --out",
        )
    return weights, text


def _incomplete(path: str | Path, problem: str) -> FileError:
    return FileError(
        f"{path} does not hold a usable model: {problem}",
        "the file was changed after it was written, or was not written by stepgrad train",
        "train again with --out",
    )


def _described(part: Column | Target) -> dict[str, Any]:
    kind = next(kind for kind, of in _KINDS.items() if of is type(part))
    return {"kind": kind, **dataclasses.asdict(part)}


def _rebuilt(entry: Any, kinds: tuple[str, ...]) -> Any:
    """The column or target that an entry describes, each value checked."""
    if entry["kind"] not in kinds:
        raise ValueError(f"{entry['kind']!r} is not one of {', '.join(kinds)}")
    made = _KINDS[entry["kind"]]
    return made(**{field.name: _checked(field.name, entry[field.name]) for field in dataclasses.fields(made)})


def _checked(name: str, value: Any) -> Any:
    if name in ("categories", "classes"):
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"{name} has to be a list of texts")
        return tuple(value)
    if name == "name":
        if not isinstance(value, str):
            raise ValueError("a name has to be a text")
        return value
    number = float(value)
    if not math.isfinite(number) or (name == "std" and number <= 0):
        raise ValueError(f"{name} is {value}")
    return number


def _whole(size: Any) -> int:
    if not isinstance(size, int) or not 0 < size < 1_000_000:
        raise ValueError(f"the layer size {size!r} is not a whole number from 1")
    return size
