"""Shape and layout: products and sums in another arrangement."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import Place, places
from benchmarks.mistakes.planting.mutant import Edit, rewriting


@dataclass(frozen=True)
class Product:
    """A product of matrices, however it is written."""

    node: ast.expr
    left: ast.expr
    right: ast.expr
    again: Callable[[ast.expr, ast.expr], ast.expr]


def products(expression: ast.expr) -> Iterator[Product]:
    """The products of matrices in an expression: `a @ b`, `np.dot(a, b)`, `a.dot(b)`."""
    for node in ast.walk(expression):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield Product(node, node.left, node.right, lambda a, b: ast.BinOp(a, ast.MatMult(), b))
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("dot", "matmul")
        ):
            if len(node.args) == 2:
                call = node
                yield Product(node, *node.args, lambda a, b, call=call: ast.Call(call.func, [a, b], []))
            elif len(node.args) == 1:
                yield Product(
                    node,
                    node.func.value,
                    node.args[0],
                    lambda a, b: ast.Call(ast.Attribute(a, "dot", ast.Load()), [b], []),
                )


def untransposed(node: ast.expr) -> ast.expr | None:
    """What an expression is the transpose of, if it says so."""
    if isinstance(node, ast.Attribute) and node.attr == "T":
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "transpose":
        return node.func.value if not node.args else None
    return None


def transpose(node: ast.expr) -> ast.expr:
    inner = untransposed(node)
    return inner if inner is not None else ast.Attribute(node, "T", ast.Load())


def edits(network: Network) -> Iterator[Edit]:
    for place in places(network):
        yield from _of_products(network, place)
        yield from _of_sums(network, place)


def _of_products(network: Network, place: Place) -> Iterator[Edit]:
    for product in products(place.value):
        turned = product.again(transpose(product.right), transpose(product.left))
        yield _rewritten(network, "transposed", place, product.node, turned)
        times = ast.BinOp(product.left, ast.Mult(), product.right)
        yield _rewritten(network, "elementwise-for-matmul", place, product.node, times)
        for operand in (product.left, product.right):
            inner = untransposed(operand)
            if inner is None:
                continue
            weights = ast.unparse(inner) in network.get("WEIGHTS")
            yield _rewritten(network, "weights-not-transposed" if weights else "transposed", place, operand, inner)


def _rewritten(network: Network, mistake: str, place: Place, old: ast.AST, new: ast.AST) -> Edit:
    return rewriting(network, mistake, (place.statement, place.replaced(old, new)))


def sums(expression: ast.expr) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Sums and means in an expression, each with what is summed."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean"):
            whole = isinstance(node.func.value, ast.Name) and node.func.value.id == "np"
            yield node, node.args[0] if whole else node.func.value


def _of_sums(network: Network, place: Place) -> Iterator[Edit]:
    bias, broadcast = place.target in network.get("BIASES"), place.target in network.get("BROADCAST")
    for node, summed in sums(place.value):
        if bias or broadcast:
            mistake = "bias-not-summed" if bias else "broadcast-not-undone"
            yield _rewritten(network, mistake, place, node, summed)
        if bias:
            yield from _other_axis(network, place, node)
            yield _rewritten(network, "bias-summed-to-scalar", place, node, _without(node, "axis", "keepdims"))
        if any(keyword.arg == "keepdims" for keyword in node.keywords):
            yield _rewritten(network, "keepdims-lost", place, node, _without(node, "keepdims"))


def _other_axis(network: Network, place: Place, node: ast.Call) -> Iterator[Edit]:
    for constant in ast.walk(node):
        if isinstance(constant, ast.Constant) and constant.value in (0, 1) and not isinstance(constant.value, bool):
            other = ast.Constant(1 - constant.value)
            yield _rewritten(network, "bias-wrong-axis", place, constant, other)


def _without(node: ast.Call, *names: str) -> ast.Call:
    """A call of a sum without some of its arguments."""
    call = copy.deepcopy(node)
    call.keywords = [keyword for keyword in call.keywords if keyword.arg not in names]
    whole = (
        isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.func.value.id == "np"
    )
    if "axis" in names:
        call.args = call.args[:1] if whole else []
    return call
