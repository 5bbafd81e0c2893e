# SPDX-License-Identifier: Apache-2.0
"""A data set's descriptor is taken back out of the catalogue: what its owner signs about that.

- ``iriai-withdrawal/1``, canonical JSON, DSSE by the node's key, payload type
  ``application/vnd.iriai.withdrawal.v1+json``.
- It ends one publication, and names it by the descriptor's digest and by its number, which the catalogue gave
  it and never gives again: sent once more after the next publication it ends nothing.
- It says nothing about contracts: what was signed stays signed.

    envelope = seal_withdrawal(Withdrawal.build(node=…, dataset=…, descriptor=…, number=7, at=…), node_key)
    withdrawal = open_withdrawal(envelope, node_public_key)     # WithdrawalInvalidError

What `open_withdrawal` verifies, in this order: (1) its size, (2) payload type and signature, (3) canonical
bytes, (4) each key and value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError

from policies.errors import IriaiError
from policies.limits import DESCRIPTOR_BYTES
from policies.messages import DatasetName, DigestText, NodeId, Statement, first_fault
from policies.signing import Envelope

if TYPE_CHECKING:
    from policies.identity import SigningKey

__all__ = ["WITHDRAWAL_TYPE", "Withdrawal", "WithdrawalInvalidError", "open_withdrawal", "seal_withdrawal"]

WITHDRAWAL_TYPE: Final = "application/vnd.iriai.withdrawal.v1+json"
_NUMBERS: Final = 2**53 - 1  # what every reader of JSON keeps whole


class WithdrawalInvalidError(IriaiError):
    """A withdrawal of a descriptor with an unknown key, or without one that it needs."""

    code = "catalogue.withdrawal-invalid"
    exit_code = 3
    http_status = 422


class Withdrawal(Statement):
    """Which publication of which data set its owner ends, and on which day."""

    schema_: Literal["iriai-withdrawal/1"] = Field(alias="schema")
    node: NodeId
    dataset: DatasetName
    descriptor: DigestText
    number: Annotated[int, Field(ge=0, le=_NUMBERS)]
    at: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]

    @classmethod
    def build(cls, *, node: str, dataset: str, descriptor: str, number: int, at: str) -> Self:
        """A checked withdrawal.

        Raises:
            WithdrawalInvalidError: A value that is not of its form.
        """
        return cls.parse(
            {
                "schema": "iriai-withdrawal/1",
                "node": node,
                "dataset": dataset,
                "descriptor": descriptor,
                "number": number,
                "at": at,
            }
        )

    @classmethod
    def parse(cls, document: Any) -> Self:  # noqa: ANN401  a JSON value of another party
        """The withdrawal behind a JSON value.

        Raises:
            WithdrawalInvalidError: An unknown or missing key, or a value that is not of its form.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            need, found = first_fault(error)
            raise WithdrawalInvalidError(
                need=need, found=found, remedy="iriai-node data withdraw makes and signs one"
            ) from error


def seal_withdrawal(withdrawal: Withdrawal, key: SigningKey) -> Envelope:
    """The withdrawal, signed by its node."""
    return Envelope.seal(withdrawal.canonical, WITHDRAWAL_TYPE, key)


def open_withdrawal(envelope: Envelope, public_key: bytes) -> Withdrawal:
    """The withdrawal of an envelope.

    Raises:
        SignatureInvalidError: Another payload type, or not signed by this key.
        EncodingError: Not canonical bytes.
        WithdrawalInvalidError: See `Withdrawal.parse`; also one beyond its bound.
    """
    if len(envelope.payload) > DESCRIPTOR_BYTES:  # 1
        raise WithdrawalInvalidError(
            need=f"at most {DESCRIPTOR_BYTES} bytes",
            found=str(len(envelope.payload)),
            remedy="iriai-node data withdraw makes and signs one",
        )
    return Withdrawal.parse(envelope.open_as(WITHDRAWAL_TYPE, public_key))  # 2, 3, 4
