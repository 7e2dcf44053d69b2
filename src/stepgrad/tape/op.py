"""Ops: what one kind of equation means, in one paragraph each (see `stepgrad.ops`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.errors import DtypeError, ShapeError, UnsupportedError
from stepgrad.tensor import Tensor, functions

Shape = tuple[int, ...]
Rule = Callable[..., Any]
"""A local rule: (downstream gradient, output, *inputs, **params) -> upstream gradient of one operand."""


class TensorType:
    """The shape and dtype of a tensor: all that is known of it while recording abstractly.

    Types are interned by `type_of`: the same shape and dtype give the same object, so comparing and
    hashing them is as cheap as comparing addresses. `weak` marks the type of a Python number, which
    takes the dtype of what it meets (NumPy 2's rule).
    """

    __slots__ = ("dtype", "is_float", "shape", "weak")

    def __init__(self, shape: Shape, dtype: np.dtype[Any], weak: bool) -> None:
        self.shape, self.dtype, self.weak = shape, dtype, weak
        self.is_float = dtype.kind in "fc"

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]" + ("~" if self.weak else "")


_types: dict[tuple[Shape, np.dtype[Any], bool], TensorType] = {}
_MOST_INTERNED = 20_000


def type_of(shape: Shape, dtype: np.dtype[Any], weak: bool = False) -> TensorType:
    """The one TensorType object of this shape and dtype."""
    found = _types.get((shape, dtype, weak))
    if found is None:
        if len(_types) >= _MOST_INTERNED:
            _types.clear()
        found = _types[shape, dtype, weak] = TensorType(shape, dtype, weak)
    return found


class Signature:
    """What is known of an op before any value is: for inputs of these types and these params.

    Attributes:
        type: the type of the output.
        flows: the positions of the operands that have a local rule.
        reads: for each operand, which values its local rule reads: positions of inputs, with
            `OUTPUT` for the output. Found by recording the rule abstractly (`cache.reads_of`), at
            the first equation that asks; None until then.
    """

    __slots__ = ("flows", "reads", "type")

    def __init__(self, type: TensorType, flows: tuple[int, ...]) -> None:
        self.type, self.flows = type, flows
        self.reads: tuple[tuple[int, ...], ...] | None = None


OUTPUT = -1
"""Stands for the output among the positions in `Signature.reads`."""


class Op:
    """One kind of operation, with everything that is known about it.

    Calling an op records an equation: operands are positional, settings are keywords.

    Args:
        name: its name, NumPy's where NumPy has it.
        shape: infers the shape of the output from the types of the inputs and the params, or raises
            ShapeError.
        numpy: the reference meaning, on arrays.
        rules: one local rule per operand, None where no gradient flows; or, for any number of
            operands, a function from the operand's position to its rule.
        text: how it reads as NumPy, with {0}, {1}, … for the operands and {name} for params; or a
            function (operand texts, params, equation) -> text.
        samples: tuples of `Sample`s, one for each operand, and perhaps a dict of params at the end:
            its test domain.
        dtype: infers the dtype of the output from the types of the inputs and the params; by default
            NumPy's promotion.
        elementwise: each element of the output depends on the same element of each input only.
        prepare: turns the operands of a call into those that are recorded (broadcasting, promotion).
        analytic: its NumPy meaning is an analytic function, so the complex step applies.
        cost: floating-point operations of one equation (input types, output type, params); by
            default one for each element of the output if elementwise, and none otherwise.
        doc: what `help` shows.
    """

    def __init__(
        self,
        name: str,
        *,
        shape: Callable[..., Shape],
        numpy: Callable[..., Any],
        rules: Sequence[Rule | None] | Callable[[int], Rule | None],
        text: str | Callable[..., str],
        samples: Sequence[tuple[Any, ...]],
        dtype: Callable[..., np.dtype[Any]] | None = None,
        elementwise: bool = False,
        prepare: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None,
        analytic: bool = False,
        cost: Callable[..., float] | None = None,
        doc: str = "",
    ) -> None:
        self.name, self.shape, self.numpy, self.rules, self.text = name, shape, numpy, rules, text
        self.samples, self.dtype, self.elementwise, self.prepare = (
            samples,
            dtype or promoted_dtype,
            elementwise,
            prepare,
        )
        self.analytic, self.cost = analytic, cost
        self.signatures: dict[Any, Signature] = {}
        self.__name__, self.__doc__ = name, doc or None

    def __call__(self, *operands: Any, **params: Any) -> Tensor:
        for x in operands:
            if type(x) is not Tensor:
                operands = tuple(map(functions["as_tensor"], operands))
                break
        if self.prepare is not None:
            operands = self.prepare(operands)
        return functions["record"](self, operands, params)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def rule(self, operand: int) -> Rule | None:
        """The local rule of one operand, or None where no gradient flows."""
        if callable(self.rules):
            return self.rules(operand)
        return self.rules[operand] if operand < len(self.rules) else None

    def signature(self, types: tuple[TensorType, ...], params: Mapping[str, Any]) -> Signature:
        """Shape and dtype inference, remembered for types and params seen before."""
        key = (types, *params.items()) if params else types
        try:
            return self.signatures[key]
        except KeyError:
            if len(self.signatures) >= _MOST_SIGNATURES:
                self.signatures.clear()
            signature = self.signatures[key] = self._infer(types, params)
            return signature
        except TypeError:  # a param that can't be hashed
            return self._infer(types, params)

    def _infer(self, types: tuple[TensorType, ...], params: Mapping[str, Any]) -> Signature:
        if not callable(self.rules) and len(types) != len(self.rules):  # NumPy would write into one too many
            raise UnsupportedError(
                f"it was called with {len(types)} operands",
                f"{self.name} has {len(self.rules)}; there is no out= to write the result to",
                "pass as many as it has, settings as keywords, and use the value that is returned",
            )
        weak = self.elementwise and "dtype" not in params and all(t.weak for t in types)
        type = type_of(tuple(self.shape(*types, **params)), self.dtype(*types, **params), weak)
        flows = range(len(types)) if type.is_float else ()
        return Signature(
            type, tuple(i for i in flows if self.rule(i) is not None and types[i].is_float and not types[i].weak)
        )


_MOST_SIGNATURES = 2_000


def promoted_dtype(*types: TensorType, **params: Any) -> np.dtype[Any]:
    """NumPy's promotion, in which a Python number takes the dtype of what it meets."""
    return np.result_type(*[_WEAK[t.dtype.kind] if t.weak else t.dtype for t in types])


def float_dtype(*types: TensorType, **params: Any) -> np.dtype[Any]:
    """The dtype of functions such as exp, whose result is floating whatever goes in."""
    dtype = promoted_dtype(*types)
    return dtype if dtype.kind in "fc" else np.exp(np.zeros((), dtype)).dtype  # NumPy's own choice


def bool_dtype(*types: TensorType, **params: Any) -> np.dtype[Any]:
    return np.dtype(np.bool_)


def same_shape(*types: TensorType, **params: Any) -> Shape:
    """The shape of an elementwise op: that of its inputs, which agree (Python numbers fit any)."""
    shape: Shape = ()
    for t in types:
        if t.weak or t.shape == shape:
            continue
        if shape:
            raise ShapeError(
                "an elementwise op got operands of shapes " + " and ".join(str(t.shape) for t in types),
                "its operands have to have one shape by then; broadcasting is an equation of its own (expand)",
                "let the op prepare its operands with ops.expanding.broadcast",
            )
        shape = t.shape
    return shape


_WEAK: dict[str, Any] = {"f": 0.0, "i": 0, "b": False, "c": 0j}


def check_float(operation: str, *types: TensorType) -> None:
    """Raises DtypeError unless every type is floating."""
    for t in types:
        if not t.is_float:
            raise DtypeError(
                f"{operation} got {t.dtype} numbers of shape {t.shape}",
                f"{operation} is defined on floating-point numbers",
                "convert first: x.astype(np.float32)",
            )
