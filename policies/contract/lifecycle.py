# SPDX-License-Identifier: Apache-2.0
"""The life of a contract: what notices and time make of it. Pure, and the same for node, broker and auditor.

    OFFERED --finalized--> PENDING --effective--> ACTIVE <--halt, resume--> HALTED
    ACTIVE, HALTED --expires--> EXPIRED     any --exit below k--> TERMINATED, --successor--> SUPERSEDED

- **Notices only, in the order in which they were taken.** `take` opens one more envelope under the keys in
  force at that moment and gives the next `Life`, or raises and nothing has changed.
- **Void notices count.** Who signs a notice cannot know what arrives before it (a halt of a contract that has
  just ended). `absorb` gives such a notice its number and no effect, so that its party's numbers go on.
  Broker, node and auditor fold histories with it (`follow`): equal histories give equal lives.
- **Halt.** One notice of a party that the halt clause names stops everything. It ends when every contributor
  that has not exited signed a resume naming that halt; several halts end one by one.
- **Exit.** Judged by the evaluator (`Exit`). The leaver's influence ends with the notice, and its word is not
  needed any more for a resume. If fewer than k groups remain, the contract ends, by the aggregation clause.
- **Rotation.** From the next notice on, the party is known by the new key. A key that any party of the
  contract has or had is refused.
- **Expiry** needs no notice: at the first second of ``term.expires`` the contract is EXPIRED.
- After an end (TERMINATED, SUPERSEDED) only rotations and attestations are taken: released models may still
  be delivered, and that needs both.

    life = begin(contract, finalized_at="2026-11-20T10:00:00Z")
    life, notice = take(contract, life, envelope)             # verified, then applied
    standing(contract, life, "2026-12-24T00:00:00Z")          # "HALTED"
    evaluate(contract, contract_state(contract, life, now), request)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policies.contract.errors import (
    LifecycleError,
    NoticeEntitlementError,
    NoticeOrderError,
    RefusedError,
)
from policies.contract.notices import Attestation, Notice, open_notice
from policies.contract.requests import ContractState, Exit
from policies.errors import invariant
from policies.identity import key_id, parse_key
from policies.limits import NOTICES_PER_PARTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from policies.contract.clauses import Contract, PartyClause
    from policies.errors import IriaiError
    from policies.signing import Envelope

__all__ = [
    "ACTIVE",
    "EXPIRED",
    "HALTED",
    "IN_FORCE",
    "OFFERED",
    "PENDING",
    "SUPERSEDED",
    "TERMINATED",
    "TOO_FEW_GROUPS",
    "Departure",
    "Ending",
    "Life",
    "absorb",
    "advance",
    "begin",
    "contract_state",
    "exit_request",
    "finalized",
    "follow",
    "key_of",
    "life_view",
    "party_of_key",
    "remaining",
    "since",
    "standing",
    "superseded",
    "take",
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
TOO_FEW_GROUPS: Final = "exit.too-few-groups"

_EMPTY: Mapping[str, Any] = MappingProxyType({})


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
        rotated: Present key of each party that changed the pinned one.
        former_keys: Keys that were rotated away or to, in that order; none of them comes back.
        attested: Latest attestation of each party.
        admitted: Parties that vouch for the admission of an organisation, by its id.
        superseded_by: Digest of the successor in force.
        terminated: Why it ended.
        changed_at: Time of the last change between halted, not halted and ended.
        seqs: Number of each party's last notice.
    """

    contract: str
    finalized_at: str | None = None
    halts: tuple[Notice, ...] = ()
    resumed_by: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    exited: Mapping[str, Departure] = field(default_factory=lambda: _EMPTY)
    rotated: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    former_keys: tuple[str, ...] = ()
    attested: Mapping[str, Attestation] = field(default_factory=lambda: _EMPTY)
    admitted: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    superseded_by: str | None = None
    terminated: Ending | None = None
    changed_at: str | None = None
    seqs: Mapping[str, int] = field(default_factory=lambda: _EMPTY)

    @property
    def ended(self) -> bool:
        """Whether no notice can bring it back: terminated or superseded."""
        return self.terminated is not None or self.superseded_by is not None

    def next_seq(self, party: str) -> int:
        """The number of the party's next notice."""
        return self.seqs.get(party, 0) + 1


def begin(contract: Contract, *, finalized_at: str | None = None) -> Life:
    """The life of a contract about which nothing was said yet."""
    return Life(contract=contract.digest, finalized_at=finalized_at)


def finalized(life: Life, at: str) -> Life:
    """The life from the moment on at which every signature was there."""
    return replace(life, finalized_at=at)


def superseded(life: Life, successor: str, at: str) -> Life:
    """The life from the moment on at which a successor took effect."""
    return replace(life, superseded_by=successor, changed_at=at)


def take(contract: Contract, life: Life, envelope: Envelope) -> tuple[Life, Notice]:
    """Opens one more notice under the keys in force, and gives the life after it.

    Raises:
        NoticeMalformedError, SignatureInvalidError, WeakKeyError: See `open_notice`.
        LifecycleError, RefusedError: See `advance`.
    """
    notice = open_notice(envelope, contract, rotated=life.rotated, exited=life.exited)
    return advance(contract, life, notice), notice


def absorb(contract: Contract, life: Life, envelope: Envelope) -> tuple[Life, Notice, IriaiError | None]:
    """Opens one more notice; where it is void, its number is used and nothing else happens.

    Returns:
        The life, the notice, and why it is void: `LifecycleError` or `RefusedError`; None if it has its
        effect.

    Raises:
        NoticeMalformedError, SignatureInvalidError, WeakKeyError: It is nobody's notice: see `open_notice`.
        NoticeOrderError: Its number is used, or one before it is missing.
    """
    notice = open_notice(envelope, contract, rotated=life.rotated, exited=life.exited)
    try:
        return advance(contract, life, notice), notice, None
    except NoticeOrderError:
        raise
    except (LifecycleError, RefusedError) as error:
        return replace(life, seqs={**life.seqs, notice.party: notice.seq}), notice, error


def follow(contract: Contract, envelopes: Iterable[Envelope], *, finalized_at: str | None) -> Life:
    """The life behind a whole history, in the order in which the notices were taken.

    Raises:
        IriaiError: See `absorb`; a history with somebody else's notice, or with a gap, is no history.
    """
    life = begin(contract, finalized_at=finalized_at)
    for one in envelopes:
        life, _, _ = absorb(contract, life, one)
    return life


def advance(contract: Contract, life: Life, notice: Notice) -> Life:
    """The life after a notice that `open_notice` verified.

    1. the contract is final, and this is its life; 2. the party's next number; 3. the contract has not ended;
    4. what the kind asks for.

    Raises:
        NoticeOrderError: Step 2.
        NoticeEntitlementError: Step 4: the contract does not let this party say it.
        RefusedError: Step 4: an exit that the contract refuses.
        LifecycleError: Steps 1, 3, 4: it would change nothing, or take a key that was used.
    """
    # 1.
    if life.contract != notice.contract or life.finalized_at is None:
        raise _void("a contract that everybody signed", "one that is not final", "wait for the signatures")
    # 2.
    _check_seq(life, notice)
    # 3.
    if life.ended and notice.kind not in ("rotate", "attest"):
        raise _void("a contract in force", _ended_words(life), "nothing is left to stop, resume or leave")
    # 4.
    after = _STEPS[notice.kind](contract, life, notice)
    return replace(after, seqs={**life.seqs, notice.party: notice.seq})


def _check_seq(life: Life, notice: Notice) -> None:
    expected = life.next_seq(notice.party)
    if notice.seq == expected and expected <= NOTICES_PER_PARTY:
        return
    if expected > NOTICES_PER_PARTY:
        need, remedy = f"at most {NOTICES_PER_PARTY} notices of one party", "make a successor contract"
    elif notice.seq < expected:
        need, remedy = f"number {expected}", "it was used: was contracts/ restored from a copy?"
    else:
        need, remedy = f"number {expected}", "send the notices before it first"
    raise NoticeOrderError(need=need, found=f"number {notice.seq} of {notice.party}", remedy=remedy)


# --- one step per kind; each gives the life without the new number ---


def _halt(contract: Contract, life: Life, notice: Notice) -> Life:
    role = _role(contract, notice)
    who = {"contributor": "any-contributor"}.get(role, role)
    if who not in contract.halt.who:
        raise _not_entitled(contract.halt.clause, "a halt by " + " ".join(contract.halt.who), who)
    _require_present(life, notice, contract.halt.clause)
    return replace(
        life,
        halts=(*life.halts, notice),
        resumed_by={**life.resumed_by, notice.digest: ()},
        changed_at=life.changed_at if life.halts else notice.at,
    )


def _resume(contract: Contract, life: Life, notice: Notice) -> Life:
    _require_contributor(contract, life, notice, contract.halt.clause)
    named = str(notice.refers)
    if named not in life.resumed_by:
        raise _void("the digest of a halt that is open", named, "contract lifecycle shows the open halts")
    said = life.resumed_by[named]
    if notice.party in said:
        raise _void("one resume of each party", f"a second one of {notice.party}", "wait for the others")
    resumed = {**life.resumed_by, named: tuple(sorted((*said, notice.party)))}
    return _lift(contract, replace(life, resumed_by=resumed), notice.at)


def _exit(contract: Contract, life: Life, notice: Notice) -> Life:
    """The evaluator judges the notice; then the leaver is out, and perhaps the contract ends."""
    from policies.contract.decision import evaluate

    if notice.party in life.exited:
        raise _void("a party that has not left", notice.party, "it has left already")
    evaluate(
        contract, contract_state(contract, life, notice.at), exit_request(contract, life, notice)
    ).require()
    gone = replace(life, exited={**life.exited, notice.party: Departure(notice.at, str(notice.choice))})
    left = contract.groups(remaining(contract, gone))
    if len(left) < contract.aggregation.min_parties:
        ending = Ending(TOO_FEW_GROUPS, contract.aggregation.clause)
        return replace(gone, terminated=ending, changed_at=notice.at)
    return _lift(contract, gone, notice.at)


def _rotate(contract: Contract, life: Life, notice: Notice) -> Life:
    new = str(notice.subject)
    if new in {one.key for one in contract.parties} or new in life.former_keys:
        raise LifecycleError(
            need="a key that no party of the contract has or had",
            found=key_id(parse_key(new)),
            remedy="make a new key pair",
            clause=contract.amendment.clause,
        )
    return replace(
        life,
        rotated={**life.rotated, notice.party: new},
        former_keys=(*life.former_keys, new),
    )


def _attest(contract: Contract, life: Life, notice: Notice) -> Life:
    if _role(contract, notice) != "contributor":
        raise _not_entitled(_party_clause(contract, notice), "an attestation by a contributor", notice.party)
    said = notice.attestation
    return life if said is None else replace(life, attested={**life.attested, notice.party: said})


def _admit(contract: Contract, life: Life, notice: Notice) -> Life:
    if _role(contract, notice) == "auditor":
        raise _not_entitled(
            contract.amendment.clause, "an admission by a contributor or the broker", "auditor"
        )
    _require_present(life, notice, contract.amendment.clause)
    org = str(notice.subject)
    vouching = tuple(sorted({*life.admitted.get(org, ()), notice.party}))
    return replace(life, admitted={**life.admitted, org: vouching})


_STEPS: Mapping[str, Callable[[Contract, Life, Notice], Life]] = MappingProxyType(
    {"halt": _halt, "resume": _resume, "exit": _exit, "rotate": _rotate, "attest": _attest, "admit": _admit}
)


def _lift(contract: Contract, life: Life, at: str) -> Life:
    """Ends every halt that all the remaining contributors resumed."""
    needed = set(remaining(contract, life))
    still = tuple(one for one in life.halts if not needed <= set(life.resumed_by[one.digest]))
    if len(still) == len(life.halts):
        return life
    return replace(
        life,
        halts=still,
        resumed_by={one.digest: life.resumed_by[one.digest] for one in still},
        changed_at=life.changed_at if still else at,
    )


def exit_request(contract: Contract, life: Life, notice: Notice) -> Exit:
    """The evaluator's question about a notice of exit."""
    return Exit(
        party=notice.party,
        key=key_of(contract, life, notice.party),
        notice=notice.digest,
        notice_at=notice.at,
        unreleased_models=notice.choice,
    )


# --- what others ask ---


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
        "rotated": dict(life.rotated),
        "superseded_by": life.superseded_by,
        "terminated": None if life.terminated is None else life.terminated._asdict(),
    }


# --- refusals ---


def _role(contract: Contract, notice: Notice) -> str:
    party = contract.party(notice.party)
    return "stranger" if party is None else party.role


def _party_clause(contract: Contract, notice: Notice) -> str:
    party = contract.party(notice.party)
    return "@parties" if party is None else party.clause


def _require_present(life: Life, notice: Notice, clause: str) -> None:
    if notice.party in life.exited:
        raise _not_entitled(clause, "a party that has not left", f"{notice.party}, which has left")


def _require_contributor(contract: Contract, life: Life, notice: Notice, clause: str) -> None:
    role = _role(contract, notice)
    if role != "contributor":
        raise _not_entitled(clause, "a contributor", role)
    _require_present(life, notice, clause)


def _not_entitled(clause: str, need: str, found: str) -> NoticeEntitlementError:
    return NoticeEntitlementError(
        need=need, found=found, remedy="let a party say it that the clause names", clause=clause
    )


def _void(need: str, found: str, remedy: str) -> LifecycleError:
    return LifecycleError(need=need, found=found, remedy=remedy)


def _ended_words(life: Life) -> str:
    if life.terminated is not None:
        return f"terminated by {life.terminated.clause}"
    return f"superseded by {life.superseded_by}"
