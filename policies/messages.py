# SPDX-License-Identifier: Apache-2.0
"""Messages about data that travel between parties: the descriptor of a data set (``iriai-descriptor/1``).

- The keys of `Descriptor` and nothing else; an unknown key is refused by the sender and by the receiver.
- Values are words of closed lists or buckets. A count, an extreme, a file name or a sentence has no place to
  stand.
- Canonical JSON, signed by the node as DSSE with payload type ``application/vnd.iriai.descriptor.v1+json``.

    envelope = seal_descriptor(descriptor, node_key)
    descriptor = open_descriptor(envelope, node_public_key)      # DescriptorKeyError, SignatureInvalidError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.limits import DESCRIPTOR_BYTES
from policies.recipe import FIELD_NAMES
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.identity import SigningKey

__all__ = [
    "DESCRIPTOR_TYPE",
    "EMBODIMENT_CLASSES",
    "Descriptor",
    "DescriptorKeyError",
    "Fit",
    "Statement",
    "episodes_bucket",
    "first_fault",
    "open_descriptor",
    "rate_bucket",
    "seal_descriptor",
]

DESCRIPTOR_TYPE: Final = "application/vnd.iriai.descriptor.v1+json"

EmbodimentClass = Literal[
    "4r-scara",
    "4r-scara+parallel-gripper",
    "6r-arm",
    "6r-arm+parallel-gripper",
    "6r-arm+vacuum-gripper",
    "6r-arm+welding-torch",
    "7r-arm",
    "7r-arm+parallel-gripper",
    "7r-arm+vacuum-gripper",
]
EMBODIMENT_CLASSES: Final[frozenset[str]] = frozenset(get_args(EmbodimentClass))
ActionSpace = Literal["ee-delta", "joint-pos", "joint-vel", "joint-torque", "none"]
RateBucket = Literal["<20", "20-49", "50-99", "100-199", "200-499", ">=500"]
EpisodesBucket = Literal["<10", "10-29", "30-99", "100-299", "300-999", ">=1000"]
_RATES: Final[tuple[tuple[float, RateBucket], ...]] = (
    (20, "<20"),
    (50, "20-49"),
    (100, "50-99"),
    (200, "100-199"),
    (500, "200-499"),
)
_EPISODES: Final[tuple[tuple[int, EpisodesBucket], ...]] = (
    (10, "<10"),
    (30, "10-29"),
    (100, "30-99"),
    (300, "100-299"),
    (1000, "300-999"),
)

DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
NodeId = Annotated[str, StringConstraints(pattern=r"^node_[a-z2-7]{16}$")]
DatasetName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}(/[a-z0-9][a-z0-9_.-]{0,39})?$")
]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Period = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-H[12]$")]


class DescriptorKeyError(IriaiError):
    """A descriptor with a key or value that says more than members agreed to know."""

    code = "data.descriptor-key"
    exit_code = 4
    http_status = 422


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Statement(_Message):
    """What a node signs about its data: `canonical` is the payload."""

    @property
    def canonical(self) -> bytes:
        """Canonical bytes, the payload that is signed."""
        return canonical(self.model_dump(by_alias=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return digest(self.canonical)


def first_fault(error: ValidationError) -> tuple[str, str]:
    """What a document needed, and where it first lacked that; no value of it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return str(first["msg"]), ascii(where)[:80]


class Fit(_Message):
    """Whether a data set has enough episodes for a recipe; nothing about how many."""

    recipe: DigestText
    minimum_met: bool


class Descriptor(Statement):
    """The coarse description of a silo's data set in the catalogue."""

    schema_: Literal["iriai-descriptor/1"] = Field(alias="schema")
    node: NodeId
    dataset: DatasetName
    embodiment_class: EmbodimentClass
    dof: Annotated[int, Field(ge=1, le=64)]
    action_space: ActionSpace
    rate_hz: RateBucket
    episodes: EpisodesBucket
    tasks: Annotated[list[Word], Field(max_length=16)]
    fields: Annotated[list[str], Field(max_length=64)]
    labels: Annotated[list[LabelName], Field(max_length=16)]
    period: Period
    fits: Annotated[list[Fit], Field(max_length=64)]
    quality: DigestText | None
    seed_set: DigestText | None
    judge_root: DigestText | None

    @field_validator("tasks", "fields", "labels")
    @classmethod
    def _sorted_once(cls, value: list[str]) -> list[str]:
        if value != sorted(set(value)):
            raise ValueError("names in order, each once")
        return value

    @field_validator("fields")
    @classmethod
    def _closed(cls, value: list[str]) -> list[str]:
        if not set(value) <= FIELD_NAMES:
            raise ValueError("fields of the closed list; site-private names never leave")
        return value

    @classmethod
    def build(
        cls,
        *,
        node: str,
        dataset: str,
        embodiment_class: str,
        dof: int,
        action_space: str,
        rate_hz: RateBucket,
        episodes: EpisodesBucket,
        tasks: Sequence[str],
        fields: Sequence[str],
        labels: Sequence[str],
        period: str,
        fits: Sequence[Fit] = (),
        quality: str | None = None,
        seed_set: str | None = None,
        judge_root: str | None = None,
    ) -> Self:
        """A checked descriptor.

        Raises:
            DescriptorKeyError: A value outside its list, bucket or form.
        """
        return cls.parse(
            {
                "schema": "iriai-descriptor/1",
                "node": node,
                "dataset": dataset,
                "embodiment_class": embodiment_class,
                "dof": dof,
                "action_space": action_space,
                "rate_hz": rate_hz,
                "episodes": episodes,
                "tasks": list(tasks),
                "fields": list(fields),
                "labels": list(labels),
                "period": period,
                "fits": [fit.model_dump() for fit in fits],
                "quality": quality,
                "seed_set": seed_set,
                "judge_root": judge_root,
            }
        )

    @classmethod
    def parse(cls, document: Any) -> Self:  # noqa: ANN401  a JSON value of another party
        """The descriptor behind a JSON value.

        Raises:
            DescriptorKeyError: An unknown or missing key, or a value outside its list, bucket or form.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            need, found = first_fault(error)
            raise DescriptorKeyError(
                need=need, found=found, remedy="coarsen the value, or leave the key out"
            ) from error


def rate_bucket(rate_hz: float) -> RateBucket:
    """The bucket of a rate."""
    return next((name for bound, name in _RATES if rate_hz < bound), ">=500")


def episodes_bucket(count: int) -> EpisodesBucket:
    """The bucket of a number of episodes."""
    return next((name for bound, name in _EPISODES if count < bound), ">=1000")


def seal_descriptor(descriptor: Descriptor, key: SigningKey) -> Envelope:
    """The descriptor, signed by its node."""
    return Envelope.seal(descriptor.canonical, DESCRIPTOR_TYPE, key)


def open_descriptor(envelope: Envelope, public_key: bytes) -> Descriptor:
    """The descriptor of an envelope.

    Raises:
        SignatureInvalidError: Another payload type, or not signed by this key.
        EncodingError: Not canonical bytes.
        DescriptorKeyError: See `Descriptor.parse`; also a descriptor beyond its bound.
    """
    if len(envelope.payload) > DESCRIPTOR_BYTES:
        raise DescriptorKeyError(
            need=f"at most {DESCRIPTOR_BYTES} bytes",
            found=str(len(envelope.payload)),
            remedy="name fewer things",
        )
    return Descriptor.parse(envelope.open_as(DESCRIPTOR_TYPE, public_key))
