# SPDX-License-Identifier: Apache-2.0
"""Architectures by id: their arguments and the tensors that follow from them, in wire order.

- ``stem`` turns the inputs of a frame into a token of fixed width, ``trunk`` works on tokens alone, ``head``
  turns tokens into outputs. So a trunk has the same tensors whatever a robot observes and does, and can be
  shared where stem and head are private.
- An id names code that is installed: numpy in `policies.forward`, torch in ``client.learning.models``. The
  tests hold the two together, and both to this manifest.

    rows = architecture_manifest({"id": "mlp-invdyn/1", "args": {"width": 64, "seed": 1}}, input_size=30,
                                 output_size=6)                      # JSON values for ``tensors``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from policies.limits import ACTION_CHUNK
from policies.recipe.errors import UnknownArchitectureError, invalid
from policies.recipe.words import Block, Seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.encoding import Json

__all__ = [
    "ARCHITECTURES",
    "ActSmall",
    "Architecture",
    "LinearDetect",
    "MlpChunk",
    "MlpDetect",
    "MlpInvdyn",
    "Row",
    "architecture_manifest",
    "check_known",
    "manifest",
]

_WIDTH: Final = 1024
_LAYERS: Final = 8
_HEADS: Final = 16
Row = tuple[str, tuple[int, ...], str]  # name, shape, block
Width = Annotated[int, Field(strict=True, ge=1, le=_WIDTH)]
Chunk = Annotated[int, Field(strict=True, ge=1, le=ACTION_CHUNK)]


class SeedArgs(Block):
    """Arguments of an architecture that has one output per frame and no width."""

    seed: Seed

    @property
    def chunk(self) -> int:
        """Actions per answer."""
        return 1

    @property
    def execute(self) -> int:
        """Actions of an answer that are run."""
        return 1


class WidthArgs(SeedArgs):
    """Arguments of an architecture that has one output per frame."""

    width: Width


class MlpChunkArgs(Block):
    """Arguments of ``mlp-chunk/1``."""

    width: Width
    chunk: Chunk
    execute: Chunk
    seed: Seed


class ActSmallArgs(MlpChunkArgs):
    """Arguments of ``act-small/1``; as designed: width 128, 4 heads, 256 hidden, 2 layers, chunk 16.

    Attributes:
        heads: Of each attention; a divisor of the width.
        hidden: Width of the feed-forward part.
        layers: Decoder layers.
    """

    heads: Annotated[int, Field(strict=True, ge=1, le=_HEADS)]
    hidden: Width
    layers: Annotated[int, Field(strict=True, ge=1, le=_LAYERS)]

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError("heads that divide the width")
        return self


def _linear(name: str, inputs: int, outputs: int, block: str) -> list[Row]:
    return [(f"{name}.weight", (outputs, inputs), block), (f"{name}.bias", (outputs,), block)]


def _norm(name: str, width: int) -> list[Row]:
    return [(f"{name}.weight", (width,), "trunk"), (f"{name}.bias", (width,), "trunk")]


def _perceptron(input_size: int, width: int, outputs: int) -> list[Row]:
    return [
        *_linear("stem", input_size, width, "stem"),
        *_linear("trunk", width, width, "trunk"),
        *_linear("head", width, outputs, "head"),
    ]


class MlpChunk(Block):
    """Two hidden tanh layers, then a chunk of the next ``chunk`` actions, of which ``execute`` are run."""

    id: Literal["mlp-chunk/1"]
    args: MlpChunkArgs

    def rows(self, *, input_size: int, output_size: int) -> list[Row]:
        """Tensors in wire order."""
        return _perceptron(input_size, self.args.width, self.args.chunk * output_size)


class MlpInvdyn(Block):
    """Two hidden tanh layers, then a torque or current per joint."""

    id: Literal["mlp-invdyn/1"]
    args: WidthArgs

    def rows(self, *, input_size: int, output_size: int) -> list[Row]:
        """Tensors in wire order."""
        return _perceptron(input_size, self.args.width, output_size)


class MlpDetect(Block):
    """Two hidden tanh layers, then a logit per class."""

    id: Literal["mlp-detect/1"]
    args: WidthArgs

    def rows(self, *, input_size: int, output_size: int) -> list[Row]:
        """Tensors in wire order."""
        return _perceptron(input_size, self.args.width, output_size)


class LinearDetect(Block):
    """A logit per class, linear in the features: logistic regression. It has no trunk to share."""

    id: Literal["linear-detect/1"]
    args: SeedArgs

    def rows(self, *, input_size: int, output_size: int) -> list[Row]:
        """Tensors in wire order."""
        return _linear("head", input_size, output_size, "head")


class ActSmall(Block):
    """A state token, from which queries, one per action of the chunk, are decoded.

    ``token = tanh(stem(inputs))``; the memory is that token beside a learned register; each layer adds
    attention among the queries, attention to the memory and a feed-forward part, each of its normed input;
    the head reads each normed query. ``trunk.learned`` holds the queries and, last, the register.
    """

    id: Literal["act-small/1"]
    args: ActSmallArgs

    def rows(self, *, input_size: int, output_size: int) -> list[Row]:
        """Tensors in wire order."""
        width, hidden = self.args.width, self.args.hidden
        found = _linear("stem", input_size, width, "stem")
        found.append(("trunk.learned.weight", (self.args.chunk + 1, width), "trunk"))
        for number in range(self.args.layers):
            at = f"trunk.layers.{number}"
            found += [
                *_norm(f"{at}.norm_among", width),
                *_linear(f"{at}.among.project", width, 3 * width, "trunk"),
                *_linear(f"{at}.among.merge", width, width, "trunk"),
                *_norm(f"{at}.norm_memory", width),
                *_linear(f"{at}.memory.ask", width, width, "trunk"),
                *_linear(f"{at}.memory.offer", width, 2 * width, "trunk"),
                *_linear(f"{at}.memory.merge", width, width, "trunk"),
                *_norm(f"{at}.norm_forward", width),
                *_linear(f"{at}.widen", width, hidden, "trunk"),
                *_linear(f"{at}.narrow", hidden, width, "trunk"),
            ]
        return [*found, *_norm("trunk.norm", width), *_linear("head", width, output_size, "head")]


Architecture = Annotated[
    MlpChunk | ActSmall | MlpInvdyn | LinearDetect | MlpDetect, Field(discriminator="id")
]
ARCHITECTURES: Final[dict[str, frozenset[str]]] = {
    "behaviour-cloning": frozenset({"mlp-chunk/1", "act-small/1"}),
    "inverse-dynamics": frozenset({"mlp-invdyn/1"}),
    "detection": frozenset({"linear-detect/1", "mlp-detect/1"}),
}
_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(Architecture)


def check_known(architecture: Json) -> None:
    """Refuses an id that names no code of this version.

    Raises:
        UnknownArchitectureError: With the id.
    """
    known = sorted(frozenset[str]().union(*ARCHITECTURES.values()))
    name = architecture.get("id") if isinstance(architecture, dict) else None
    if isinstance(name, str) and name not in known:
        raise UnknownArchitectureError(
            need=f"one of {', '.join(known)}", found=name[:60], remedy="update the node, or name another"
        )


def architecture_manifest(
    architecture: Mapping[str, Json],
    *,
    input_size: int,
    output_size: int,
    scope: Literal["shared", "private"] | None = None,
) -> list[dict[str, Json]]:
    """Tensors of an architecture in wire order, as JSON values.

    Args:
        architecture: The block of the recipe, ``{"id": …, "args": …}``.
        input_size: Values per frame after the features.
        output_size: Values per action, or classes.
        scope: With variants, ``shared`` gives the tensors of the trunk and ``private`` those of stem and
            head; left out, all, and all of them shared.

    Raises:
        UnknownArchitectureError: No code of this version.
        RecipeInvalidError: Arguments that the architecture does not have.
    """
    check_known(dict(architecture))
    try:
        found = _ADAPTER.validate_python(dict(architecture))
    except ValidationError as error:
        raise invalid("arguments of the architecture", str(error.errors()[0]["msg"])) from error
    return [
        one
        for one in tensor_rows(
            found.rows(input_size=input_size, output_size=output_size), split=scope is not None
        )
        if scope in {None, one["scope"]}
    ]


def tensor_rows(rows: list[Row], *, split: bool) -> list[dict[str, Json]]:
    """Rows as JSON values; ``split`` makes those of stem and head private."""
    return [
        {
            "name": name,
            "shape": list(shape),
            "dtype": "float32",
            "scope": "private" if split and block != "trunk" else "shared",
            "block": block,
        }
        for name, shape, block in rows
    ]


def manifest(*, input_size: int, output_size: int, width: int, chunk: int) -> list[dict[str, Json]]:
    """Tensor manifest of ``mlp-chunk/1`` in wire order, as JSON values."""
    return tensor_rows(_perceptron(input_size, width, chunk * output_size), split=False)
