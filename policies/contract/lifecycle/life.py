# SPDX-License-Identifier: Apache-2.0
"""What has happened to a contract so far, and what that makes of it now. Values and questions; no rules.

How a life comes about is in `policies.contract.lifecycle`, which hands all of this on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policies.contract.requests import ContractState, Exit
from policies.errors import invariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.contract.clauses import Contract, PartyClause
    from policies.contract.notices import Attestation, Notice

__all__ = [
    "ACTIVE",
    "EXPIRED",
    "HALTED",
    "IN_FORCE",
    "OFFERED",
    "PENDING",
    "SUPERSEDED",
    "TERMINATED",
    "Departure",
    "Ending",
    "Life",
    "contract_state",
    "exit_request",
    "key_of",
    "life_view",
    "party_of_key",
    "remaining",
    "run_over",
    "since",
    "standing",
]

Json = Any  # a JSON value

OFFERED: Final = "OFFERED"
PENDING: Final = "PENDING"
ACTIVE: Final = "ACTIVE"
HALTED: Final = "HALTED"
EXPIRED: Final = "EXPIRED"
TERMINATED: Final = "TERMINATED"
SUPERSEDED: Final = "SUPERSEDED"
IN_FORCE: Final = "in-force"

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_NOBODY: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({})


class Departure(NamedTuple):
    """When a contributor left, by its notice, and what becomes of candidates that hold its updates."""

    at: str
    choice: str


class Ending(NamedTuple):
    """Why a contract was terminated: reason code, and the clause that ended it."""

    code: str
    clause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What has happened to a contract so far.

    Attributes:
        contract: Digest.
        finalized_at: When every signature was there and logged; None before.
        halts: Open halts, oldest first.
        resumed_by: Parties that signed a resume, by the digest of each open halt.
        exited: Contributors that left.
        asked_out: Who said that an absent contributor is to leave, by its name and choice.
        rotated: Present key of each party that changed the pinned one.
        former_keys: Keys that were rotated away or to, in that order; none of them comes back.
        attested: Latest attestation of each party.
        admitted: Parties that vouch for the admission of an organisation, by its id.
        superseded_by: Digest of the successor in force.
        terminated: Why it ended.
        changed_at: Time of the last change between halted, not halted and ended.
        seqs: Number of each party's last notice.
        said_at: Time of each party's last notice.
        resumes: How many resumes of each party had their effect; they are not counted against its room.
    """

    contract: str
    finalized_at: str | None = None
    halts: tuple[Notice, ...] = ()
    resumed_by: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    exited: Mapping[str, Departure] = field(default_factory=lambda: _EMPTY)
    asked_out: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=lambda: _NOBODY)
    rotated: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    former_keys: tuple[str, ...] = ()
    attested: Mapping[str, Attestation] = field(default_factory=lambda: _EMPTY)
    admitted: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    superseded_by: str | None = None
    terminated: Ending | None = None
    changed_at: str | None = None
    seqs: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    said_at: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    resumes: Mapping[str, int] = field(default_factory=lambda: _EMPTY)

    @property
    def ended(self) -> bool:
        """Whether no notice can bring it back: terminated or superseded."""
        return self.terminated is not None or self.superseded_by is not None

    def next_seq(self, party: str) -> int:
        """The number of the party's next notice."""
        return self.seqs.get(party, 0) + 1

    def next_at(self, party: str, now: str) -> str:
        """The time for the party's next notice: now, or its last notice's where a clock went back."""
        return max(now, self.said_at.get(party, now))

    def heard(self, party: str, seq: int, at: str) -> Life:
        """The life with a notice counted: its number and time are used."""
        return replace(self, seqs={**self.seqs, party: seq}, said_at={**self.said_at, party: at})


def standing(contract: Contract, life: Life, now: str) -> str:
    """Where the contract stands: an end before the term, the term before a halt.

    Args:
        contract: The contract.
        life: Its life.
        now: `policies.ports.iso_s`; such texts compare as times do.
    """
    if life.finalized_at is None:
        return OFFERED
    if life.terminated is not None:
        return TERMINATED
    if life.superseded_by is not None:
        return SUPERSEDED
    if now >= contract.term.expires:
        return EXPIRED
    if life.halts:
        return HALTED
    return PENDING if now < contract.term.effective else ACTIVE


def since(contract: Contract, life: Life, now: str) -> str | None:
    """From when on the contract has its present standing; None for one that is offered."""
    found = standing(contract, life, now)
    if found == EXPIRED:
        return contract.term.expires
    if found in (PENDING, OFFERED):
        return life.finalized_at
    changed = life.changed_at or str(life.finalized_at)
    return max(changed, contract.term.effective) if found == ACTIVE else changed


def contract_state(contract: Contract, life: Life, now: str) -> ContractState:
    """What the evaluator is told."""
    invariant(life.contract == contract.digest, "a contract is judged by its own life")
    ended = "terminated" if life.terminated is not None else "superseded"
    return ContractState(
        now=now,
        executed=life.finalized_at is not None,
        halted=bool(life.halts),
        exited_parties=tuple(sorted(life.exited)),
        standing=ended if life.ended else IN_FORCE,
        rotated_keys=dict(life.rotated),
    )


def remaining(contract: Contract, life: Life) -> tuple[str, ...]:
    """Contributors that have not exited."""
    return tuple(one.party for one in contract.contributors if one.party not in life.exited)


def key_of(contract: Contract, life: Life, party: str) -> str | None:
    """The key in force of a party, as text; None for a stranger."""
    clause = contract.party(party)
    return None if clause is None else life.rotated.get(party, clause.key)


def party_of_key(contract: Contract, life: Life, key: str) -> PartyClause | None:
    """The party whose key in force this is, or None; a key that was rotated away is nobody's."""
    return next((one for one in contract.parties if key_of(contract, life, one.party) == key), None)


def life_view(contract: Contract, life: Life, now: str) -> dict[str, Json]:
    """The life as JSON, without the notices themselves."""
    return {
        "digest": contract.digest,
        "standing": standing(contract, life, now),
        "since": since(contract, life, now),
        "halts": [one.digest for one in life.halts],
        "resumed_by": {name: list(parties) for name, parties in life.resumed_by.items()},
        "exited": {name: one._asdict() for name, one in life.exited.items()},
        "asked_out": [
            {"party": party, "choice": choice, "by": list(voices)}
            for (party, choice), voices in sorted(life.asked_out.items())
        ],
        "rotated": dict(life.rotated),
        "superseded_by": life.superseded_by,
        "terminated": None if life.terminated is None else life.terminated._asdict(),
    }


def exit_request(contract: Contract, life: Life, notice: Notice) -> Exit:
    """The evaluator's question about a notice of exit: may who leaves by it leave?"""
    leaver = notice.subject or notice.party
    return Exit(
        party=leaver,
        key=key_of(contract, life, leaver),
        notice=notice.digest,
        notice_at=notice.at,
        unreleased_models=notice.choice,
    )


def run_over(contract: Contract, life: Life, now: str, trained: Iterable[str]) -> tuple[str, str] | None:
    """Why a run under the contract is over for good, as clause and words; None if it may go on.

    A run goes on under the successor of its contract; one that is under a superseded one still could not.

    Args:
        contract: Of the run.
        life: Of the contract.
        now: Until when to look.
        trained: Parties whose update is in the run's model.
    """
    if life.terminated is not None:
        return life.terminated.clause, f"the contract was terminated: {life.terminated.code}"
    if life.superseded_by is not None and str(life.changed_at) <= now:
        return contract.amendment.clause, f"its successor {life.superseded_by} does not list the recipe"
    if now >= contract.term.expires:
        return contract.term.clause, f"the term ended at {contract.term.expires}"
    gone = sorted(name for name in trained if name in life.exited and life.exited[name].at <= now)
    if gone:
        return contract.exit.clause, f"the updates of {', '.join(gone)}, which left, are in its model"
    return None
