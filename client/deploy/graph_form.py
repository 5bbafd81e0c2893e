# SPDX-License-Identifier: Apache-2.0
"""The closed form of a package's graph: which messages and which fields of them may be there at all.

    check_form(model)          # onnx.ModelProto; PackageOpError, PackageWeightsError
    for one in messages(model): ...

ONNX is a large format, and readers open what this program would never look at: weights in files beside the
package, sparse tensors, graphs inside operators, functions, training. So it is read the other way round:
`FORM` names every field that `client.learning.export` writes, and **whatever else is there refuses**, at any
depth, whether or not somebody has thought of it. Attributes hold numbers alone: no tensor, no text, no graph.

A tensor of ``graph.initializer`` is the only thing that may say where its bytes lie;
`client.deploy.graphs` reads that and takes them in, and `check_inside` then looks once more at everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.deploy.errors import PackageOpError, PackageSizeError, PackageWeightsError
from policies.limits import PACKAGE_OPS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORM", "check_form", "check_inside", "messages"]

FORM: Final = {
    "ModelProto": {"ir_version", "producer_name", "producer_version", "opset_import", "graph"},
    "OperatorSetIdProto": {"domain", "version"},
    "GraphProto": {"name", "node", "initializer", "input", "output"},
    "NodeProto": {"name", "op_type", "input", "output", "attribute"},
    "AttributeProto": {"name", "type", "f", "i", "ints"},
    "TensorProto": {"name", "dims", "data_type", "raw_data", "data_location", "external_data"},
    "StringStringEntryProto": {"key", "value"},
    "ValueInfoProto": {"name", "type"},
    "TypeProto": {"tensor_type"},
    "Tensor": {"elem_type", "shape"},
    "TensorShapeProto": {"dim"},
    "Dimension": {"dim_value", "dim_param"},
}
_NUMBERS: Final = {"f": 1, "i": 2, "ints": 7}  # kind of an attribute, and its number
_ITEM: Final = {1: 4, 7: 8, 9: 1}  # bytes of float32, int64 and bool
_AXES: Final = 8
_REMEDY: Final = "get the package again from whoever made it; it never runs like this"


def messages(one: Any) -> Iterator[Any]:  # noqa: ANN401  protobuf has no types of its own
    """A message and all messages in it, whatever they are."""
    yield one
    for field, value in one.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                yield from messages(part)


def check_form(model: Any) -> None:  # noqa: ANN401  likewise
    """Refuses what no graph of this program holds; unknown fields are dropped, so nobody reads them.

    Checks, in this order: number of operators and weights; each message and its fields; attributes are
    numbers; weights are of a known type and as long as their shape says.

    Raises:
        PackageOpError: A message, a field, an attribute or a type outside the form.
        PackageSizeError: Too many operators or weights.
        PackageWeightsError: Weights that are not as many as their shape says.
    """
    model.DiscardUnknownFields()
    counts = (len(model.graph.node), len(model.graph.initializer))
    if max(counts) > PACKAGE_OPS:
        raise PackageSizeError(
            need=f"at most {PACKAGE_OPS} operators and as many weights",
            found=f"{counts[0]} and {counts[1]}",
            remedy=_REMEDY,
        )
    for one in messages(model):
        name = one.DESCRIPTOR.name
        told = {field.name for field, _ in one.ListFields()}
        if foreign := sorted(told - FORM.get(name, set())) or ([] if name in FORM else [name]):
            raise _refuse("a graph of the form in client/deploy/graph_form.py", f"{name}.{foreign[0]}")
    for node in model.graph.node:
        for attribute in node.attribute:
            _check_attribute(attribute)
    for tensor in model.graph.initializer:
        _check_tensor(tensor)


def _check_attribute(one: Any) -> None:  # noqa: ANN401  likewise
    held = {field.name for field, _ in one.ListFields()} - {"name", "type"}
    if one.type not in _NUMBERS.values() or any(_NUMBERS[name] != one.type for name in held):
        raise _refuse("attributes that are numbers", f"{one.name} of type {one.type}")


def _check_tensor(one: Any) -> None:  # noqa: ANN401  likewise
    size = _ITEM.get(one.data_type)
    if size is None or len(one.dims) > _AXES or any(axis < 0 for axis in one.dims):
        raise _refuse("weights of float32, int64 or bool", f"{one.name} of type {one.data_type}")
    for axis in one.dims:
        size *= axis
    if not one.data_location and not one.external_data and len(one.raw_data) != size:
        raise PackageWeightsError(
            need=f"{size} bytes of {ascii(one.name)[1:-1][:60]}",
            found=f"{len(one.raw_data)}",
            remedy=_REMEDY,
        )


def check_inside(model: Any) -> None:  # noqa: ANN401  likewise
    """Refuses any message, at any depth, that still says its bytes lie elsewhere.

    Raises:
        PackageWeightsError: One does.
    """
    for one in messages(model):
        fields = {field.name for field, _ in one.ListFields()}
        if fields & {"external_data", "data_location"}:
            raise PackageWeightsError(
                need="all weights inside", found=f"{one.DESCRIPTOR.name} elsewhere", remedy=_REMEDY
            )


def _refuse(need: str, found: str) -> PackageOpError:
    return PackageOpError(need=need, found=ascii(found)[1:-1][:160], remedy=_REMEDY)
