"""Cells: state that outlives a step. Parameters are trained; everything else is State."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.buffers import Buffer, Guard
from stepgrad.errors import DtypeError, ShapeError, UnsupportedError
from stepgrad.tape.equation import CELL, Equation, Role
from stepgrad.tape.leaves import as_tensor, read_only_copy
from stepgrad.tape.op import Op, TensorType, type_of
from stepgrad.tape.recording import RECORDING, record, recording
from stepgrad.tensor import Array, ArrayLike, Tensor, describe, describe_value, functions


class Cell(ArrayLike):
    """A place that holds a value from step to step, with an identity of its own. Abstract.

    Reading a cell gives the tensor it holds; `assign` puts another there, of the same shape and
    dtype, and is on the tape as an update equation.

    Compiled programs read and write cells in place, in buffers (see `bind`).
    """

    __slots__ = ("__weakref__", "_buffer", "_leaf", "_name", "_value")
    kind = "cell"
    is_trained = False

    def __init__(self, value: Any, dtype: Any = None, *, name: str | None = None) -> None:
        if isinstance(value, ArrayLike):
            functions["check_leaving"](value._tensor, f"sg.{type(self).__name__}")
        array = read_only_copy(
            value.numpy() if isinstance(value, ArrayLike) else value, dtype or self._default_dtype(value)
        )
        self._name = name
        self._check(array.dtype)
        self._buffer: Buffer | None = None
        self._value = array  # once there is a buffer, that is where the value is
        self._leaf: Tensor | None = None

    @staticmethod
    def _default_dtype(value: Any) -> Any:
        return None

    def _check(self, dtype: np.dtype[Any]) -> None:
        """Raises DtypeError for a dtype that this kind of cell does not hold."""

    def _hold(self, array: Array) -> None:
        """Puts an array that nobody will write to into the cell, unchecked."""
        if self._buffer is None:
            self._value = array
        else:
            self._buffer.fill(array)
        self._leaf = None

    @property
    def _array(self) -> Array:
        """Its value, in an array that nobody writes to."""
        return self._value if self._buffer is None else self._buffer.snapshot()

    def bind(self) -> Array:
        """The buffer in which compiled programs read and write the value in place.

        Made at the first call, and the cell's own from then on: C-contiguous, writable, its address
        a multiple of 64. Whoever writes to it holds the `guard` and counts `stepgrad.buffers.changes` up.
        """
        return self._bound().array

    @property
    def guard(self) -> Guard:
        """What whoever uses the buffer holds."""
        return self._bound().guard

    def _bound(self) -> Buffer:
        if self._buffer is None:
            self._buffer = Buffer(self._value)
            self._value = self._buffer.array  # for shape and dtype
        return self._buffer

    @property
    def _tensor(self) -> Tensor:
        leaf = self._leaf
        cells: AbstractCells | None = RECORDING.get().cells
        if cells is not None:
            return cells.read(self)
        if leaf is not None and self._buffer is None:
            return leaf
        array = self._array
        if leaf is None or leaf.value is not array:  # made when first read: an optimizer's moments may never be
            leaf = self._leaf = self._new_leaf(array)
        return leaf

    def _new_leaf(self, value: Array | None) -> Tensor:
        kind = type_of(self._value.shape, self._value.dtype)
        equation = Equation(CELL, (), {"cell": self}, kind, self.is_trained)
        equation.name = self._name
        equation.value = value
        return Tensor(value, equation)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._value.dtype

    @property
    def name(self) -> str | None:
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        self._name = name
        cells: AbstractCells | None = RECORDING.get().cells
        leaf = self._leaf if cells is None else cells.leaves.get(self)
        if leaf is not None:
            leaf.equation.name = name

    def assign(self, new: Any) -> None:
        """Puts another value into the cell.

        Args:
            new: a tensor or array of the cell's shape and dtype.

        Raises:
            ShapeError, DtypeError: it has another shape or dtype; the cell keeps its value.
        """
        tensor = as_tensor(new)  # copies an array; a tensor's value nobody can change
        if tensor.shape != self.shape:
            raise ShapeError(
                f"{self.kind} {self._name or ''} {self.shape} was assigned {describe(tensor)}",
                "a cell keeps its shape",
                "assign a value of the same shape; if a gradient is (in, out) and the weight (out, in), transpose it",
            )
        weak = tensor.equation.type.weak and np.can_cast(tensor.dtype.type, self.dtype, "same_kind")
        if tensor.dtype != self.dtype and not weak:
            raise DtypeError(
                f"{self.kind} {self._name or ''} {self.dtype} was assigned {describe(tensor)}",
                "a cell keeps its dtype, so that a float32 network does not turn into float64 unnoticed",
                f"convert the value: new.astype(np.{self.dtype})",
            )
        state = RECORDING.get()
        if state.equations is not None:
            with recording(role=Role.UPDATE, of=None, operand=None):
                tensor = record(ASSIGN, (self._tensor, tensor), {})
            if state.cells is not None:
                state.cells.write(self, tensor.equation)
                return
        if tensor.value is None:
            raise UnsupportedError(
                f"{self.kind} {self._name or ''} was assigned a tensor without a value",
                "the function is being recorded abstractly",
                "assign inside a function that is recorded with values, or compile it",
            )
        self._hold(np.asarray(tensor.value, self.dtype))

    def __repr__(self) -> str:
        return describe_value(self.kind, self._tensor)

    def __deepcopy__(self, memo: Any) -> Cell:
        return type(self)(self.numpy(), name=self._name)

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.numpy(), self._name)


class Parameter(Cell):
    """A cell that is trained: gradients are taken with respect to it.

    Args:
        value: its initial value; copied. Python numbers and lists become float32.
        dtype: the dtype to convert to.
        name: what printing and messages call it; modules name theirs by path, such as "0.weight".

    Example:
        >>> W = sg.Parameter([[1.0, 2.0]], name="W")
        >>> sg.backward((W * 3).sum(), W)
        tensor([[3., 3.]], dtype=float32, name='dW')
    """

    __slots__ = ()
    kind = "parameter"
    is_trained = True

    @staticmethod
    def _default_dtype(value: Any) -> Any:
        return None if isinstance(value, (np.ndarray, np.generic, ArrayLike)) else np.float32

    def _check(self, dtype: np.dtype[Any]) -> None:
        if dtype.kind not in "fc":
            raise DtypeError(
                f"a parameter {self._name or ''} was made from {dtype} numbers",
                "parameters are changed in small steps, so they have to be floating-point",
                "use sg.State for counts and keys, or convert: value.astype(np.float32)",
            )


class State(Cell):
    """A cell that is not trained: moments, running statistics, a step count, a learning rate, a key.

    Example:
        >>> steps = sg.State(0)
        >>> steps.assign(steps + 1)
        >>> steps
        state(1, dtype=int64)
    """

    __slots__ = ()
    kind = "state"


class AbstractCells:
    """What a function that is being recorded abstractly has made of cells. The cells themselves keep their values.

    As in eager execution, reading a cell that was assigned to gives a new leaf, so that no gradient
    flows into the update; when the tape is made, the ASSIGN equation takes the leaf's place.

    Attributes:
        leaves: cell -> what reading it gives at the moment, without a value.
        assigned: leaf -> the ASSIGN equation whose output it stands for.
        written: cell -> the last ASSIGN equation.
    """

    __slots__ = ("assigned", "leaves", "written")

    def __init__(self) -> None:
        self.leaves: dict[Cell, Tensor] = {}
        self.assigned: dict[Equation, Equation] = {}
        self.written: dict[Cell, Equation] = {}

    def read(self, cell: Cell) -> Tensor:
        found = self.leaves.get(cell)
        if found is None:
            found = self.leaves[cell] = cell._new_leaf(None)
        return found

    def write(self, cell: Cell, equation: Equation) -> None:
        leaf = self.leaves[cell] = cell._new_leaf(None)
        self.assigned[leaf.equation] = equation
        self.written[cell] = equation


def _rebuild(kind: type[Cell], value: Array, name: str | None) -> Cell:
    return kind(value, name=name)


def _assign_shape(cell: TensorType, new: TensorType) -> tuple[int, ...]:
    return cell.shape


def _assign_dtype(cell: TensorType, new: TensorType) -> np.dtype[Any]:
    return cell.dtype


ASSIGN = Op(
    "assign",
    shape=_assign_shape,
    dtype=_assign_dtype,
    numpy=lambda cell, new: new,
    rules=(None, None),
    text="{1}",
    samples=(),
    doc="Puts a value into a cell; the first operand is the cell's value until then.",
)


def cell_of(equation: Equation) -> Cell:
    """The cell that a CELL leaf or an ASSIGN equation is about."""
    while equation.op is not CELL:
        equation = equation.inputs[0]
    return equation.params["cell"]
