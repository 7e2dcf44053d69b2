"""The bare matrix products of a training step, by NumPy's BLAS: what no step built on it can beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network
    from stepgrad.bench.ours import Work


def load(threads: int) -> str:
    """Imports the library, and returns its version; its BLAS has as many threads as the process has cores."""
    import numpy as np

    return np.__version__


def products(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """For each linear layer: A @ W, A.T @ dZ, and, but for the first, dZ @ W.T; the results' memory is reused."""
    import numpy as np

    rng = np.random.default_rng(2)
    operands = []
    for number, (W, _) in enumerate(arrays for arrays in weights if len(arrays) == 2 and arrays[0].ndim == 2):
        A, dZ = (rng.standard_normal((network.batch, n)).astype(W.dtype) for n in W.shape)
        pairs = [(A, W), (A.T, dZ), (dZ, W.T)][: 3 if number else 2]
        operands += [(a, b, np.empty((len(a), b.shape[1]), W.dtype)) for a, b in pairs]

    def run() -> None:
        for a, b, out in operands:
            np.matmul(a, b, out=out)

    return run, lambda _: []
