# SPDX-License-Identifier: Apache-2.0
"""What this node asks the contract that rules before a successor of it is signed, or used.

- **Before signing** (`check_opening`): the contract that rules is asked whether this successor may be
  opened at all: next version, newcomers vouched for, the broker apart, a key for each party.
- **Before use** (`check_effect`): it is asked whether the successor may take effect. A ``change`` needs
  the signatures of everybody. A ``tighten`` needs those of its initiator and the broker, and this node's
  own verdict that it allows nothing new and takes nothing from anybody; the broker's word for it is not
  asked. Without the prover, what the order table does not show is refused (`contract.proof-missing`).

The rule is the one of broker and auditor (`policies.contract.entering`); both questions are the evaluator's
`Join`, answered from this node's own files, as of the moment at which the successor takes effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract import evaluate
from policies.contract.amendment.succession import check_succession
from policies.contract.entering import (
    CHANGE,
    EFFECT,
    OPEN,
    TIGHTEN,
    check_entered,
    join_request,
    moment,
    who_signed,
)

if TYPE_CHECKING:
    from client.contract.shelf import ContractShelf, Held
    from policies.contract import Contract, ContractState
    from policies.contract.lifecycle import Life
    from policies.signing import Envelope

__all__ = ["check_effect", "check_opening", "predecessor"]


def predecessor(shelf: ContractShelf, contract: Contract) -> Held | None:
    """The executed contract that this one supersedes, if it is here."""
    if contract.supersedes is None or contract.supersedes not in shelf.digests():
        return None
    held = shelf.get(contract.supersedes)
    return held if held.is_executed else None


def check_opening(
    old: Contract, new: Contract, state: ContractState, life: Life, *, kind: str = CHANGE
) -> None:
    """Returns if the contract that rules lets this successor be opened.

    Raises:
        NotASuccessorError: It does not follow that contract.
        RefusedError: It may not; the clause is named.
    """
    check_succession(old, new)
    request = join_request(old, new, life, stage=OPEN, kind=kind, proven=kind == TIGHTEN)
    evaluate(old, state, request).require()


def check_effect(old: Contract, new: Contract, envelope: Envelope, state: ContractState, life: Life) -> None:
    """Returns if the successor may take effect by these signatures.

    Args:
        old: The contract that rules.
        new: Its successor.
        envelope: The successor's signatures.
        state: What is known here about the contract that rules.
        life: Its life.

    Raises:
        NotASuccessorError: It does not follow that contract.
        NotExecutedError: Too few have signed.
        RefusedError: The contract that rules does not allow it; the clause is named.
        ProofMissingError: It rests on a proof, and the prover is not installed.
    """
    check_succession(old, new)
    initiator = check_entered(new, envelope, old=old, rotated=life.rotated)
    request = join_request(
        old,
        new,
        life,
        stage=EFFECT,
        kind=CHANGE if initiator is None else TIGHTEN,
        party=initiator,
        proven=initiator is not None,
        signed=who_signed(old, new, envelope, life.rotated),
    )
    evaluate(old, moment(new, state), request).require()
