"""Saved models: written whole, and read back or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from stepgrad import files
from stepgrad.errors import FileError
from stepgrad.train import network, saving
from stepgrad.train.columns import Categorical, Classes, Numeric, Quantity

COLUMNS = (Numeric("size, m²", 3.0, 2.5, 0.1), Categorical("town", ("", "Ulm", "Köln")))
SIZES = (4, 5, 2)


def model(target: Classes | Quantity = Classes("y", ("no", "yes"))) -> saving.Model:
    sizes = (*SIZES[:-1], target.outputs)
    return saving.Model(network.build(sizes, seed=3), sizes, COLUMNS, target)


@pytest.mark.parametrize("target", [Classes("y", ("no", "yes")), Quantity("price", 1e-300, 2.0)])
def test_what_is_read_is_what_was_written(tmp_path: Path, target: Classes | Quantity) -> None:
    path, written = tmp_path / "m.safetensors", model(target)
    saving.save(path, written)
    read = saving.load(path)
    assert (read.sizes, read.columns, read.target) == (written.sizes, written.columns, written.target)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert (read.network(x).numpy() == written.network(x).numpy()).all()
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_the_file_is_safetensors_and_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saving.save(path, model())
    assert set(safetensors.numpy.load_file(path)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["stepgrad"])
    assert description["format"] == 1
    assert description["columns"][1] == {"kind": "categorical", "name": "town", "categories": ["", "Ulm", "Köln"]}
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 500, -1])
def test_a_file_cut_short(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "m.safetensors"
    saving.save(path, model())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FileError, match=r"can't be read as a model \([\d,]+ bytes\)\n.*cut short.*\n.*copy it"):
        saving.load(path)


def test_something_else_altogether(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(os.urandom(1000))
    with pytest.raises(FileError, match="or is something else"):
        saving.load(path)
    path.write_bytes(safetensors.numpy.save({"w": np.zeros(2)}))
    with pytest.raises(FileError, match=r"is a safetensors file, and not a model of stepgrad\n.*\n.*--out"):
        saving.load(path)


def description(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "written_by": "stepgrad 9.9",
        "sizes": SIZES,
        "columns": [
            {"kind": "numeric", "name": "size", "median": 0.0, "mean": 0.0, "std": 1.0},
            {"kind": "categorical", "name": "town", "categories": ["a", "b", "c"]},
        ],
        "target": {"kind": "classes", "name": "y", "classes": ["no", "yes"]},
    } | changes


def without(entry: str) -> dict[str, Any]:
    return {key: value for key, value in description().items() if key != entry}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (description(format=2), "is a model of format 2, stepgrad 9.9\n  why: this version of stepgrad reads format 1"),
        (without("target"), "the entry 'target' is missing"),
        (without("sizes"), "the entry 'sizes' is missing"),
        (description(sizes=[4, 2]), "layer sizes [4, 2] do not fit the weights"),
        (description(sizes=[3, 5, 2]), "layer sizes [3, 5, 2] do not fit the columns"),
        (description(sizes=[4, 10**9, 2]), "the layer size 1000000000 is not a whole number"),
        (description(sizes=[4, 999_999, 2]), "layer sizes [4, 999999, 2] do not fit the weights"),
        (description(sizes="4"), "the layer size '4' is not a whole number"),
        (description(columns=3), "not iterable"),
        (description(target={"kind": "numeric"}), "'numeric' is not one of classes, quantity"),
        (description(target={"kind": "classes", "name": "y"}), "the entry 'classes' is missing"),
        (description(target={"kind": "classes", "name": "y", "classes": [1, 2]}), "classes has to be a list of texts"),
        (description(target={"kind": "quantity", "name": "y", "mean": 0, "std": 0}), "std is 0"),
        (description(target={"kind": "quantity", "name": 1, "mean": 0, "std": 1}), "a name has to be a text"),
        ("{", "does not hold a usable model"),
        ([], "does not hold a usable model"),
    ],
)
def test_descriptions_that_do_not_fit(tmp_path: Path, text: Any, problem: str) -> None:
    path = tmp_path / "m.safetensors"
    metadata = {"stepgrad": text if isinstance(text, str) else json.dumps(text)}
    path.write_bytes(safetensors.numpy.save(model().network.state_dict(), metadata=metadata))
    with pytest.raises(FileError) as caught:
        saving.load(path)
    assert problem in str(caught.value)
    assert "train again" in caught.value.instead


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: {**w, "0.bias": w["0.bias"] * np.float32(np.nan)}, "the weights 0.bias hold NaN or Inf"),
        (lambda w: {**{k: v for k, v in w.items() if k != "0.bias"}, "b": w["0.bias"]}, "missing: 0.bias"),
        (lambda w: {**w, "0.weight": w["0.weight"].T.copy()}, "wrong shapes"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Callable[[Any], Any], problem: str) -> None:
    path = tmp_path / "m.safetensors"
    metadata = {"stepgrad": json.dumps(description())}
    path.write_bytes(safetensors.numpy.save(change(model().network.state_dict()), metadata=metadata))
    with pytest.raises(FileError) as caught:
        saving.load(path)
    assert problem in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no file"):
        saving.load(tmp_path / "m.safetensors")


# --- writing


def test_writing_replaces_a_file_in_one_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=r"can't be written\n  why: the system says: No space left on device"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m"]
    monkeypatch.undo()
    files.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is a directory\n.*\n.*name a file in it"):
        files.check_writable(tmp_path)
    with pytest.raises(FileError, match=r"there is no folder .*nowhere\n  instead: make it first \(mkdir -p"):
        files.check_writable(tmp_path / "nowhere" / "m")
    (tmp_path / "data.csv").write_text("a")
    with pytest.raises(FileError, match=r"also what is read\n  why: .* destroy its own input"):
        files.check_writable(tmp_path / "data.csv", unlike=tmp_path / "data.csv")
    files.check_writable(tmp_path / "m")
    assert os.listdir(tmp_path) == ["data.csv"]
