"""`stepgrad train` and `stepgrad predict`, from the command line to the files."""

from __future__ import annotations

import csv
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgrad.train import saving
from stepgrad.train.settings import Settings

Command = Any


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found.group(1).replace(",", ""))


def within_100_columns(text: str) -> bool:
    head = text.partition("try next")[0]
    return max(map(len, head.splitlines())) <= 100


# --- the digits


def test_digits_are_learned(command: Command, tmp_path: Path) -> None:
    done = command("train", "digits", "--out", tmp_path / "digits.safetensors")
    assert done.code == 0, done.err
    assert number(r"test +accuracy ([\d.]+) %", done.out) >= 96
    assert number(r"gradients +([\d,]+) checked in float64", done.out) > 100
    assert number(r"max relative error ([\de.+-]+)[;,]", done.out) < 1e-6
    assert "64 → 128 → 64 → 10" in done.out
    for layer in ("0 Linear   64 × 128", "2 Linear   128 × 64", "4 Linear   64 × 10"):
        assert layer in done.out
    assert "try next" in done.out
    assert within_100_columns(done.out)
    assert saving.load(tmp_path / "digits.safetensors").sizes == (64, 128, 64, 10)


def test_digits_are_learned_in_the_same_way_again(command: Command) -> None:
    def told(seed: int) -> str:
        text = command("train", "digits", "--epochs", 2, "--hidden", "16", "--seed", seed).out
        return re.sub(r"time .*", "", text)

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_digits_are_predicted_from_a_table(command: Command, tmp_path: Path) -> None:
    from stepgrad.train import digits

    model, table = tmp_path / "m.safetensors", tmp_path / "images.csv"
    command("train", "digits", "--epochs", 10, "--hidden", "64", "--out", model)
    _, (X, y) = digits.split()
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["digit", *(f"pixel_{i}" for i in range(64))])
        writer.writerows([label, *np.round(16 * x).astype(int)] for x, label in zip(X, y, strict=True))
    done = command("predict", model, table)
    assert done.code == 0, done.err
    assert number(r"accuracy ([\d.]+) %", done.err) > 93


def test_digits_take_no_target(command: Command) -> None:
    done = command("train", "digits", "--target", "x")
    assert done.code == 2
    assert "the digits are embedded" in done.err


# --- tables


def test_classification_is_found_learned_saved_and_used(command: Command, flowers: Path, tmp_path: Path) -> None:
    model = tmp_path / "flowers.safetensors"
    done = command("train", flowers, "--target", "kind", "--out", model, "--epochs", 30)
    assert done.code == 0, done.err
    assert "kind: classification, 3 classes, since it holds text" in done.out
    assert number(r"validated +accuracy ([\d.]+) %", done.out) > 94
    assert "always guessing the most frequent class" in done.out
    assert f"stepgrad predict {model} new.csv" in done.out
    assert within_100_columns(done.out.replace(str(tmp_path), ""))

    shuffled = tmp_path / "new.csv"
    shuffled.write_text("extra,width,length\nx,-4.0,6.0\ny,0.0,0.0\n")
    done = command("predict", model, shuffled)
    assert done.code == 0
    rows = list(csv.reader(done.out.splitlines()))
    assert rows[0] == ["row", "predicted_kind", "probability"]
    assert [row[:2] for row in rows[1:]] == [["1", "iris"], ["2", "rose"]]
    assert all(0.5 < float(row[2]) <= 1 for row in rows[1:])
    assert "column not used by the model: extra" in done.err


def test_regression_is_found_learned_saved_and_used(command: Command, houses: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "houses.safetensors", tmp_path / "predictions.csv"
    done = command("train", houses, "--target", "price", "--out", model, "--epochs", 60)
    assert done.code == 0, done.err
    assert "price: regression, since it holds 300 different numbers" in done.out
    assert number(r"R² ([\d.-]+)", done.out) > 0.9
    assert number(r"validated +RMSE ([\d.e+]+)", done.out) < number(r"guessing the mean: RMSE ([\d.e+]+)", done.out) / 3
    assert "id: 300 different texts, left out" in done.out
    assert "country: the same in every row, left out" in done.out
    assert re.search(r"size: \d+ missing, filled with the median", done.out)

    done = command("predict", model, houses, "--out", out)
    assert done.code == 0
    assert "300 predictions to" in done.err
    assert number(r"R² ([\d.-]+) on 300 rows", done.err) > 0.9
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["row", "predicted_price"]
    assert len(rows) == 301
    assert 20_000 < float(rows[1][1]) < 1_000_000


def test_a_linear_model_and_no_validation(command: Command, flowers: Path) -> None:
    done = command("train", flowers, "--target", "kind", "--hidden", "none", "--validation", 0, "--epochs", 5)
    assert "network 2 → 3; 9 parameters" in done.told
    assert "90 to train, 0 to validate" in done.told
    assert "trained accuracy" in done.told


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop", "adagrad"])
def test_every_optimizer_learns(command: Command, flowers: Path, optimizer: str) -> None:
    done = command("train", flowers, "--target", "kind", "--optimizer", optimizer, "--epochs", 30)
    assert number(r"validated +accuracy ([\d.]+) %", done.out) > 80


def test_the_task_can_be_said(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x,y\n" + "".join(f"{i},{i % 3}\n" for i in range(30)))
    said = command("train", path, "--target", "y", "--task", "regression", "--epochs", 1).told
    assert "y: regression, as --task says" in said
    found = command("train", path, "--target", "y", "--epochs", 1).told
    assert "y: classification, 3 classes, since it holds 3 different whole numbers" in found
    assert "(otherwise: --task regression)" in found


def test_unseen_categories_and_classes_are_noticed(command: Command, houses: Path, tmp_path: Path) -> None:
    model, new = tmp_path / "m.safetensors", tmp_path / "new.csv"
    command("train", houses, "--target", "price", "--epochs", 1, "--out", model)
    new.write_text("size,town\n100,Rome\n,Ulm\n")
    done = command("predict", model, new)
    assert done.code == 0
    assert "town: 1 row has a category not seen in training (Rome), read as none" in done.err
    assert len(done.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("width,kind\n1,rose\n", "has no column length, which the model reads"),
        ("width,lengths\n1,2\n", "did you mean 'lengths'? add what is missing"),
        ("width,length\n", "has no rows below its first line"),
        ("width,length\n1,tall\n", "has 'tall' in column 'length'"),
        ("width,length\n1\n", "row 1 of"),
    ],
)
def test_tables_that_the_model_can_not_read(
    command: Command, flowers: Path, tmp_path: Path, text: str, problem: str
) -> None:
    model, new, out = tmp_path / "m.safetensors", tmp_path / "new.csv", tmp_path / "out.csv"
    command("train", flowers, "--target", "kind", "--epochs", 1, "--out", model)
    new.write_text(text)
    done = command("predict", model, new, "--out", out)
    assert done.code == 2
    assert problem in done.err
    assert "  why: " in done.err
    assert "  instead: " in done.err
    assert not out.exists()


def test_an_input_is_never_overwritten(command: Command, flowers: Path, tmp_path: Path) -> None:
    model, before = tmp_path / "m.safetensors", flowers.read_bytes()
    assert "also what is read" in command("train", flowers, "--target", "kind", "--out", flowers).err
    command("train", flowers, "--target", "kind", "--epochs", 1, "--out", model)
    saved = model.read_bytes()
    assert "also what is read" in command("predict", model, flowers, "--out", flowers).err
    assert "also what is read" in command("predict", model, flowers, "--out", model).err
    assert (flowers.read_bytes(), model.read_bytes()) == (before, saved)


@pytest.mark.parametrize(
    ("words", "what", "instead"),
    [
        (["--hidden", "128,x"], "--hidden 128,x was asked for", "--hidden 128,64"),
        (["--hidden", "0"], "--hidden 0 was asked for", "--hidden none"),
        (
            ["--optimizer", "adan"],
            "--optimizer adan was asked for\n  why: there are adam, adamw, sgd",
            "--optimizer adam",
        ),
        (["--epochs", "0"], "--epochs 0 was asked for", "--epochs"),
        (["--batch-size", "-1"], "--batch-size -1 was asked for", "--batch-size"),
        (["--learning-rate", "0"], "--learning-rate 0 was asked for", "--learning-rate 0.001"),
        (["--learning-rate", "nan"], "--learning-rate nan was asked for", "--learning-rate 0.001"),
        (["--validation", "1"], "--validation 1 was asked for", "--validation 0.2"),
        (["--seed", "-1"], "--seed -1 was asked for", "--seed 0"),
        (["--task", "clustering"], "--task clustering was asked for", "--task classification"),
        (["--target", "kinds"], "has no column 'kinds'", "did you mean 'kind'?"),
        (["--ignore", "wid"], "has no column 'wid'", "did you mean 'width'?"),
        (["--ignore", "kind"], "'kind' is the target, and also given to --ignore", "--task"),
        (["--out", "/nowhere/m"], "/nowhere/m can't be written\n  why: there is no folder /nowhere", "mkdir -p"),
    ],
)
def test_options_that_can_not_be_used(
    command: Command, flowers: Path, words: list[str], what: str, instead: str
) -> None:
    done = command("train", flowers, "--target", "kind", *words)
    assert done.code == 2
    assert what in done.err
    assert instead in done.err
    assert "epoch" not in done.out


def test_a_target_has_to_be_named(command: Command, flowers: Path) -> None:
    done = command("train", flowers)
    assert done.code == 2
    assert "no target is named" in done.err
    assert "length, width, kind" in done.err
    assert "--target 'kind'" in done.err


def test_too_few_rows(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("x,y\n" + "1,2\n" * 9)
    done = command("train", path, "--target", "y")
    assert "has 9 rows below its first line\n  why: at least 10 are needed" in done.err


def test_a_learning_rate_that_is_too_large(command: Command, houses: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    words = ["--optimizer", "sgd", "--learning-rate", "1e6", "--epochs", 20, "--out", out]
    done = command("train", houses, "--target", "price", *words)
    assert done.code == 2
    assert "the loss became" in done.err
    assert "divide the learning rate (now 1e+06) by 10" in done.err
    assert not out.exists()


def test_epochs_follow_from_the_rows() -> None:
    assert Settings().with_epochs(100).epochs == 100
    assert Settings().with_epochs(3_200).epochs == 30
    assert Settings().with_epochs(10_000_000).epochs == 10
    assert Settings(epochs=7).with_epochs(100).epochs == 7


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_saves_the_best_weights(flowers: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    words = ["train", str(flowers), "--target", "kind", "--epochs", "1000000", "--out", str(out)]
    script = textwrap.dedent("""
        from stepgrad import cli, nn

        def told(model, state_dict=nn.Module.state_dict):
            "Says when weights are set aside: before the first epoch, and after each that was the best."
            print("set aside", flush=True)
            return state_dict(model)

        nn.Module.state_dict = told
        cli.COMMANDS = ("train", "predict")
        cli.main()
    """)
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script, *words], **pipes) as running:
        try:
            assert running.stdout is not None
            lines = (line for line in running.stdout if line == "set aside\n")
            begun = len(list(itertools.islice(lines, 2)))  # the second follows the first epoch
            running.send_signal(signal.SIGINT)
            out_text, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert begun == 2, err
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert re.search(r"stopped +interrupted after \d[\d,]* epochs?; the weights of epoch \d+ are kept", out_text)
    assert saving.load(out).target.name == "kind"
