"""Running what `trace.source()` wrote, on its own, and comparing it with the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgrad as sg


def run(trace: sg.Trace) -> tuple[Any, dict[str, Any], Any]:
    """The value, gradients and cache that the generated module computes."""
    module: dict[str, Any] = {}
    exec(compile(trace.source(), "generated.py", "exec"), module)
    assert not any("stepgrad" in (getattr(f, "__module__", "") or "") for f in module.values() if callable(f))
    value, cache = module["forward"](**trace.inputs)
    return value, module["backward"](cache), cache


def agrees(trace: sg.Trace, tolerance: float = 1e-12) -> sg.Trace:
    """Asserts that the generated module gives the engine's value and gradients, and caches the ledger's values."""
    value, gradients, cache = run(trace)
    values = value if isinstance(value, tuple) else (value,)
    for mine, engine in zip(values, _leaves(trace.value), strict=True):
        close(mine, engine, tolerance)
    assert list(gradients) == list(trace.gradients)
    for name, engine in trace.gradients.items():
        close(gradients[name], engine, tolerance, name)
    assert len(cache) == len(trace.cache().rows)
    assert max(map(len, str(trace).splitlines())) <= 100, str(trace)
    assert str(trace.cache())
    assert str(trace.cost())
    return trace


def close(mine: Any, engine: Any, tolerance: float, name: str = "the value") -> None:
    mine, engine = np.asarray(mine), np.asarray(engine)
    assert mine.shape == engine.shape, name
    assert mine.dtype == engine.dtype, name
    scale = max(1e-300, float(np.max(np.abs(engine), initial=0)))
    np.testing.assert_allclose(mine, engine, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in _leaves(v)]
    return [leaf for v in value for leaf in _leaves(v)] if isinstance(value, (list, tuple)) else [value]
