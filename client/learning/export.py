# SPDX-License-Identifier: Apache-2.0
"""From a recipe and its weights to one ONNX graph that takes raw fields and gives clamped actions, in SI.

    exported = export_graph(recipe, weights, example, ends=None)
    exported.graph          # bytes of model.onnx, weights inside
    exported.chunk          # [H, a] float64: what the model answers to the example

Graph: raw fields → features → normalise → clip → network → de-normalise → clamp; with a site's adapter around
it, the controller's order and sense on both ends. What is detected comes out as a probability. Ports: input
``observation`` ``[batch, n]``, outputs ``action_chunk`` ``[batch, H, a]`` and ``clipped_share`` ``[batch]``,
the share of features beyond the clip.

- **Stateless.** A recipe whose features look at other frames (``delta``, ``rolling_std``, ``history``,
  ``savgol_derivative``) is refused by name: whoever serves the graph would have to keep a window, and two
  programs would keep two. A graph is a function of one observation, or there is none.
- **Exact where it can be.** Fields are selected and subtracted by a matrix of -1, 0 and 1 before anything is
  scaled, so float32 loses nothing in differences of large numbers.
- **The same bytes each time, and nothing of the site.** Stack traces and class names that the exporter
  leaves in the graph are removed: they hold paths of this machine.
- **Checked before anybody gets it.** The graph's answers equal those of torch and of numpy
  (`policies.forward`) to 1e-5 of an output's limit, for batches of 1 and 3.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client.deploy.errors import NotExportableError
from client.deploy.graphs import OPSET, Exported
from client.learning.features import Features
from client.learning.registry import build, write_weights
from client.learning.tensors import action_constants
from client.learning.weights import check_weights
from policies.errors import invariant
from policies.forward import Forward

if TYPE_CHECKING:
    from client.deploy.adapters import Ends
    from policies.recipe import Recipe

__all__ = ["export_graph"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]
_TOLERANCE: Final = 1e-5
_BATCHES: Final = (1, 3)
_OUTPUTS: Final = ("action_chunk", "clipped_share")
_BINARY: Final = 1
# torch's exporter copies trees of modules through a class that torch itself has deprecated
_TREES: Final = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
_SILENT: Final = "torch.onnx._internal.exporter._registration"  # says of each operator that torchvision lacks


def export_graph(
    recipe: Recipe, weights: AnyArray, example: Array64, *, ends: Ends | None = None
) -> Exported:
    """The graph of a model; see the module.

    Args:
        recipe: As the site reads it: with variants, the one of its embodiment.
        weights: Flat vector of the whole model.
        example: One raw observation ``[n]`` within limits.
        ends: A site's adapter, for an individual package.

    Raises:
        NotExportableError: A feature needs other frames.
        WeightsUnfitError: The vector does not fit the recipe.
        InvariantError: Two computations of the model differ.
    """
    _check_stateless(recipe)
    flat = check_weights(recipe, weights)
    module = _Graph(recipe, flat, ends).eval()
    graph = _stripped(_exported(module, len(example)))
    reference = _Reference(recipe, flat, ends)
    for batch in _BATCHES:
        _compare(graph, module, reference, _spread(example, batch))
    return Exported(graph=graph, opset=OPSET, chunk=reference(_spread(example, 1))[0])


def _check_stateless(recipe: Recipe) -> None:
    looking = [one.op for one in recipe.features if one.past or one.ahead]
    if looking:
        raise NotExportableError(
            need="features of one frame: raw, diff, sin, cos, sign_soft",
            found=", ".join(sorted(set(looking))),
            remedy="judge such a model on recordings (models personalise, bench); it is not served",
        )


class _Graph(nn.Module):
    """What is exported; every constant is a buffer, and None where it would change nothing."""

    select: torch.Tensor
    shift: torch.Tensor | None
    is_sin: torch.Tensor | None
    is_cos: torch.Tensor | None
    is_sign_soft: torch.Tensor | None
    per_v: torch.Tensor
    centre: torch.Tensor
    per_scale: torch.Tensor
    action_scale: torch.Tensor
    action_centre: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    adapter: torch.Tensor | None
    adapter_shift: torch.Tensor | None

    def __init__(self, recipe: Recipe, flat: npt.NDArray[np.float32], ends: Ends | None) -> None:
        super().__init__()
        self.network = build(recipe)
        write_weights(self.network, flat)
        self._inputs(recipe, ends)
        self._outputs(recipe, ends)
        self.clip = float(recipe.clip)
        self.chunk, self.size = recipe.chunk, recipe.output_size
        self.detects = recipe.label is not None

    def _keep(self, name: str, values: AnyArray | None) -> None:
        self.register_buffer(name, None if values is None else torch.tensor(values, dtype=torch.float32))

    def _inputs(self, recipe: Recipe, ends: Ends | None) -> None:
        matrix, gain, kinds = _selection(recipe)
        centre = np.array([float(c) for one in recipe.features for c in one.normaliser.centre])
        scale = np.array([float(s) for one in recipe.features for s in one.normaliser.scale])
        shift = None if ends is None else ends.observation_shift @ matrix
        self._keep("select", matrix if ends is None else ends.observation @ matrix)
        self._keep("shift", shift if shift is not None and shift.any() else None)
        self._keep("centre", centre / gain)
        self._keep("per_scale", gain / scale)
        for op in ("sin", "cos", "sign_soft"):
            mask = np.array([kind == op for kind, _ in kinds])
            self.register_buffer(f"is_{op}", torch.tensor(mask) if mask.any() else None)
        self._keep("per_v", np.array([1.0 / v for _, v in kinds]))

    def _outputs(self, recipe: Recipe, ends: Ends | None) -> None:
        if recipe.label is not None:
            return
        centre, scale, limit = action_constants(recipe)
        self._keep("action_centre", centre)
        self._keep("action_scale", scale)
        self._keep("low", centre - limit)
        self._keep("high", centre + limit)
        self._keep("adapter", None if ends is None else ends.action)
        moved = ends is not None and ends.action_shift.any()
        self._keep("adapter_shift", ends.action_shift if ends is not None and moved else None)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Clamped chunks ``[batch, H, a]``, and the share of features beyond the clip ``[batch]``."""
        value = observation @ self.select
        if self.shift is not None:
            value = value + self.shift
        if self.is_sin is not None:
            value = torch.where(self.is_sin, torch.sin(value), value)
        if self.is_cos is not None:
            value = torch.where(self.is_cos, torch.cos(value), value)
        if self.is_sign_soft is not None:
            value = torch.where(self.is_sign_soft, torch.tanh(value * self.per_v), value)
        z = (value - self.centre) * self.per_scale
        share = (z.abs() > self.clip).to(torch.float32).mean(dim=-1)
        out = self.network(torch.clamp(z, -self.clip, self.clip)).reshape(-1, self.chunk, self.size)
        return self._answer(out), share

    def _answer(self, out: torch.Tensor) -> torch.Tensor:
        if self.detects:
            return torch.sigmoid(out) if self.size == _BINARY else torch.softmax(out, dim=-1)
        actions = out * self.action_scale + self.action_centre
        actions = torch.minimum(torch.maximum(actions, self.low), self.high)
        if self.adapter is None:
            return actions
        actions = actions @ self.adapter
        return actions if self.adapter_shift is None else actions + self.adapter_shift


def _selection(recipe: Recipe) -> tuple[Array64, Array64, list[tuple[str, float]]]:
    """``[n, d]`` of -1, 0, 1; gains ``[d]``; operation and divisor of each feature."""
    starts, size = {}, 0
    for one in recipe.inputs:
        starts[one.field] = size
        size += one.size
    columns: list[Array64] = []
    gains: list[float] = []
    kinds: list[tuple[str, float]] = []
    for feature in recipe.features:
        for offset in range(len(feature.normaliser.centre)):
            column = np.zeros(size)
            column[starts[feature.sources[0]] + offset] = 1
            if feature.op == "diff":
                column[starts[feature.b] + offset] = -1
            columns.append(column)
            gains.append(float(feature.gain) if feature.op == "diff" else 1.0)
            kinds.append((feature.op, float(feature.v) if feature.op == "sign_soft" else 1.0))
    return np.array(columns).T.copy(), np.array(gains, dtype=np.float64), kinds


class _Reference:
    """The same model in numpy, float64, from what acts and judges everywhere else."""

    def __init__(self, recipe: Recipe, flat: npt.NDArray[np.float32], ends: Ends | None) -> None:
        self._recipe, self._ends = recipe, ends
        self._features, self._forward = Features(recipe), Forward(recipe, flat)
        limit = np.ones(recipe.output_size) if recipe.label is not None else action_constants(recipe)[2]
        self.reach: Array64 = limit if ends is None else limit @ np.abs(ends.action)

    def __call__(self, raw: Array64) -> Array64:
        """Answers ``[batch, H, a]`` to raw observations ``[batch, n]``."""
        recipe, ends = self._recipe, self._ends
        if ends is not None:
            raw = raw @ ends.observation + ends.observation_shift
        out = self._forward(self._features(raw)).reshape(len(raw), recipe.chunk, recipe.output_size)
        if recipe.label is not None:
            raised = np.exp(out - out.max(axis=-1, keepdims=True))
            found: Array64 = raised / raised.sum(axis=-1, keepdims=True)
            return 1 / (1 + np.exp(-out)) if recipe.output_size == _BINARY else found
        centre, scale, limit = action_constants(recipe)
        actions: Array64 = np.clip(out * scale + centre, centre - limit, centre + limit)
        return actions if ends is None else actions @ ends.action + ends.action_shift


def _exported(module: nn.Module, size: int) -> Any:  # noqa: ANN401  the library's own type
    """The exporter's model; its one known warning and its notices about torchvision are left out."""
    torch.set_num_threads(1)
    notices = logging.getLogger(_SILENT)
    level = notices.level
    notices.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_TREES, category=FutureWarning)
            program = torch.onnx.export(
                module,
                (torch.zeros(2, size),),  # a batch of 1 would be frozen
                None,
                input_names=["observation"],
                output_names=list(_OUTPUTS),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                dynamic_shapes={"observation": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    finally:
        notices.setLevel(level)
    invariant(program is not None, "a graph of the exporter")
    return program.model_proto if program is not None else None


def _stripped(model: Any) -> bytes:  # noqa: ANN401  the library's own type
    """Bytes without what tells of this machine: stack traces, class names, doc strings."""
    graph = model.graph
    graph.ClearField("value_info")
    for one in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        one.ClearField("metadata_props")
        one.ClearField("doc_string")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _spread(example: Array64, batch: int) -> Array64:
    """Observations around the example, the example first, as float32 holds them."""
    factors = 1 + 0.25 * np.arange(batch)
    return (factors[:, None] * example).astype(np.float32).astype(np.float64)


def _compare(graph: bytes, module: nn.Module, reference: _Reference, raw: Array64) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    asked = raw.astype(np.float32)
    answers = session.run(_OUTPUTS, {"observation": asked})
    with torch.no_grad():
        by_torch = [one.numpy() for one in module(torch.from_numpy(asked))]
    by_numpy = reference(raw)
    for other in (by_torch[0], by_numpy):
        worst = float((np.abs(answers[0] - other) / reference.reach).max())
        invariant(worst <= _TOLERANCE, f"answers that are equal to {_TOLERANCE} of their limits")
    invariant(np.allclose(answers[1], by_torch[1]), "equal shares of clipped features")
