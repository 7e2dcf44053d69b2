"""What `import stepgrad` loads: it has to be quick, so what takes long is imported where it is used."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import UnsupportedError
from stepgrad.ops.lazy import special


def loaded(script: str) -> set[str]:
    """The modules that a new interpreter has imported after a script."""
    script += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_leaves_what_takes_long_for_later() -> None:
    slow = {"llvmlite", "scipy", "numpy.f2py", "asyncio", "typer", "rich", "stepgrad.execute.cpu"}
    assert not slow & loaded("import stepgrad")


def test_a_function_of_scipy_is_imported_when_it_is_called() -> None:
    script = "import stepgrad as sg; out = sg.special.erf(sg.tensor([0.5]))"
    assert "scipy.special" in loaded(script)


def test_a_function_of_scipy_finds_its_op_whatever_was_imported_first() -> None:
    call = "assert type(scipy.special.expit(sg.tensor([0.5]))) is sg.Tensor"
    loaded(f"import scipy.special; import stepgrad as sg; {call}")
    loaded(f"import stepgrad as sg; import scipy.special; {call}")


@pytest.mark.parametrize("name", ["erf", "expit", "psi", "digamma", "jn", "jv", "i0", "cbrt", "xlogy"])
def test_functions_of_scipy_record_under_each_name(name: str) -> None:
    import scipy.special

    orders = {"jn": (1,), "jv": (1,)}.get(name, ())
    operands = [0.5, 0.25] if name == "xlogy" else [0.5]
    function = getattr(scipy.special, name)
    got = function(*orders, *[sg.tensor([x]) for x in operands])
    assert isinstance(got, sg.Tensor)
    np.testing.assert_allclose(got.numpy(), function(*orders, *[np.array([x]) for x in operands]), rtol=1e-14)


def test_a_function_of_scipy_without_an_op_is_refused() -> None:
    import scipy.special

    with pytest.raises(UnsupportedError, match="spence"):
        scipy.special.spence(sg.tensor([0.5]))
    with pytest.raises(UnsupportedError, match=r"erf\.at"):
        scipy.special.erf.at(sg.tensor([0.5]), [0])


def test_every_function_that_ops_name_is_one_of_scipys() -> None:
    import scipy.special

    named = [name for name in vars(special) if not name.startswith("_")]
    assert len(named) > 25
    for name in named:
        assert getattr(scipy.special, name).__name__ == name  # that is how `counterpart` finds it
