"""Data sets of scikit-learn, split and standardised, and what its own models reach on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn import datasets, linear_model, svm
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Data:
    """Rows to train with and rows held back.

    Attributes:
        name: of the data set.
        X, y: training inputs (rows, features) in float32, and targets: labels (rows,) as integers, or numbers
            (rows, outputs) in float32.
        X_held, y_held: the same of the rows held back.
        classes: how many, or None where targets are numbers.
        reference: score of scikit-learn's model on the rows held back: accuracy, or R² for numbers.
    """

    name: str
    X: Array
    y: Array
    X_held: Array
    y_held: Array
    classes: int | None
    reference: float

    @property
    def features(self) -> int:
        return self.X.shape[1]

    @property
    def outputs(self) -> int:
        return self.classes or self.y.shape[1]

    def with_inputs(self, change: Callable[[Array], Array]) -> Data:
        """The same with other inputs, in training rows and in rows held back."""
        return replace(self, X=_single(change(self.X)), X_held=_single(change(self.X_held)))

    def with_targets(self, change: Callable[[Array], Array]) -> Data:
        """The same with other targets, in training rows and in rows held back."""
        return replace(self, y=change(self.y), y_held=change(self.y_held))

    def first(self, rows: int) -> Data:
        """The same with fewer training rows."""
        return replace(self, X=self.X[:rows], y=self.y[:rows])


def _single(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32)


@dataclass(frozen=True)
class _Source:
    """Where rows come from: raw inputs and targets, and the model of scikit-learn that says what can be reached."""

    rows: Callable[[int], tuple[Array, Array]]
    model: Callable[[], Any]
    most: int = 800


def _linear() -> Any:
    return linear_model.LogisticRegression(max_iter=3000)


def _overlapping(rows: list[int], features: int, distance: float, seed: int) -> tuple[Array, Array]:
    """Classes of given sizes whose centres are so many standard deviations apart that they overlap."""
    centres = np.eye(len(rows), features) * distance / np.sqrt(2)
    return datasets.make_blobs(rows, features, centers=centres, cluster_std=1.0, random_state=seed)


_SOURCES: dict[str, _Source] = {
    "digits": _Source(lambda seed: datasets.load_digits(return_X_y=True), _linear, most=1000),
    "iris": _Source(lambda seed: datasets.load_iris(return_X_y=True), _linear),
    "wine": _Source(lambda seed: datasets.load_wine(return_X_y=True), _linear),
    "cancer": _Source(lambda seed: datasets.load_breast_cancer(return_X_y=True), _linear),
    "blobs": _Source(lambda seed: datasets.make_blobs(500, 8, centers=4, cluster_std=1.5, random_state=seed), _linear),
    "moons": _Source(lambda seed: datasets.make_moons(600, noise=0.2, random_state=seed), svm.SVC),
    "circles": _Source(lambda seed: datasets.make_circles(600, noise=0.1, factor=0.5, random_state=seed), svm.SVC),
    "mixture": _Source(
        lambda seed: datasets.make_classification(
            800, 20, n_informative=8, n_classes=3, n_clusters_per_class=1, class_sep=1.5, random_state=seed
        ),
        _linear,
    ),
    "noisy labels": _Source(
        lambda seed: datasets.make_classification(
            800, 20, n_informative=8, n_classes=2, n_clusters_per_class=1, class_sep=1.5, flip_y=0.2, random_state=seed
        ),
        _linear,
    ),
    "nine to one": _Source(
        lambda seed: datasets.make_classification(
            900, 12, n_informative=6, n_clusters_per_class=1, weights=[0.9], class_sep=2.0, flip_y=0, random_state=seed
        ),
        _linear,
    ),
    "rare class": _Source(lambda seed: _overlapping([960, 40], 10, 1.7, seed), _linear),
    "rare class of three": _Source(lambda seed: _overlapping([490, 470, 40], 12, 1.7, seed), _linear),
    "rare ones": _Source(lambda seed: _overlapping([1140, 60], 6, 1.5, seed), _linear),
    "diabetes": _Source(lambda seed: datasets.load_diabetes(return_X_y=True, scaled=False), linear_model.Ridge),
    "regression": _Source(
        lambda seed: datasets.make_regression(500, 10, n_informative=6, noise=60.0, random_state=seed),
        linear_model.Ridge,
    ),
    "two targets": _Source(
        lambda seed: datasets.make_regression(500, 10, n_informative=6, n_targets=2, noise=10.0, random_state=seed),
        linear_model.Ridge,
    ),
    "friedman": _Source(
        lambda seed: datasets.make_friedman1(600, 10, noise=1.0, random_state=seed), GradientBoostingRegressor
    ),
}

NAMES = tuple(_SOURCES)


@functools.cache
def load(name: str, seed: int) -> Data:
    """A data set, split and standardised by the training rows.

    Args:
        name: one of `NAMES`.
        seed: decides the split, and the rows where they are generated.
    """
    data = raw(name, seed)
    mean, std = data.X.mean(axis=0), data.X.std(axis=0)
    std[std < 1e-6] = 1  # digits has pixels that are always 0
    data = data.with_inputs(lambda X: (X - mean) / std)
    if data.classes is None:
        low, spread = data.y.mean(axis=0), data.y.std(axis=0)
        data = data.with_targets(lambda y: ((y - low) / spread).astype(np.float32))
    return replace(data, reference=_reference(data, _SOURCES[name].model()))


@functools.cache
def raw(name: str, seed: int) -> Data:
    """A data set, split and not standardised; without a reference (NaN)."""
    source = _SOURCES[name]
    X, y = source.rows(seed)
    classes = int(y.max()) + 1 if y.dtype.kind == "i" else None
    order = np.random.default_rng([seed, 17]).permutation(len(X))[: source.most]
    held, kept = order[: len(order) // 4], order[len(order) // 4 :]
    targets = y.astype(np.int64) if classes else y.reshape(len(y), -1).astype(np.float32)
    return Data(name, _single(X[kept]), targets[kept], _single(X[held]), targets[held], classes, float("nan"))


def _reference(data: Data, model: Any) -> float:
    y, held = (data.y.ravel(), data.y_held.ravel()) if data.outputs == 1 or data.classes else (data.y, data.y_held)
    return float(model.fit(data.X, y).score(data.X_held, held))


@functools.cache
def compressed(seed: int, width: int) -> Data:
    """Pixels of digits from -1 to 1 as their own targets; the reference is that of principal components."""
    data = raw("digits", seed).with_inputs(lambda X: X / 8 - 1)
    pca = PCA(width).fit(data.X)
    again = pca.inverse_transform(pca.transform(data.X_held))
    residual = ((data.X_held - again) ** 2).sum() / ((data.X_held - data.X_held.mean(axis=0)) ** 2).sum()
    return replace(data, y=data.X, y_held=data.X_held, classes=None, reference=1 - float(residual))


def refitted(data: Data) -> Data:
    """The same with the reference fitted anew: where targets or rows were changed and this is what can be reached."""
    return replace(data, reference=_reference(data, _SOURCES[data.name].model()))
