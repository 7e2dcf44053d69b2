"""The digits, fitted by scikit-learn's MLPClassifier."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network
    from stepgrad.bench.ours import Work


def load(threads: int) -> str:
    """Imports the library, and returns its version; NumPy's BLAS has as many threads as the process has cores."""
    import sklearn
    import sklearn.neural_network

    return str(sklearn.__version__)


def fit(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """Each call trains anew, from weights of its own, and returns the last epoch's loss."""
    from sklearn.neural_network import MLPClassifier

    warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # that the epochs are over
    hidden = [outputs for _, outputs in network.sizes[:-1]]

    def run() -> float:
        classifier = MLPClassifier(
            hidden,
            solver="adam",
            learning_rate_init=network.learning_rate,
            alpha=0.0,
            batch_size=network.batch,
            max_iter=network.epochs,
            n_iter_no_change=network.epochs,
            random_state=0,
        )
        return float(classifier.fit(*batches).loss_)

    return run, lambda loss: [loss]
