"""Containers: modules made of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, overload

from stepgrad.errors import ArgumentError
from stepgrad.nn.module import Module


class Sequential(Module):
    """Layers one after the other, named by their position: "0.weight", "2.weight", …

    Args:
        layers: modules, or other functions of one tensor such as `sg.relu`.

    Example:
        >>> model = sg.nn.Sequential(sg.nn.Linear(64, 128), sg.nn.ReLU(), sg.nn.Linear(128, 10))
        >>> model
        Sequential()                                                                     9,610 parameters
        ├─ 0 Linear(in_features=64, out_features=128)   weight (64, 128) · bias (128,)   8,320
        ├─ 1 ReLU()
        └─ 2 Linear(in_features=128, out_features=10)   weight (128, 10) · bias (10,)    1,290
        >>> len(model), model[0].weight.name
        (3, '0.weight')
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for i, layer in enumerate(layers):
            if isinstance(layer, type):
                raise ArgumentError(
                    f"Sequential was given the class {layer.__name__} as layer {i}",
                    "a class is not yet a layer",
                    f"call it: {layer.__name__}()",
                )
            if not callable(layer):
                raise ArgumentError(
                    f"Sequential was given a {type(layer).__name__} as layer {i}",
                    "a layer is a module, or a function of one tensor",
                    "pass the layers one by one: Sequential(*layers)",
                )
        self.layers = list(layers)
        self._name_parts()

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def _parts(self) -> Iterator[tuple[str, Any]]:
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Any:
        """A layer; or, for a slice, those layers as a Sequential of their own, with the same parameters."""
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]
