# SPDX-License-Identifier: Apache-2.0
"""What this node asks the contract that rules before a successor of it is signed, or used.

- **Before signing** (`check_opening`): the contract that rules is asked whether this successor may be
  opened at all: next version, newcomers vouched for, the broker apart, a key for each party.
- **Before use** (`check_effect`): it is asked whether the successor may take effect. A ``change`` needs
  the signatures of everybody. A ``tighten`` needs those of its initiator and the broker, and this node's
  own verdict that it allows nothing new and takes nothing from anybody; the broker's word for it is not
  asked. Without the prover, what the order table does not show is refused (`contract.proof-missing`).

Both are the evaluator's `Join`, answered from this node's own files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract import Join, evaluate, executed
from policies.contract.amendment import judge_amendment
from policies.contract.errors import NotExecutedError, RefusedError
from policies.contract.signatures import signers
from policies.identity import parse_key

if TYPE_CHECKING:
    from client.shelf import ContractShelf, Held
    from policies.contract import Contract, ContractState
    from policies.contract.lifecycle import Life
    from policies.signing import Envelope

__all__ = ["check_effect", "check_opening", "predecessor", "tightened_by"]

_CHANGE: Final = "change"
_TIGHTEN: Final = "tighten"


def predecessor(shelf: ContractShelf, contract: Contract) -> Held | None:
    """The executed contract that this one supersedes, if it is here."""
    if contract.supersedes is None or contract.supersedes not in shelf.digests():
        return None
    held = shelf.get(contract.supersedes)
    return held if held.is_executed else None


def check_opening(old: Contract, new: Contract, state: ContractState, life: Life) -> None:
    """Returns if the contract that rules lets this successor be opened, as a change by all.

    Raises:
        RefusedError: It does not; the clause is named.
    """
    request = _join(old, new, state, life, stage="open", kind=_CHANGE, party=old.broker.party)
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
        NotExecutedError: Too few have signed.
        RefusedError: The contract that rules does not allow it; the clause is named.
        ProofMissingError: It rests on a proof, and the prover is not installed.
    """
    initiator = _initiator(old, new, envelope)
    request = _join(
        old,
        new,
        state,
        life,
        stage="effect",
        kind=_CHANGE if initiator is None else _TIGHTEN,
        party=initiator or old.broker.party,
        no_looser=False if initiator is None else _judged(old, new, initiator),
        signed=_signed(old, envelope, state),
    )
    evaluate(old, state, request).require()


def tightened_by(old: Contract, new: Contract, envelope: Envelope) -> str | None:
    """Who tightened a contract by this successor, once that is proven here; None if everybody signed it.

    Raises:
        NotExecutedError: Neither everybody, nor a contributor and the broker.
        RefusedError: It is no tightening; the clause is named.
        ProofMissingError: See `check_effect`.
    """
    initiator = _initiator(old, new, envelope)
    if initiator is not None:
        _judged(old, new, initiator)
    return initiator


def _initiator(old: Contract, new: Contract, envelope: Envelope) -> str | None:
    """The contributor who signed a tightening; None where everybody signed, which makes it a change.

    Raises:
        NotExecutedError: Neither.
    """
    try:
        executed(new, envelope)
    except NotExecutedError:
        signed = signers(new, envelope)
        own = [one.party for one in old.contributors if one.party in signed]
        if new.broker.party not in signed or not own or old.amendment.tighten != "any-contributor":
            raise
        return own[0]
    return None


def _judged(old: Contract, new: Contract, initiator: str) -> bool:
    """True, once this node finds itself that the successor allows nothing new and takes nothing.

    Raises:
        RefusedError: It does not; the clause is named.
        ProofMissingError: It cannot tell.
    """
    verdict = judge_amendment(old, new, kind=_TIGHTEN, initiator=initiator)
    if not verdict.no_looser:
        first = verdict.objections[0]
        raise RefusedError(
            need=f"a successor that allows nothing more than version {old.version}, as a tightening",
            found=first.words,
            remedy="do not use it; ask for it as a change, which needs your signature",
            clause=first.clause,
        )
    return True


def _signed(old: Contract, envelope: Envelope, state: ContractState) -> tuple[str, ...]:
    """Parties of the contract that rules whose key in force signed the successor."""
    rotated = state.rotated_keys or {}
    keys = {one.party: rotated.get(one.party, one.key) for one in old.parties}
    return tuple(sorted(name for name, key in keys.items() if envelope.signed_by(parse_key(key))))


def _join(
    old: Contract,
    new: Contract,
    state: ContractState,
    life: Life,
    *,
    stage: str,
    kind: str,
    party: str,
    no_looser: bool = False,
    signed: tuple[str, ...] = (),
) -> Join:
    asks = old.party(party)
    newcomers = {one.party: one.org for one in new.parties if old.party(one.party) is None}
    rotated = state.rotated_keys or {}
    return Join(
        party=party,
        key=None if asks is None else rotated.get(party, asks.key),
        stage=stage,
        kind=kind,
        supersedes=new.supersedes,
        version=new.version,
        no_looser=no_looser,
        signers=signed,
        newcomers=tuple(sorted(newcomers)),
        attestations=tuple(sorted(name for name, org in newcomers.items() if org in life.admitted)),
        groups={one.party: one.group for one in new.contributors},
        keys={one.party: one.key for one in new.parties},
    )
