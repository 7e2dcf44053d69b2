"""The same training step in JAX: the whole step by jit with donated buffers, and many steps by scan and fori_loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network
    from stepgrad.bench.ours import Work


def load(threads: int) -> str:
    """Imports the library, and returns its version; it has as many threads as the process has cores."""
    import jax

    return str(jax.__version__)


def loss_of(network: Network) -> Callable[..., Any]:
    """The forward pass: (weights, key, X, Y) -> loss."""
    import jax
    import jax.numpy as jnp

    def loss_function(weights: list[list[Any]], key: Any, x: Any, y: Any) -> Any:
        for number, (layer, arrays) in enumerate(zip(network.layers, weights, strict=True)):
            match layer:
                case ("linear", _, _):
                    W, b = arrays
                    x = x @ W + b
                case ("relu",):
                    x = jnp.maximum(x, 0)
                case ("layer norm", _):
                    scale, shift = arrays
                    centred = x - x.mean(axis=-1, keepdims=True)
                    variance = (centred**2).mean(axis=-1, keepdims=True)
                    x = centred * jax.lax.rsqrt(variance + 1e-5) * scale + shift
                case ("dropout", p):
                    kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - p, x.shape)
                    x = jnp.where(kept, x / (1 - p), 0)
                case ("embedding", _, _):
                    (table,) = arrays
                    x = table[x].reshape(len(x), -1)
        if network.loss == "mse":
            return jnp.mean((x - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1))

    return loss_function


def training_step(network: Network, weights: list[list[Array]]) -> tuple[Any, Callable[..., Any]]:
    """The state, and forward pass, backward pass and update: (state, (X, Y)) -> (state, loss)."""
    import jax
    import jax.numpy as jnp

    loss_function = jax.value_and_grad(loss_of(network))
    drops = any(layer[0] == "dropout" for layer in network.layers)
    first, second, eps = 0.9, 0.999, 1e-8

    def left(beta: float, t: Any) -> Any:
        return -jnp.expm1(t * math.log(beta))  # 1 - beta**t

    def step(state: Any, batch: Any) -> Any:
        weights, m, v, t = state
        t = t + 1
        key = jax.random.fold_in(jax.random.key(0), t) if drops else None
        loss, gradients = loss_function(weights, key, *batch)
        m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, gradients)
        v = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, v, gradients)
        # In float32, 1 - 0.999**t has few right digits for the first steps, in which it is small: expm1 has all.
        rate, correction = network.learning_rate / left(first, t), jnp.sqrt(left(second, t))

        def updated(w: Any, m: Any, v: Any) -> Any:
            return (w - rate * m / (jnp.sqrt(v) / correction + eps)).astype(w.dtype)

        return (jax.tree.map(updated, weights, m, v), m, v, t), loss

    # Put on the device as they are: jnp.zeros and the like would compile a kernel for each shape.
    def on_device(function: Any) -> Any:
        return [[jax.device_put(function(array)) for array in arrays] for arrays in weights]

    return (on_device(np.array), on_device(np.zeros_like), on_device(np.zeros_like), np.int32(0)), step


def prepared(network: Network, batches: tuple[Array, Array]) -> tuple[Array, Array]:
    """The batches in the dtypes that JAX has, which float64 must be switched on for."""
    import jax

    jax.config.update("jax_enable_x64", network.dtype == "float64")
    X, Y = (array.astype(np.int32) if array.dtype.kind == "i" else array for array in batches)
    return X, Y


def jit(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """One step a call."""
    import jax

    pairs = cycle([jax.device_put(pair) for pair in zip(*prepared(network, batches), strict=True)])
    state, step = training_step(network, weights)
    compiled = jax.jit(step, donate_argnums=0)

    def run() -> Any:
        nonlocal state
        state, loss = compiled(state, next(pairs))
        return loss

    return run, lambda loss: [loss.item()]


def scan(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """All batches in one call, by lax.scan."""
    import jax

    stacked = jax.device_put(prepared(network, batches))
    state, step = training_step(network, weights)
    compiled = jax.jit(lambda state, stacked: jax.lax.scan(step, state, stacked), donate_argnums=0)

    def run() -> Any:
        nonlocal state
        state, losses = compiled(state, stacked)
        return losses

    return run, lambda losses: losses.tolist()


def fori(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """All batches in one call, by lax.fori_loop."""
    import jax
    import jax.numpy as jnp

    X, Y = jax.device_put(prepared(network, batches))
    state, step = training_step(network, weights)

    def loop(state: Any, X: Any, Y: Any) -> Any:
        def body(i: Any, carried: Any) -> Any:
            state, losses = carried
            state, loss = step(state, (X[i], Y[i]))
            return state, losses.at[i].set(loss)

        return jax.lax.fori_loop(0, len(X), body, (state, jnp.zeros(len(X), network.dtype)))

    compiled = jax.jit(loop, donate_argnums=0)

    def run() -> Any:
        nonlocal state
        state, losses = compiled(state, X, Y)
        return losses

    return run, lambda losses: losses.tolist()
