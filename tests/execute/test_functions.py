"""Functions of machine code against references of more digits: samples of all bit patterns, and special values."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from scipy import special

from stepgrad.execute.cpu import exponentials, functions
from stepgrad.execute.cpu.instructions import F32, F64, I64, counted, shaped
from stepgrad.execute.cpu.native import compile_module
from stepgrad.execute.cpu.target import Target, host


def sigmoid(x: Any) -> Any:
    z = np.exp(-np.abs(x))
    return np.where(x < 0, z, 1) / (1 + z)


REFERENCES: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in "exp exp2 expm1 log log2 log10 log1p tanh sinh cosh cbrt sin cos tan arctan arcsin arccos".split()
} | {"sigmoid": sigmoid, "erf": special.erf, "erfc": special.erfc}
EXACT = "sqrt floor ceil trunc rint absolute fabs sign".split()
PAIRS = "maximum minimum copysign fmod remainder floor_divide".split()
SPECIAL = [0.0, 1.0, 0.5, 2.0, 3.0, 2.5, 0.1, 7.0, 1e-45, 1e-38, 1e10, 16777217.0, 3e38, 5e-324, 1e308, np.inf, np.nan]
SPECIAL += [-x for x in SPECIAL]


@functools.cache
def compiled(name: str, dtype: str, lanes: int, operands: int = 1, target: Target | None = None) -> Callable[..., Any]:
    """A function on arrays that computes vectors of so many lanes (0: scalars) in a loop."""
    target = target or host()
    element = F32 if dtype == "float32" else F64
    module, pointer = ir.Module(), ir.PointerType()
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * (operands + 1) + [I64]), "kernel")
    b = ir.IRBuilder(kernel.append_basic_block())

    def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        places = [b.gep(argument, [i], source_etype=element) for argument in kernel.args[:-1]]
        inputs = [b.load(place, typ=shaped(element, lanes)) for place in places[1:]]
        for load in inputs:
            load.align = np.dtype(dtype).itemsize
        b.store(functions.call(b, name, *inputs), places[0]).align = np.dtype(dtype).itemsize
        return []

    counted(b, I64(0), kernel.args[-1], max(1, lanes), [], body)
    b.ret_void()
    native = compile_module(module, ["kernel"], target)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (operands + 1), ctypes.c_int64)(native.addresses["kernel"])

    def run(*arrays: Any, native: Any = native) -> Any:
        size, unit = arrays[0].size, max(1, lanes)
        padded = [np.concatenate([a, np.ones(-size % unit, dtype)]).astype(dtype) for a in arrays]
        out = np.empty_like(padded[0])
        call(out.ctypes.data, *[a.ctypes.data for a in padded], out.size)
        return out[:size]

    return run


def full(dtype: str) -> int:
    return host().lanes(F32 if dtype == "float32" else F64)


def patterns(dtype: str, count: int = 2_000_000) -> Any:
    """Numbers of all magnitudes, and more of the usual ones: one of each stratum of bit patterns."""
    rng = np.random.default_rng(7)
    bits = 32 if dtype == "float32" else 64
    strata = (np.arange(count) * (2.0**bits / count)).astype(f"u{bits // 8}")
    strata += rng.integers(0, 2**bits // count, count, f"u{bits // 8}")
    usual = [rng.uniform(-limit, limit, count // 8) for limit in (1.5, 10, 760)]
    return np.concatenate([strata.view(dtype), *[u.astype(dtype) for u in usual], np.array(SPECIAL).astype(dtype)])


def check(result: Any, exact: Any, limit: float, *inputs: Any) -> None:
    """Within a number of units in the last place; NaN, infinity and the sign of 0 as they have to be."""
    rounded = exact.astype(result.dtype)
    same = (result == rounded) & (np.signbit(result) == np.signbit(rounded)) | (np.isnan(result) & np.isnan(rounded))
    finite = np.isfinite(result) & np.isfinite(rounded)
    units = np.abs(result.astype(exact.dtype) - exact) / np.spacing(np.abs(rounded))
    wrong = ~same & ~(finite & (units <= limit) & (np.sign(result) * np.sign(rounded) >= 0))
    first = np.flatnonzero(wrong)[:5]
    shown = [(*[float(x[i]) for x in inputs], result[i], rounded[i], float(units[i])) for i in first]
    assert not wrong.any(), f"{wrong.sum()} wrong, the first (inputs, result, expected, ulps): {shown}"


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_is_within_two_ulp(name):
    x = patterns("float32")
    check(compiled(name, "float32", full("float32"))(x), REFERENCES[name](x.astype(np.float64)), 2, x)


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"erf", "erfc"}))
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="NumPy has no longer floats here")
def test_float64_is_within_two_ulp(name):
    x = patterns("float64", 100_000)
    check(compiled(name, "float64", full("float64"))(x), REFERENCES[name](x.astype(np.longdouble)), 2, x)


ERF = [  # x, and erf(x) as the sum of two numbers, computed by mpmath in 50 digits
    (1e-300, 1.1283791670955126e-300, -1.495728e-317),
    (1e-20, 1.1283791670955125e-20, -8.470037849303888e-38),
    (1e-05, 1.1283791670579e-05, -3.369136869444807e-23),
    (0.1, 0.1124629160182849, 9.255497413884101e-19),
    (0.25, 0.27632639016823696, -2.4227076221184163e-17),
    (0.5, 0.5204998778130465, 1.900077467916287e-17),
    (0.75, 0.7111556336535151, 4.69744077164289e-17),
    (0.9, 0.7969082124228322, -2.3193178035628794e-17),
    (0.999, 0.8422852702064969, 3.615159835274147e-17),
    (1.0, 0.8427007929497149, -2.4801011789118602e-17),
    (1.001, 0.8431154854780762, 3.5935869832511335e-17),
    (1.1, 0.8802050695740817, -3.550744643146631e-18),
    (1.25, 0.9229001282564583, -5.51775442986392e-17),
    (1.5, 0.9661051464753108, -3.3867031441680696e-17),
    (1.75, 0.9866716712191824, 2.1431190289565338e-17),
    (2.0, 0.9953222650189527, 2.20719858329765e-17),
    (2.3, 0.9988568234026434, -2.03466434512865e-17),
    (2.75, 0.9998993780778803, 4.451378916214761e-17),
    (3.0, 0.9999779095030014, 5.363397058636269e-17),
    (3.5, 0.9999992569016276, 4.9647279187212204e-17),
    (4.0, 0.9999999845827421, 1.44826531920025e-17),
    (4.7, 0.9999999999700474, -1.9047369163170763e-18),
    (5.3, 0.9999999999999338, 3.8473764251220525e-17),
    (5.9, 0.9999999999999999, 3.911820462701088e-17),
]


ERFC = [
    (-5.0, 1.9999999999984626, -2.294992711807301e-17),
    (-1.0, 1.8427007929497148, 8.622129067339705e-17),
    (1e-20, 1.0, -1.1283791670955125e-20),
    (0.1, 0.887537083981715, 5.4585601489869416e-17),
    (0.5, 0.4795001221869535, -1.900077467916287e-17),
    (0.9, 0.20309178757716786, -4.56239758000012e-18),
    (1.0, 0.15729920705028513, -2.954563826510312e-18),
    (1.25, 0.07709987174354177, -3.3360693261863044e-19),
    (1.75, 0.013328328780817557, -6.145085778436527e-19),
    (2.5, 0.0004069520174449589, 2.080297158010754e-20),
    (4.0, 1.541725790028002e-08, -1.1417872168371026e-24),
    (7.0, 4.183825607779414e-23, 1.889076310043994e-39),
    (12.0, 1.3562611692059042e-64, 4.438689568920817e-81),
    (20.0, 5.395865611607901e-176, -2.4980975484348278e-192),
    (26.0, 5.663192408856143e-296, -3.454309640217e-312),
]


@pytest.mark.parametrize(("name", "table", "limit"), [("erf", ERF, 1), ("erfc", ERFC, 3)])  # erfc: the C library's
def test_error_functions_in_float64(name, table, limit):
    x, high, low = (np.array(column) for column in zip(*table, strict=True))
    result = compiled(name, "float64", full("float64"))(x)
    assert (np.abs((result - high) - low) <= limit * np.spacing(high)).all()


def test_erf_in_float64_agrees_with_scipy():
    x = patterns("float64", 100_000)
    check(compiled("erf", "float64", full("float64"))(x), special.erf(x), 3, x)  # SciPy's own error included


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXACT)
def test_exact_functions_are_numpy_s(name, dtype):
    x = patterns(dtype, 100_000)
    check(compiled(name, dtype, full(dtype))(x), getattr(np, name)(x), 0, x)


def pairs(dtype: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(8)
    grid = np.meshgrid(np.array(SPECIAL).astype(dtype), np.array(SPECIAL).astype(dtype))
    x, y = patterns(dtype, 50_000), patterns(dtype, 50_000)
    small = rng.integers(-20, 20, (2, 20_000)).astype(dtype)
    x, y = np.concatenate([grid[0].ravel(), x, small[0]]), np.concatenate([grid[1].ravel(), y, small[1]])
    y[-30_000:-20_000] = rng.permutation(y[-30_000:-20_000])
    return x, y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two_numbers_are_numpy_s(name, dtype):
    x, y = pairs(dtype)
    if name in ("maximum", "minimum"):  # which zero NumPy takes depends on the processor
        unlike = ~((x == 0) & (y == 0))
        x, y = x[unlike], y[unlike]
    check(compiled(name, dtype, full(dtype), 2)(x, y), getattr(np, name)(x, y), 0, x, y)


def test_of_two_zeros_the_second_is_the_larger_and_the_smaller():
    x, y = np.array([0.0, -0.0]), np.array([-0.0, 0.0])
    for name in ("maximum", "minimum"):
        assert (np.signbit(compiled(name, "float64", 0, 2)(x, y)) == np.signbit(y)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers(dtype):
    x, y = pairs(dtype)
    rng = np.random.default_rng(9)
    near = rng.uniform(0.2, 3, 100_000).astype(dtype)
    x, y = np.concatenate([x, near]), np.concatenate([y, rng.normal(0, 30, near.size).astype(dtype)])
    wider = np.float64 if dtype == "float32" else np.longdouble
    check(compiled("pow", dtype, full(dtype), 2)(x, y), np.power(x.astype(wider), y.astype(wider)), 2, x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*REFERENCES, "fmod", "remainder", "pow"])
def test_scalars_and_shorter_vectors_give_the_same_bits(name, dtype):
    operands = 2 if name in ("fmod", "remainder", "pow") else 1
    x = (patterns(dtype, 20_000), patterns(dtype, 20_000)[::-1])[:operands]
    widest = compiled(name, dtype, full(dtype), operands)(*x)
    for lanes in (0, 2, full(dtype) // 2):
        np.testing.assert_array_equal(compiled(name, dtype, lanes, operands)(*x), widest)


@pytest.mark.skipif(host().vector_bytes != 64, reason="not a processor with AVX-512")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_processors_without_exponent_instructions_give_the_same_bits(name, dtype, monkeypatch):
    avx2 = Target(host().triple, "x86-64-v3", "+avx2,+fma", 32, 16)
    monkeypatch.setattr(exponentials, "host", lambda: avx2)
    x = patterns(dtype, 20_000)
    narrow = compiled(name, dtype, full(dtype) // 2, target=avx2)(x)
    monkeypatch.undo()
    np.testing.assert_array_equal(narrow, compiled(name, dtype, full(dtype))(x))


def test_a_module_holds_each_function_once():
    module = ir.Module()
    vector = ir.VectorType(F32, 16)
    b = ir.IRBuilder(ir.Function(module, ir.FunctionType(vector, [vector]), "f").append_basic_block())
    x = b.function.args[0]
    b.ret(functions.call(b, "exp", functions.call(b, "exp", x)))
    assert [f.name for f in module.functions if f.name.startswith("sg.")] == ["sg.exp.v16f32"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "low", "high"), [
    ("exp", 2.0**-26, 105.0), ("log", 2.0**-149, 3.4e38), ("tanh", 2.0**-13, 10.0),
    ("sigmoid", 2.0**-26, 105.0), ("erf", 2.0**-13, 4.0),
])  # fmt: skip
def test_every_float32_whose_result_is_not_plain(name, low, high):
    """All numbers of both signs between two magnitudes; beyond, the functions are constant, linear or repeat."""
    run = compiled(name, "float32", full("float32"))
    first, last = (int(np.float32(x).view(np.uint32)) for x in (low, high))
    for start in range(first, last, 2**20):
        x = np.arange(start, min(start + 2**20, last), dtype=np.uint32).view(np.float32)
        for signed in (x, -x) if name in ("exp", "sigmoid") else (x,):
            expected = REFERENCES[name](signed.astype(np.float64)).astype(np.float32)
            steps = run(signed).view(np.int32).astype(np.int64) - expected.view(np.int32)
            assert np.abs(steps).max() <= 2
