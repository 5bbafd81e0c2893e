# SPDX-License-Identifier: Apache-2.0
"""What a graph may ask of the machine, known before anything runs it.

    check_size(model)          # PackageOpError: a shape that nobody can know; PackageSizeError: too much

A few bytes of graph can ask for gigabytes: a constant of any size, or a number that is expanded. So the
shapes of **all** values are inferred at the two batches that the loader ever runs (`BATCHES`). A shape that
cannot be inferred refuses: it would depend on the observation, and whoever sends one would choose it. Then
- all values together, weights and what operators give, are at most `limits.PACKAGE_VALUES`: a runtime that
  never reuses memory and folds every constant has room for them;
- the multiplications of all matrix products of one inference are at most `limits.PACKAGE_PRODUCTS`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import onnx

from client.deploy.errors import PackageOpError, PackageSizeError
from policies.limits import PACKAGE_PRODUCTS, PACKAGE_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BATCHES", "check_size"]

Shapes = dict[str, tuple[int, ...]]
BATCHES: Final = (1, 8)
_PRODUCTS: Final = frozenset({"MatMul", "Gemm"})
_REMEDY: Final = "get the package again from whoever made it; it never runs like this"
# what the library throws about graphs that contradict themselves
_INFERENCE: Final = (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError)


def check_size(model: Any) -> None:  # noqa: ANN401  protobuf has no types of its own
    """Refuses a graph that asks for too much, or for nobody knows how much.

    Args:
        model: ``onnx.ModelProto`` with all weights inside, its ports checked.

    Raises:
        PackageOpError: A shape that does not follow from the graph.
        PackageSizeError: More values or products than a package may have.
    """
    for batch in BATCHES:
        shapes = _shapes(model, batch)
        values = sum(math.prod(one) for one in shapes.values())
        products = sum(_products(node, shapes) for node in model.graph.node) // batch
        if values > PACKAGE_VALUES or products > PACKAGE_PRODUCTS:
            raise PackageSizeError(
                need=f"at most {PACKAGE_VALUES} values at batch {BATCHES[-1]}, {PACKAGE_PRODUCTS} products",
                found=f"{values} values at batch {batch}, {products} products",
                remedy=_REMEDY,
            )


def _shapes(model: Any, batch: int) -> Shapes:  # noqa: ANN401  likewise
    """Shapes of all weights, ports and values between operators at a batch."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for port in (*fixed.graph.input, *fixed.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = batch
    try:
        found = onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    except _INFERENCE as error:
        raise _unknown(str(error)) from error
    shapes: Shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    for one in (*found.graph.value_info, *found.graph.input, *found.graph.output):
        kind = one.type.tensor_type
        if kind.HasField("shape") and all(axis.HasField("dim_value") for axis in kind.shape.dim):
            shapes[one.name] = tuple(axis.dim_value for axis in kind.shape.dim)
    for node in model.graph.node:
        for name in node.output:
            if name and any(axis < 0 for axis in shapes.get(name, (-1,))):
                raise _unknown(f"the values of {node.op_type} {name}")
    return shapes


def _products(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ANN401  likewise
    """Multiplications of a matrix product, at most; 0 for other operators."""
    if node.op_type not in _PRODUCTS:
        return 0
    inner = max(shapes.get(node.input[0], ())[-2:], default=1)
    return math.prod(shapes[node.output[0]]) * inner


def _unknown(found: str) -> PackageOpError:
    first = (found.splitlines() or [""])[0]
    return PackageOpError(
        need="shapes that follow from the graph", found=ascii(first)[1:-1][:160], remedy=_REMEDY
    )
