"""The tensor: a value and the equation that made it, with NumPy's operators and protocols.

No operation is defined here. Operators, methods and NumPy's own functions look up the function of
the same name in `functions` and `numpy_functions`, which the modules under `ops/` fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.errors import AbstractValueError, ShapeError, StepgradError, UnsupportedError

if TYPE_CHECKING:
    from stepgrad.tape.equation import Equation

Array = np.ndarray[Any, np.dtype[Any]]

functions: dict[str, Callable[..., Any]] = {}
"""stepgrad's functions by name: what the operators and methods below call."""

numpy_functions: dict[Any, Callable[..., Any]] = {}
"""NumPy function -> the stepgrad function that means the same on tensors."""


def _operator(name: str) -> tuple[Callable[[Any, Any], Tensor], Callable[[Any, Any], Tensor]]:
    """The methods for an operator with the tensor on its left, and on its right."""

    def left(self: Any, other: Any) -> Tensor:
        return functions[name](self, other)

    def right(self: Any, other: Any) -> Tensor:
        return functions[name](other, self)

    return left, right


class ArrayLike:
    """What reads like an array in user code: NumPy's operators, methods and protocols.

    Abstract. `Tensor` and the cells (`Parameter`, `State`) are its final classes; each says which
    tensor it stands for.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    @property
    def _tensor(self) -> Tensor:
        raise NotImplementedError

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._tensor.equation.type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._tensor.equation.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the full value takes."""
        return self.size * self.dtype.itemsize

    # --- its value

    def numpy(self) -> Array:
        """The value, as a read-only view: writing to it raises NumPy's own error."""
        value = self._tensor.value
        if value is None:
            raise abstract_value(self._tensor, "its value")
        value = np.asarray(value)
        value.setflags(write=False)  # here, because this is the only way out of the engine
        return value.view()  # a view of a read-only array can't be made writeable again

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        functions["check_leaving"](self._tensor, ".item()")
        return self._number()

    def _number(self) -> Any:
        value = self.numpy()
        if value.size != 1:
            raise ShapeError(
                f"{describe(self._tensor)} was to become one Python number",
                f"it has {value.size} elements",
                "pick one, x[0].item(); make one of them, np.sum(x); or print the whole with str(x)",
            )
        return value.item()

    def tolist(self) -> Any:
        functions["check_leaving"](self._tensor, ".tolist()")
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        functions["check_leaving"](self._tensor, "np.asarray")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __float__(self) -> float:
        functions["check_leaving"](self._tensor, "float")
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __bool__(self) -> bool:
        if self._tensor.value is None:
            raise abstract_value(self._tensor, "whether it is true")
        if self.size != 1:
            raise ShapeError(
                f"{describe(self._tensor)} was asked whether it is true",
                f"it has {self.size} elements, each with an answer of its own",
                "say which is meant: np.any(x), np.all(x), x.size > 0; or choose elementwise with sg.where",
            )
        return bool(self._tensor.value)

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __complex__(self) -> complex:
        return complex(float(self))

    def __format__(self, spec: str) -> str:
        return format(self._number(), spec) if spec else str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes: its shape is ()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, item: Any) -> bool:
        return bool(np.any(self.numpy() == (item.numpy() if isinstance(item, ArrayLike) else item)))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise UnsupportedError(
            f"an element of {describe(self._tensor)} was assigned in place",
            "values on the tape are read-only, so that the backward pass sees what the forward pass computed",
            "make a new tensor: sg.where(mask, new, old), or sg.index_add(old, index, new - old[index])",
        )

    def __delitem__(self, index: Any) -> None:
        raise UnsupportedError(
            f"an element of {describe(self._tensor)} was deleted in place",
            "values on the tape are read-only, so that the backward pass sees what the forward pass computed",
            "make a new tensor of what stays: x[keep], with a mask, or sg.concatenate([x[:i], x[i + 1 :]])",
        )

    # --- operators

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("subtract")
    __mul__, __rmul__ = _operator("multiply")
    __truediv__, __rtruediv__ = _operator("divide")
    __floordiv__, __rfloordiv__ = _operator("floor_divide")
    __mod__, __rmod__ = _operator("remainder")
    __pow__, __rpow__ = _operator("power")
    __matmul__, __rmatmul__ = _operator("matmul")
    __and__, __rand__ = _operator("bitwise_and")
    __or__, __ror__ = _operator("bitwise_or")
    __xor__, __rxor__ = _operator("bitwise_xor")
    __eq__, __ne__ = _operator("equal")[0], _operator("not_equal")[0]  # type: ignore[assignment]
    __lt__, __le__ = _operator("less")[0], _operator("less_equal")[0]
    __gt__, __ge__ = _operator("greater")[0], _operator("greater_equal")[0]

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return functions["divmod"](self, other)

    def __neg__(self) -> Tensor:
        return functions["negative"](self)

    def __pos__(self) -> Tensor:
        return functions["positive"](self)

    def __abs__(self) -> Tensor:
        return functions["absolute"](self)

    def __invert__(self) -> Tensor:
        return functions["invert"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return functions["getitem"](self, index)

    def __round__(self, ndigits: int = 0) -> Tensor:
        return functions["round"](self, ndigits)

    # --- methods of ndarray: the function of the same name, with the tensor as its first argument

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        return functions["transpose"](self)

    @property
    def mT(self) -> Tensor:  # noqa: N802 - NumPy's name
        return functions["matrix_transpose"](self)

    def reshape(self, *shape: Any) -> Tensor:
        return functions["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return functions["transpose"](self, (axes[0] if len(axes) == 1 else axes) or None)

    def compress(self, condition: Any, axis: int | None = None) -> Tensor:
        return functions["compress"](condition, self, axis)

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS and name in functions:
            function = functions[name]
            return lambda *args, **kwargs: function(self, *args, **kwargs)
        if name in _IN_PLACE:
            raise UnsupportedError(
                f"{describe(self._tensor)} was asked for .{name}, which changes an array in place",
                "values on the tape are read-only, so that the backward pass sees what the forward pass computed",
                f"use a function that returns a new tensor, or work on a copy: tensor.numpy().copy().{name}(...)",
            )
        hint = _ELSEWHERE.get(name)
        raise AttributeError(f"a {type(self).__name__} has no attribute {name!r}" + (f": write {hint}" if hint else ""))

    # --- NumPy's protocols: np.exp(tensor), np.sum(tensor), …

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        called = ufunc if method == "__call__" else (ufunc, method)
        function = numpy_functions.get(called) or functions["counterpart"](called)
        if function is not None and not settings:
            return function(*inputs)
        if function is None:
            call = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            raise unsupported_function(call, self._tensor)
        return _call_for_numpy(function, f"np.{ufunc.__name__}", inputs, settings)

    def __array_function__(self, function: Any, types: Any, args: Any, settings: Any) -> Any:
        ours = numpy_functions.get(function) or functions["counterpart"](function)
        if ours is None:
            raise unsupported_function(f"{function.__module__}.{function.__name__}", self._tensor)
        return _call_for_numpy(ours, f"np.{function.__name__}", args, settings)


class Tensor(ArrayLike):
    """An n-dimensional array that the tape knows. Make one with `sg.tensor`.

    Attributes:
        value: the array, for the engine; None while recording abstractly (only shape and dtype known).
            Users get it from `numpy()`, read-only.
        equation: the equation that made it. It and the tensor are the same thing to the tape, which
            keeps the equation and lets go of the value unless the backward pass will read it.
    """

    __slots__ = ("__weakref__", "equation", "value")

    def __init__(self, value: Any, equation: Equation) -> None:
        self.value = value
        self.equation = equation

    @property
    def _tensor(self) -> Tensor:
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.equation.type.shape

    @property
    def ndim(self) -> int:
        return len(self.equation.type.shape)

    @property
    def name(self) -> str | None:
        """The user's name for it, or None."""
        return self.equation.name

    def __repr__(self) -> str:
        return describe_value("tensor", self)

    def __copy__(self) -> Tensor:
        return self  # nothing in it ever changes

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self

    def __reduce__(self) -> Any:
        """Pickled are the value and the name; how it was computed is not."""
        return _unpickled, (self.numpy(), self.name)


def _unpickled(value: Array, name: str | None) -> Tensor:
    return functions["tensor"](value, name=name)


def describe(tensor: Tensor) -> str:
    """`W1 (4, 3) float32`: how messages speak of a tensor."""
    name = functions["variable_name"](tensor) or "a tensor"
    return f"{name} {tensor.shape} {tensor.dtype}"


def describe_value(kind: str, tensor: Tensor) -> str:
    """The repr of a tensor or cell: NumPy's own print of the value, with dtype, shape and name."""
    extras = [f"dtype={tensor.dtype}"]
    if tensor.equation.name:
        extras.append(f"name={tensor.equation.name!r}")
    if tensor.value is None:
        return f"{kind}(shape={tensor.shape}, {', '.join(extras)}, abstract)"
    value = np.array2string(np.asarray(tensor.value), separator=", ", prefix=f"{kind}(", threshold=200)
    return f"{kind}({value}, {', '.join(extras)})"


def abstract_value(tensor: Tensor, asked: str) -> StepgradError:
    """The error for reading a value where only shape and dtype are known."""
    return AbstractValueError(
        f"{describe(tensor)} was asked for {asked} while a function is being recorded abstractly",
        "only shapes and dtypes are known then; Python cannot branch on, print or convert a value",
        "use sg.where(condition, a, b) for a choice, return the tensor to see its value, or move the decision outside",
    )


def unsupported_function(name: str, tensor: Tensor) -> StepgradError:
    """The error for a NumPy function that has no counterpart."""
    return UnsupportedError(
        f"{name} was called on {describe(tensor)}",
        "stepgrad has no local rule for it, so its gradient is not known",
        _ALTERNATIVES.get(name, "write it with functions that stepgrad has, or give it a rule with "
                          "sg.custom_rule; if no gradient is wanted, call it on tensor.numpy()"),
    )  # fmt: skip


def _call_for_numpy(function: Callable[..., Any], name: str, args: Any, settings: dict[str, Any]) -> Any:
    out = settings.pop("out", None)
    if out is not None and any(o is not None for o in (out if isinstance(out, tuple) else (out,))):
        raise UnsupportedError(
            f"{name} was called with out=",
            "it would write into an array behind the tape's back",
            f"drop it, and use the value that {name} returns",
        )
    return function(*args, **settings)


_METHODS = frozenset(
    "all any argmax argmin argsort astype clip cumprod cumsum copy diagonal dot flatten max mean min prod "
    "ravel repeat round sort squeeze std sum swapaxes take trace var".split()
)
_IN_PLACE = frozenset("fill itemset partition put resize setfield setflags byteswap".split())
_ELSEWHERE = {
    "backward": "gradients = sg.backward(loss, parameters)",
    "cpu": "the tensor as it is: it is in the computer's memory",
    "data": "x.numpy()",
    "detach": "sg.stop_gradient(x)",
    "flat": "x.ravel()",
    "grad": "gradients = sg.backward(loss, parameters), which returns them",
    "numel": "x.size",
    "permute": "x.transpose(…)",
    "requires_grad": "sg.Parameter(x) for what is trained; any tensor can be differentiated",
    "to": "x.astype(dtype)",
    "unsqueeze": "sg.expand_dims(x, axis)",
    "view": "x.reshape(…)",
    "zero_grad": "nothing: gradients are returned, and nothing accumulates",
}
"""Attributes of other libraries' tensors -> what to write here."""
_ALTERNATIVES = {
    "numpy.copyto": "make a new tensor with sg.where(mask, new, old)",
    "numpy.put": "use sg.index_add, which returns a new tensor",
    "np.add.at": "use sg.index_add(a, index, values), which returns a new tensor",
    "numpy.fft": "write the transform as a product with a constant matrix",
}
