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
  that has not exited signed a resume naming that halt; halts of several parties end one by one. A party's
  second halt is void while its first one is open.
- **Numbers and times.** A party's notices are numbered without a gap, and none is dated before the one that
  it said last. There is room for `NOTICES_PER_PARTY`, and beside them for each resume that had its effect:
  who halts again and again uses up its own room and nobody else's.
- **Exit.** Judged by the evaluator (`Exit`). The leaver's influence ends with the notice, and its word is not
  needed any more for a resume. If fewer than k groups remain, the contract ends, by the aggregation clause.
  Who is absent for good (its key lost or its membership revoked) leaves when every other contributor, two at
  least, said an exit that names it, with the same choice. Operators have no part in that: whom they revoke
  keeps its halt in force until then. All the others could rotate its key as well, so this gives them nothing
  new.
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

from dataclasses import replace
from typing import TYPE_CHECKING

from policies.contract.errors import LifecycleError, NoticeOrderError, RefusedError
from policies.contract.lifecycle.effects import EFFECTS, TOO_FEW_GROUPS, void
from policies.contract.lifecycle.life import (
    ACTIVE,
    EXPIRED,
    HALTED,
    IN_FORCE,
    OFFERED,
    PENDING,
    SUPERSEDED,
    TERMINATED,
    Departure,
    Ending,
    Life,
    contract_state,
    exit_request,
    key_of,
    life_view,
    party_of_key,
    remaining,
    run_over,
    since,
    standing,
)
from policies.contract.notices import Notice, open_notice
from policies.limits import NOTICE_EARLY_S, NOTICES_PER_PARTY
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.contract.clauses import Contract
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
    "run_over",
    "since",
    "standing",
    "superseded",
    "take",
    "too_early",
]


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
        NoticeOrderError: Its number is used, one before it is missing, or one that is dated later.
    """
    notice = open_notice(envelope, contract, rotated=life.rotated, exited=life.exited)
    try:
        return advance(contract, life, notice), notice, None
    except NoticeOrderError:
        raise
    except (LifecycleError, RefusedError) as error:
        return life.heard(notice.party, notice.seq, notice.at), notice, error


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

    1. the contract is final, and this is its life; 2. the party's next number, not dated back; 3. the
    contract has not ended; 4. what the kind asks for.

    Raises:
        NoticeOrderError: Step 2.
        NoticeEntitlementError: Step 4: the contract does not let this party say it.
        RefusedError: Step 4: an exit that the contract refuses.
        LifecycleError: Steps 1, 3, 4: it would change nothing, or take a key that was used.
    """
    # 1.
    if life.contract != notice.contract or life.finalized_at is None:
        raise void("a contract that everybody signed", "one that is not final", "wait for the signatures")
    # 2.
    _check_seq(contract, life, notice)
    # 3.
    if life.ended and notice.kind not in ("rotate", "attest"):
        raise void("a contract in force", _ended_words(life), "nothing is left to stop, resume or leave")
    # 4.
    after = EFFECTS[notice.kind](contract, life, notice)
    return after.heard(notice.party, notice.seq, notice.at)


def too_early(life: Life, notice: Notice) -> bool:
    """Whether a notice is dated before the contract was final, further than clocks are apart.

    For broker and auditor, who know when that was; a node knows only by when it must have been.
    """
    final = life.finalized_at
    return final is not None and to_ms(notice.at) + NOTICE_EARLY_S * 1000 < to_ms(final)


def _is_waited_for(contract: Contract, life: Life, notice: Notice) -> bool:
    """Whether a notice is a resume that an open halt needs; there is always room for it."""
    said = life.resumed_by.get(str(notice.refers))
    needed = notice.kind == "resume" and said is not None and notice.party not in said
    return needed and not life.ended and notice.party in remaining(contract, life)


def _check_seq(contract: Contract, life: Life, notice: Notice) -> None:
    expected = life.next_seq(notice.party)
    counted = expected - life.resumes.get(notice.party, 0)
    used_up = counted > NOTICES_PER_PARTY and not _is_waited_for(contract, life, notice)
    last = life.said_at.get(notice.party, notice.at)
    if notice.seq == expected and notice.at >= last and not used_up:
        return
    if notice.seq == expected and not used_up:
        need, remedy = f"a time from {last} on, that of the notice before it", "set the node's clock (NTP)"
        raise NoticeOrderError(need=need, found=f"{notice.at} of {notice.party}", remedy=remedy)
    if used_up:
        need, remedy = f"at most {NOTICES_PER_PARTY} notices of one party", "make a successor contract"
    elif notice.seq < expected:
        need, remedy = f"number {expected}", "it was used: was contracts/ restored from a copy?"
    else:
        need, remedy = f"number {expected}", "send the notices before it first"
    raise NoticeOrderError(need=need, found=f"number {notice.seq} of {notice.party}", remedy=remedy)


def _ended_words(life: Life) -> str:
    if life.terminated is not None:
        return f"terminated by {life.terminated.clause}"
    return f"superseded by {life.superseded_by}"
