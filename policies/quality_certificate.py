# SPDX-License-Identifier: Apache-2.0
"""The quality certificate of a data set: what a site signs about twelve checks. No figure, no name.

- ``iriai-quality-certificate/1``, canonical JSON, DSSE by the node's key, payload type
  ``application/vnd.iriai.quality.v1+json``. Its digest stands in the descriptor (``quality``).
- One word per check. ``UNDETERMINED`` is never ``PASS``, and neither is ``NOT_APPLICABLE``: a recipe that
  requires a check is content with another word only where it lists the check openly.
- ``data_root`` is a Merkle root over keyed digests of the episodes: it binds the data and matches nothing
  elsewhere. The owner may show single episodes to an auditor (`Opening`).
- The same files give the same bytes in any order, except signature and time; the time is a day.

    envelope = seal_certificate(certificate, node_key)
    certificate = open_certificate(envelope, node_public_key)     # CertificateInvalidError
    unmet(certificate, require=["time"], accept_undetermined=[])  # ("time",): refuse
    check_opening(certificate, opening)                           # an auditor; ProofError

What `check_opening` verifies, in this order: (1) the facts are those of an episode and nothing else, (2) the
leaf is their keyed digest, (3) the leaf is in the tree of ``data_root``.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence  # noqa: TC003  pydantic reads annotations at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, get_args

from pydantic import Field, StringConstraints, ValidationError, field_validator

from policies.encoding import canonical
from policies.errors import IriaiError
from policies.limits import CERTIFICATE_BYTES
from policies.log.errors import ProofError
from policies.log.merkle import leaf_hash, verify_inclusion
from policies.messages import DatasetName, DigestText, NodeId, Statement, first_fault
from policies.signing import Envelope

if TYPE_CHECKING:
    from policies.identity import SigningKey

__all__ = [
    "CERTIFICATE_TYPE",
    "CHECKS",
    "RULES",
    "CertificateInvalidError",
    "CheckName",
    "Opening",
    "QualityCertificate",
    "State",
    "check_opening",
    "keyed_leaf",
    "open_certificate",
    "seal_certificate",
    "unmet",
]

CERTIFICATE_TYPE: Final = "application/vnd.iriai.quality.v1+json"
RULES: Final = "iriai-quality/1"
CheckName = Literal[
    "schema",
    "time",
    "frozen",
    "saturation",
    "lag",
    "tracking",
    "idle",
    "jumps",
    "duplicates",
    "lengths",
    "limits",
    "personal",
]
CHECKS: Final[tuple[CheckName, ...]] = get_args(CheckName)
State = Literal["PASS", "FAIL", "NOT_APPLICABLE", "UNDETERMINED"]
_FACTS: Final = ("clock", "episode", "excluded", "labels", "map", "stamps")
_HEX: Final = frozenset("0123456789abcdef")

Tool = Annotated[str, StringConstraints(pattern=r"^iriai/[0-9][0-9a-z.+-]{0,39}$")]
Day = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")]


class CertificateInvalidError(IriaiError):
    """A certificate with a key, word or form that the schema does not have."""

    code = "data.certificate-invalid"
    exit_code = 3
    http_status = 422


class QualityCertificate(Statement):
    """The signed statement; its digest is the descriptor's ``quality``.

    Every field is a digest, a word of a closed list, or the site's own id.
    """

    schema_: Literal["iriai-quality-certificate/1"] = Field(alias="schema")
    node: NodeId
    dataset: DatasetName
    data_root: DigestText
    checks: Literal["iriai-quality/1"]
    thresholds: DigestText
    signal_maps: Annotated[list[DigestText], Field(min_length=1, max_length=64)]
    states: dict[CheckName, State]
    excluded: Literal["none", "few", "many"]
    verdict: Literal["admitted", "refused"]
    tool: Tool
    at: Day

    @field_validator("signal_maps")
    @classmethod
    def _sorted_once(cls, value: list[str]) -> list[str]:
        if value != sorted(set(value)):
            raise ValueError("digests in order, each once")
        return value

    @field_validator("states")
    @classmethod
    def _all_checks(cls, value: dict[CheckName, State]) -> dict[CheckName, State]:
        if set(value) != set(CHECKS):
            raise ValueError("a state for each of the twelve checks")
        return value

    @classmethod
    def parse(cls, document: Any) -> Self:  # noqa: ANN401  a JSON value of another party
        """The certificate behind a JSON value.

        Raises:
            CertificateInvalidError: An unknown or missing key, or a value outside its list or form.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            need, found = first_fault(error)
            raise CertificateInvalidError(
                need=need,
                found=found,
                remedy="iriai-node data check makes a new one; update the program that made this",
            ) from error

    def says_the_same(self, other: QualityCertificate) -> bool:
        """Whether two certificates say the same, whenever they were made and by which version."""
        day = {"at": self.at, "tool": self.tool}
        return self.model_copy(update=day) == other.model_copy(update=day)


def unmet(
    certificate: QualityCertificate, *, require: Collection[str], accept_undetermined: Collection[str] = ()
) -> tuple[str, ...]:
    """Checks that a recipe requires and the certificate does not grant, in the order of `CHECKS`.

    A required check must be ``PASS``. ``UNDETERMINED`` and ``NOT_APPLICABLE`` are enough only where the
    recipe lists the check under ``accept_undetermined``; ``FAIL`` never is. A certificate whose verdict is
    ``refused`` grants nothing.
    """
    wanted = [name for name in CHECKS if name in set(require)]
    if certificate.verdict != "admitted":
        return tuple(wanted) or ("verdict",)
    enough = {name: {"PASS"} for name in CHECKS}
    for name in CHECKS:
        if name in accept_undetermined:
            enough[name] |= {"UNDETERMINED", "NOT_APPLICABLE"}
    strangers = sorted(set(require) - set(CHECKS))  # a check of a later version: not granted
    return (*(name for name in wanted if certificate.states[name] not in enough[name]), *strangers)


def seal_certificate(certificate: QualityCertificate, key: SigningKey) -> Envelope:
    """The certificate, signed by its node."""
    return Envelope.seal(certificate.canonical, CERTIFICATE_TYPE, key)


def open_certificate(envelope: Envelope, public_key: bytes) -> QualityCertificate:
    """The certificate of an envelope.

    Raises:
        SignatureInvalidError: Another payload type, or not signed by this key.
        EncodingError: Not canonical bytes.
        CertificateInvalidError: See `QualityCertificate.parse`; also a certificate beyond its bound.
    """
    if len(envelope.payload) > CERTIFICATE_BYTES:
        raise CertificateInvalidError(
            need=f"at most {CERTIFICATE_BYTES} bytes",
            found=str(len(envelope.payload)),
            remedy="import with fewer signal maps",
        )
    return QualityCertificate.parse(envelope.open_as(CERTIFICATE_TYPE, public_key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One episode that the owner shows to an auditor; it says nothing about the others.

    Attributes:
        facts: ``episode``, ``stamps`` and ``labels`` (digests, hex), ``clock``, ``map``, ``excluded``.
        key: Key of this leaf alone, 32 bytes.
        index: Place of the leaf.
        size: Leaves of the tree, filled up to a round number.
        proof: Hashes from the leaf to the root.
    """

    facts: Mapping[str, str]
    key: bytes
    index: int
    size: int
    proof: Sequence[bytes]


def keyed_leaf(key: bytes, facts: Mapping[str, str]) -> bytes:
    """HMAC-SHA256 of an episode's canonical facts under its leaf's key, 32 bytes."""
    return hmac.digest(key, canonical(dict(facts)), "sha256")


def check_opening(certificate: QualityCertificate, opening: Opening) -> Mapping[str, str]:
    """The facts of an opened episode, once they are part of what the certificate is about.

    Raises:
        ProofError: Other facts than an episode's, or not in the tree.
    """
    facts = dict(opening.facts)
    if sorted(facts) != list(_FACTS) or any(not isinstance(one, str) for one in facts.values()):
        raise _no_episode("other facts")
    if len(facts["episode"]) != 64 or not set(facts["episode"]) <= _HEX:  # noqa: PLR2004  SHA-256 in hex
        raise _no_episode("another form of digest")
    leaf = leaf_hash(keyed_leaf(opening.key, facts))
    root = bytes.fromhex(certificate.data_root.removeprefix("sha256:"))
    verify_inclusion(leaf, opening.index, opening.size, list(opening.proof), root)
    return facts


def _no_episode(found: str) -> ProofError:
    return ProofError(
        need="the facts of one episode: " + ", ".join(_FACTS),
        found=found,
        remedy="ask the owner to open it again",
    )
