# SPDX-License-Identifier: Apache-2.0
"""The graph of a package, checked before anything runs it: known operators, weights inside, ports as told.

    model = check_graph(graph, weights, observation=10, chunk=(8, 4), opset=20)   # ready for a session

Checks, in this order:
1. it is an ONNX model within its bounds, of the default domain and of `OPSET` alone;
2. nothing is in it but what `client.deploy.graph_form` names: no functions, no sub-graphs, no sparse weights;
3. every operator is on `OPERATORS`, which are those that `client.learning.export` writes: arithmetic, no
   control flow, no randomness, no memory;
4. weights are inside, or in ``model.onnx.data`` of the package, within its bounds; no other place is ever
   opened: they are copied in from the member's bytes, and after that nothing at any depth names a place;
5. one input ``observation`` ``[batch, n]``; outputs ``action_chunk`` ``[batch, H, a]`` and ``clipped_share``
   ``[batch]``; all float32, the batch free;
6. the full check of the ONNX library, with types and shapes of every value;
7. memory and work are bounded (`client.deploy.graph_size`).

What a session gets is written anew from what was checked.

The second output is the share of features that lie beyond the recipe's clip: the guard against strange
observations needs what only the graph can see.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import onnx

from client.deploy.errors import PackageOpError, PackageSizeError, PackageWeightsError
from client.deploy.graph_form import check_form, check_inside
from client.deploy.graph_size import check_size
from policies.limits import PACKAGE_GRAPH_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["INPUT", "OPERATORS", "OPSET", "OUTPUTS", "WEIGHTS", "Exported", "check_graph"]

INPUT: Final = "observation"
OUTPUTS: Final = ("action_chunk", "clipped_share")
WEIGHTS: Final = "model.onnx.data"
OPSET: Final = 20
OPERATORS: Final = frozenset(
    [
        "Abs", "Add", "Cast", "Clip", "Concat", "Cos", "Expand", "Gather", "Gemm", "Greater",
        "LayerNormalization", "MatMul", "Max", "Min", "Mul", "ReduceMean", "Relu", "Reshape", "Shape",
        "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
    ]
)  # fmt: skip
_FLOAT: Final = 1
# protobuf comes with onnx and has no types of its own
_DecodeError: Final[type[Exception]] = importlib.import_module("google.protobuf.message").DecodeError
# what the library throws about graphs that contradict themselves
_CHECKS: Final = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    ValueError,
    RuntimeError,
    TypeError,
)
_REMEDY: Final = "get the package again from whoever made it; it never runs like this"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A graph as `client.learning.export` gives it: checked, and its answer to the example.

    Attributes:
        graph: Bytes of ``model.onnx``.
        opset: Of the default domain.
        chunk: ``[H, a]`` float64, by numpy.
    """

    graph: bytes
    opset: int
    chunk: npt.NDArray[np.float64]


def _refuse(need: str, found: str) -> PackageOpError:
    return PackageOpError(need=need, found=ascii(found)[1:-1][:160], remedy=_REMEDY)


def check_graph(
    graph: bytes | memoryview,
    weights: bytes | memoryview | None,
    *,
    observation: int,
    chunk: tuple[int, int],
    opset: int,
) -> bytes:
    """Bytes for a session: the graph with all weights inside, once it holds; see the module for the steps.

    Args:
        graph: ``model.onnx``.
        weights: ``model.onnx.data``, where the package has it.
        observation: Values of one raw observation.
        chunk: H and a.
        opset: As the manifest says.

    Raises:
        PackageOpError: Steps 1, 2, 3, 5, 6 and 7.
        PackageWeightsError: Step 4, and weights that are not as many as their shape says.
        PackageSizeError: Steps 1, 2 and 7.
    """
    _check_bytes(len(graph) + len(weights or b""))  # 1.
    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(graph))
    except _DecodeError as error:
        raise _refuse("an ONNX model", "other bytes") from error
    domains = [(one.domain, one.version) for one in model.opset_import]
    if domains != [("", opset)] or opset != OPSET:
        raise _refuse(f"the default domain at opset {OPSET}, as the manifest says", f"{domains}")
    check_form(model)  # 2.
    _check_operators(model)  # 3.
    _take_in(model, weights)  # 4.
    _check_ports(model, observation, chunk)  # 5.
    try:
        onnx.checker.check_model(model, full_check=True)  # 6.
    except _CHECKS as error:
        raise _refuse("a graph that the ONNX checker passes", (str(error).splitlines() or [""])[0]) from error
    check_size(model)  # 7.
    checked: bytes = model.SerializeToString(deterministic=True)
    return checked


def _check_bytes(size: int) -> None:
    if size > PACKAGE_GRAPH_BYTES:
        raise PackageSizeError(
            need=f"graph and weights of at most {PACKAGE_GRAPH_BYTES} bytes",
            found=f"{size} bytes",
            remedy=_REMEDY,
        )


def _check_operators(model: Any) -> None:  # noqa: ANN401  the library's own type
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            raise _refuse("operators of the list in client/deploy/graphs.py", node.op_type)


def _take_in(model: Any, weights: bytes | memoryview | None) -> None:  # noqa: ANN401  likewise
    """Copies weights of the second file into the graph; refuses every other place."""
    used = 0
    for tensor in model.graph.initializer:
        if not tensor.data_location and not tensor.external_data:
            continue
        told = {one.key: one.value for one in tensor.external_data}
        if told.get("location") != WEIGHTS or weights is None:
            raise PackageWeightsError(
                need=f"weights inside, or in {WEIGHTS} of the package",
                found=f"weights at {ascii(told.get('location'))[:80]}",
                remedy=_REMEDY,
            )
        start, size = _span(told, tensor, len(weights))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = bytes(weights[start : start + size])
        used += size
        _check_bytes(used)  # one region of the file may stand under many names
    check_inside(model)
    if weights is not None and not used:
        raise PackageWeightsError(
            need=f"a graph that uses {WEIGHTS}", found="one that does not", remedy=_REMEDY
        )


def _span(told: dict[str, str], tensor: Any, most: int) -> tuple[int, int]:  # noqa: ANN401  likewise
    """Offset and length of a tensor in the second file."""
    try:
        start, size = int(told.get("offset", "0")), int(told["length"])
    except (KeyError, ValueError) as error:
        raise PackageWeightsError(
            need="offset and length of every weight", found="none", remedy=_REMEDY
        ) from error
    whole = 4 * math.prod(tensor.dims)
    if tensor.data_type != _FLOAT or size != whole or start < 0 or start + size > most:
        raise PackageWeightsError(
            need=f"float32 weights within {most} bytes", found=f"{size} bytes at {start}", remedy=_REMEDY
        )
    return start, size


def _check_ports(model: Any, observation: int, chunk: tuple[int, int]) -> None:  # noqa: ANN401  likewise
    wanted = {
        "inputs": [(INPUT, (observation,))],
        "outputs": [(OUTPUTS[0], chunk), (OUTPUTS[1], ())],
    }
    found = {"inputs": _named(model.graph.input), "outputs": _named(model.graph.output)}
    if found != wanted:
        raise _refuse(f"float32 {wanted} behind a free batch", f"{found}")


def _named(ports: Any) -> list[tuple[str, tuple[int, ...]]]:  # noqa: ANN401  likewise
    """Names and shapes behind a free batch; another type or a fixed batch shows as a shape that fits none."""
    found = []
    for port in ports:
        kind = port.type.tensor_type
        batch, *rest = kind.shape.dim or [None]
        free = batch is not None and bool(batch.dim_param) and kind.elem_type == _FLOAT
        found.append((port.name, tuple(one.dim_value for one in rest) if free else (-1,)))
    return found
