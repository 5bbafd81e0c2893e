# SPDX-License-Identifier: Apache-2.0
"""How a successor comes in: by whose signatures, asked of which clause, with what of its predecessor.

One rule for node, broker and auditor:

- A contract is **executed** by the signatures of every contributor and the broker. A successor may instead
  enter as a *tightening*: signed by the contributor who started it and the broker, over a predecessor that is
  in force itself and lets any contributor tighten, with the verdict that it is no looser found again by
  whoever uses it (`check_entered`).
- The predecessor is asked twice (`Join`): before the successor is opened, and before it takes effect, as of
  the moment at which it does (`join_request`, `moment`).
- A signature counts by the key that the successor pins, or by the key in force of that party before.
- **A change begins a new life**: everybody signed it. **A tightening goes on with the old one**
  (`inherited`): halts stay in force, who has left stays out, keys that were rotated stay so. Nobody alone
  lifts a halt by tightening something. Numbers of notices begin again, and what is attested about a contract
  by its digest is attested anew.

    initiator = check_entered(new, envelope, old=old)                       # None: everybody signed
    evaluate(old, moment(new, state), join_request(old, new, life, stage="effect", kind="tighten", ...))
    life = inherited(life_of_old, new, finalized_at="2027-03-01T00:00:00Z")
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policies.contract.amendment import judge_amendment, recheck
from policies.contract.checks.changes import CHANGE, EFFECT, OPEN, TIGHTEN
from policies.contract.errors import NotExecutedError, RefusedError
from policies.contract.lifecycle.life import key_of
from policies.contract.requests import Join
from policies.contract.signatures import executed, signers
from policies.identity import parse_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.amendment.verdict import Verdict
    from policies.contract.clauses import Contract
    from policies.contract.lifecycle.life import Life
    from policies.contract.requests import ContractState
    from policies.signing import Envelope

__all__ = [
    "CHANGE",
    "EFFECT",
    "OPEN",
    "TIGHTEN",
    "check_entered",
    "dropped",
    "inherited",
    "is_executed",
    "join_request",
    "moment",
    "no_looser",
    "who_signed",
]

_ANYBODY: Final = "any-contributor"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_NO_KEYS: Final[Mapping[str, str]] = _NOTHING


def is_executed(contract: Contract, envelope: Envelope) -> bool:
    """Whether every contributor and the broker signed by the pinned key."""
    try:
        executed(contract, envelope)
    except NotExecutedError:
        return False
    return True


def who_signed(
    old: Contract, new: Contract, envelope: Envelope, rotated: Mapping[str, str] = _NO_KEYS
) -> tuple[str, ...]:
    """Parties of the predecessor that signed the successor, each once, sorted.

    Args:
        old: The contract that rules.
        new: Its successor.
        envelope: The successor's signatures.
        rotated: Keys in force of parties of the old contract that changed theirs.

    Raises:
        ContractSignatureError: The envelope holds another type or other bytes.
    """
    pinned = set(signers(new, envelope))
    by_present = {
        one.party for one in old.parties if envelope.signed_by(parse_key(rotated.get(one.party, one.key)))
    }
    return tuple(sorted((pinned | by_present) & {one.party for one in old.parties}))


def no_looser(old: Contract, new: Contract, initiator: str) -> Verdict:
    """The verdict about a tightening, once it is found here that it is one.

    Raises:
        NotASuccessorError: It does not follow the old contract.
        RefusedError: It allows or takes something; the clause is named, with the witness.
        ProofMissingError: Only the prover could tell, and it is not installed.
    """
    return _held(old, judge_amendment(old, new, kind=TIGHTEN, initiator=initiator))


def check_entered(
    new: Contract,
    envelope: Envelope,
    *,
    old: Contract | None = None,
    rotated: Mapping[str, str] = _NO_KEYS,
    verdict: bytes | None = None,
) -> str | None:
    """Returns once these signatures, and what is proven here, let the contract be used.

    1. everybody signed: nothing else is needed; 2. else it follows a contract that rules and may be tightened
    by anybody; 3. the broker and a contributor of that contract signed; 4. it is no looser, found here.

    Args:
        new: The contract.
        envelope: Its signatures.
        old: The contract that it supersedes, if that is known here and in force by this same rule.
        rotated: See `who_signed`.
        verdict: Somebody's verdict, which names who started it; without one, who signed is taken for it.

    Returns:
        Who tightened, or None where everybody signed.

    Raises:
        ContractSignatureError: The envelope holds another type or other bytes.
        NotExecutedError: Steps 2, 3: names who has not signed.
        RefusedError, ProofMissingError: Step 4: see `no_looser`.
        VerdictMalformedError, VerdictDisagreesError: The verdict does not hold here.
    """
    # 1.
    try:
        executed(new, envelope)
    except NotExecutedError:
        # 2.
        if old is None or new.supersedes != old.digest or old.amendment.tighten != _ANYBODY:
            raise
        # 3.
        signed = who_signed(old, new, envelope, rotated)
        started = [one.party for one in old.contributors if one.party in signed]
        if new.broker.party not in signed or not started:
            raise
        # 4.
        if verdict is None:
            return _first_that_holds(old, new, started)
        own = _held(old, recheck(old, new, verdict))
        if own.initiator not in started or own.kind != TIGHTEN:
            raise
        return own.initiator
    return None


def _first_that_holds(old: Contract, new: Contract, started: list[str]) -> str:
    """Who of those that signed may have started it: what one may give up of its own, another may not take."""
    refused: RefusedError | None = None
    for name in started:
        try:
            no_looser(old, new, name)
        except RefusedError as error:
            refused = refused or error
        else:
            return name
    raise (
        refused
        if refused is not None
        else NotExecutedError(
            need="a contributor's signature", found="none", remedy="wait for the signatures that are missing"
        )
    )


def _held(old: Contract, verdict: Verdict) -> Verdict:
    if not verdict.no_looser:
        first = verdict.objections[0]
        raise RefusedError(
            need=f"a successor that allows nothing more than version {old.version}, as a tightening",
            found=first.words,
            remedy="do not use it; ask for it as a change, which needs your signature",
            clause=first.clause,
        )
    return verdict


def join_request(
    old: Contract,
    new: Contract,
    life: Life,
    *,
    stage: str,
    kind: str,
    party: str | None = None,
    proven: bool = False,
    signed: tuple[str, ...] = (),
) -> Join:
    """What the contract that rules is asked about its successor.

    Args:
        old: The contract that rules.
        new: Its successor.
        life: Of the old contract.
        stage: ``open`` or ``effect``.
        kind: ``tighten`` or ``change``.
        party: Who starts it; the broker if left out, or if it is no party of the old contract.
        proven: Whether it is found here that it is no looser.
        signed: Of `who_signed`.
    """
    asks = party if old.party(party) is not None else old.broker.party
    newcomers = {one.party: one.org for one in new.parties if old.party(one.party) is None}
    return Join(
        party=asks,
        key=key_of(old, life, str(asks)),
        stage=stage,
        kind=kind,
        supersedes=new.supersedes,
        version=new.version,
        no_looser=proven,
        signers=signed,
        newcomers=tuple(sorted(newcomers)),
        attestations=tuple(sorted(name for name, org in newcomers.items() if org in life.admitted)),
        groups={one.party: one.group for one in new.contributors},
        keys={one.party: one.key for one in new.parties},
    )


def moment(new: Contract, state: ContractState) -> ContractState:
    """The state as of the moment at which the successor takes effect: the first of its term.

    Signatures are never later (``sign_by``), and who looks later asks about the same moment.
    """
    return replace(state, now=new.term.effective)


def dropped(old: Contract, new: Contract, life: Life) -> tuple[str, ...]:
    """Contributors that the successor does not have any more and that gave no notice of exit."""
    kept = {one.party for one in new.contributors}
    return tuple(
        one.party for one in old.contributors if one.party not in kept and one.party not in life.exited
    )


def inherited(before: Life, new: Contract, *, finalized_at: str) -> Life:
    """The life with which a tightening begins: its predecessor's, with no number used yet.

    Args:
        before: Life of the predecessor when it was superseded.
        new: The successor.
        finalized_at: When its signatures were there.
    """
    return replace(
        before,
        contract=new.digest,
        finalized_at=finalized_at,
        superseded_by=None,
        terminated=None,
        attested=_NOTHING,
        admitted=_NOTHING,
        seqs=_NOTHING,
        said_at=_NOTHING,
        resumes=_NOTHING,
    )
