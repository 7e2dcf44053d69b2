"""Recorded runs in files."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.health import load
from stepgrad.check.health.record import Run, silent_units
from stepgrad.check.health.saving import save
from stepgrad.errors import FileError


@pytest.fixture(scope="module")
def run() -> Run:
    """A run that broke, so that every kind of record is in it."""
    rng = np.random.default_rng(0)
    X = 10 * rng.standard_normal((64, 4)).astype(np.float32)
    model = sg.nn.Sequential(sg.nn.Linear(4, 8, key=0), sg.nn.ReLU(), sg.nn.Linear(8, 1, key=1))
    optimizer = sg.optim.SGD(model.parameters(), lr=3.0)
    health = sg.health(model, sg.losses.mse, optimizer, every=2)
    for i in range(0, 64, 4):
        health.before(X[i : i + 4], X[i : i + 4, :1])
        with np.errstate(all="ignore"):
            loss = sg.losses.mse(model(X[i : i + 4]), X[i : i + 4, :1])
            optimizer.step(sg.backward(loss, model.parameters()))
        health.after(loss)
        if not math.isfinite(loss.item()):
            break
    health.epoch(validation_loss=math.inf, validation_accuracy=0.5)
    return health.run


def test_what_is_saved_is_what_is_loaded(run: Run, tmp_path: Path) -> None:
    assert run.failure is not None
    assert not math.isfinite(run.losses[-1])
    save(run, tmp_path / "run.json")
    again = load(tmp_path / "run.json")
    assert repr(again) == repr(run)  # == does not hold for NaN
    json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.pop("losses"), "lacks losses"),
        (lambda tree: tree.update(more=1), "unknown field more"),
        (lambda tree: tree.update(version=99), "version 99"),
        (lambda tree: tree.update(losses=["one"]), "losses[0] is 'one'"),
        (lambda tree: tree["settings"].update(optimizer=3), "settings.optimizer is 3"),
        (lambda tree: tree.update(format="else"), "JSON of something else"),
    ],
)
def test_a_file_of_something_else_is_refused(run: Run, tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "run.json"
    save(run, path)
    tree = json.loads(path.read_text())
    change(tree)  # type: ignore[operator]
    path.write_text(json.dumps(tree))
    with pytest.raises(FileError) as error:
        load(path)
    assert said in str(error.value)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\x00")
    with pytest.raises(FileError, match="not JSON"):
        load(tmp_path / "run.json")


def test_noise_is_averaged_before_it_is_divided(run: Run) -> None:
    def sample(squared_norm: float, trace: float) -> object:
        noise = dataclasses.replace(run.samples[0].noise, squared_norm=squared_norm, trace=trace)  # type: ignore[type-var]
        return dataclasses.replace(run.samples[0], noise=noise)

    samples = (sample(1.0, 10.0), sample(3.0, 30.0), sample(math.nan, 1.0))
    assert dataclasses.replace(run, samples=samples).noise_scale() == 10.0
    assert dataclasses.replace(run, samples=(sample(-1.0, 2.0),)).noise_scale() == math.inf
    assert dataclasses.replace(run, samples=()).noise_scale() is None


def test_units_that_never_take_part(run: Run) -> None:
    layers = [dataclasses.replace(run.samples[0].layers[0], active=active) for active in ((0, 2, 0), (0, 0, 1))]
    assert silent_units(layers) == (0,)
    assert silent_units([]) == ()
