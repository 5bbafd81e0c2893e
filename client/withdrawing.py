# SPDX-License-Identifier: Apache-2.0
"""Ending taking part: in one run, which can go on again, or in a contract, for good. Numbers come first.

    overview(home, shelf, outbox)                  what there is to end, with the command of each
    from_run(home, shelf, outbox, run, …)          effect, question, `client.owner_runs.stop`
    from_contract(member, shelf, outbox, digest, …)  effect, question, `client.contract.stopping.leave`
    run_effect(…), contract_effect(…)              the same numbers as values, for the node's page

What was given stays given: models keep what they learned, and spent budget does not come back. Both say so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from client import owner_runs
from client.answers import Answer, short, table
from client.contract import stopping
from client.contract.notices import Notices
from client.errors import NoSuchThingError, NotConfirmedError
from client.known_runs import RunEnds, names_of_runs
from client.progress import said
from client.stopping_runs import StoppedRuns
from policies.contract.lifecycle import ACTIVE, HALTED, remaining, standing
from policies.errors import IriaiError
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from client.outbox.rows import Decided
    from client.settings import Home
    from policies.ports import Clock

__all__ = [
    "ContractEffect",
    "RunEffect",
    "contract_effect",
    "from_contract",
    "from_run",
    "overview",
    "preview_contract",
    "preview_run",
    "run_effect",
]

_DRY: Final = "dry run: nothing was changed"
_GIVES: Final = frozenset({"train.contribute", "train.sa_contribute"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEffect:
    """What stopping a run means, in numbers.

    Attributes:
        run: Its name.
        contract: Under which it asked last; None if nothing was decided about it.
        rounds_given: Rounds to which this node's updates went; they stay given.
        messages: What left this site for it.
        bytes_sent: Size of all that.
        last_round: The newest round that asked.
        training: Whether this node trains for it just now; that round is given up.
        groups_left: Independent groups of the contract without this one; None without a contract.
        groups_needed: How many a round needs: below it, rounds of the others fail too.
        stopped: Whether it is stopped already.
        over: Whether it is over, so that stopping changes nothing.
    """

    run: str
    contract: str | None
    rounds_given: int
    messages: int
    bytes_sent: int
    last_round: int | None
    training: bool
    groups_left: int | None
    groups_needed: int | None
    stopped: bool
    over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractEffect:
    """What leaving a contract means, in numbers.

    Attributes:
        contract: Digest.
        standing: Where it stands.
        runs: Runs under it that are not over; each ends for this node.
        rounds_given: Rounds to which this node's updates went, over all its runs.
        bytes_sent: Size of what left under it.
        groups_left: Independent groups that remain.
        groups_needed: How many the contract needs; with fewer it ends for everybody.
    """

    contract: str
    standing: str
    runs: tuple[str, ...]
    rounds_given: int
    bytes_sent: int
    groups_left: int
    groups_needed: int


def run_effect(home: Home, shelf: ContractShelf, outbox: Outbox, run: str) -> RunEffect:
    """What stopping a run means, by this node's own files.

    Raises:
        NoSuchThingError: This node never heard of it.
    """
    decided = outbox.left.decisions(run=run, limit=None)
    known = names_of_runs(home)
    if not decided and known is not None and run not in known:
        raise NoSuchThingError(
            need="a run that asked this node for something",
            found=f"{ascii(run)[:80]}, which never did",
            remedy="iriai-node runs list",
        )
    held = _held(shelf, decided)
    left = None if held is None else _groups_without(held, shelf, outbox.clock)
    progress, stopped = said(home).get("progress"), StoppedRuns(home).all()
    over = RunEnds(shelf, outbox.clock).is_over(decided)
    return RunEffect(
        run=run,
        contract=None if held is None else held.contract.digest,
        rounds_given=len(_given(decided)),
        messages=outbox.left.sent_count(run),
        bytes_sent=outbox.left.sent_bytes(run),
        last_round=max((one.round for one in decided), default=None),
        training=isinstance(progress, dict) and progress.get("run") == run and not over,
        groups_left=left,
        groups_needed=None if held is None else held.contract.aggregation.min_parties,
        stopped=stopped is None or run in stopped,
        over=over,
    )


def contract_effect(shelf: ContractShelf, outbox: Outbox, contract: str) -> ContractEffect:
    """What leaving a contract means, by this node's own files.

    Raises:
        NoSuchThingError: It is not here.
    """
    held = shelf.get(contract)
    ends = RunEnds(shelf, outbox.clock)
    runs = _by_run(one for one in outbox.left.decisions(limit=None) if one.contract == contract)
    now = iso_s(outbox.clock.now_ms())
    return ContractEffect(
        contract=contract,
        standing=standing(held.contract, Notices(shelf).life(held, now), now),
        runs=tuple(name for name, decided in runs.items() if not ends.is_over(decided)),
        rounds_given=sum(len(_given(decided)) for decided in runs.values()),
        bytes_sent=outbox.left.sent_bytes(contract=contract),
        groups_left=_groups_without(held, shelf, outbox.clock),
        groups_needed=held.contract.aggregation.min_parties,
    )


def _by_run(decided: Iterable[Decided]) -> dict[str, list[Decided]]:
    runs: dict[str, list[Decided]] = {}
    for one in decided:
        runs.setdefault(one.run, []).append(one)
    return runs


def _given(decided: Sequence[Decided]) -> set[int]:
    return {one.round for one in decided if one.allow and one.kind in _GIVES}


def _held(shelf: ContractShelf, decided: Sequence[Decided]) -> Held | None:
    try:
        return shelf.get(decided[0].contract) if decided else None
    except IriaiError:  # a contract that cannot be read: its numbers are unknown
        return None


def _groups_without(held: Held, shelf: ContractShelf, clock: Clock) -> int:
    """Independent groups that remain once this party is gone."""
    now = iso_s(clock.now_ms())
    stay = [
        name for name in remaining(held.contract, Notices(shelf).life(held, now)) if name != held.party.party
    ]
    return len(held.contract.groups(stay))


# --- commands ---


def overview(home: Home, shelf: ContractShelf, outbox: Outbox) -> Answer:
    """Runs and contracts that can be ended here, with the command of each; nothing is changed."""
    names = outbox.left.decided_runs() | (names_of_runs(home) or frozenset())
    runs = [run_effect(home, shelf, outbox, name) for name in sorted(names)]
    open_runs = [one for one in runs if not one.over and not one.stopped]
    contracts = [one for one in _contracts(shelf, outbox) if one.standing in {ACTIVE, HALTED}]
    lines = table(
        ("to end", "given so far", "bytes", "left without you", "command"),
        [
            *(
                (
                    one.run,
                    f"{one.rounds_given} rounds",
                    one.bytes_sent,
                    _groups(one),
                    f"iriai-node withdraw {one.run}",
                )
                for one in open_runs
            ),
            *(
                (
                    short(one.contract),
                    f"{one.rounds_given} rounds",
                    one.bytes_sent,
                    _groups(one),
                    f"iriai-node withdraw {short(one.contract)} --unreleased retrain",
                )
                for one in contracts
            ),
        ],
    )
    nothing = ("nothing to withdraw from: no run is open and no contract is in force here",)
    return Answer(
        data={"runs": [asdict(one) for one in open_runs], "contracts": [asdict(one) for one in contracts]},
        text=lines if open_runs or contracts else nothing,
    )


def _contracts(shelf: ContractShelf, outbox: Outbox) -> Iterator[ContractEffect]:
    for digest in shelf.digests():
        if shelf.get(digest).is_executed:
            yield contract_effect(shelf, outbox, digest)


def _groups(one: RunEffect | ContractEffect) -> str:
    if one.groups_left is None:
        return "unknown"
    return f"{one.groups_left} groups, {one.groups_needed} are needed"


def preview_run(home: Home, shelf: ContractShelf, outbox: Outbox, run: str) -> Answer:
    """What stopping a run would mean; nothing is changed.

    Raises:
        NoSuchThingError: This node never heard of it.
    """
    effect = run_effect(home, shelf, outbox, run)
    return Answer(data={"dry_run": True, "effect": asdict(effect)}, text=(*_run_words(effect), _DRY))


def preview_contract(member: Member, shelf: ContractShelf, outbox: Outbox, contract: str) -> Answer:
    """What a notice about a contract would be about; nothing is signed.

    Raises:
        NoSuchThingError: It is not here.
    """
    effect = contract_effect(shelf, outbox, stopping.resolved(member, shelf, contract))
    return Answer(data={"dry_run": True, "effect": asdict(effect)}, text=(*_contract_words(effect), _DRY))


def from_run(
    home: Home,
    shelf: ContractShelf,
    outbox: Outbox,
    run: str,
    *,
    confirm: Callable[[str], bool],
    tell: Callable[[Iterable[str]], None],
) -> Answer:
    """Stops a run for this node, once a person has read the numbers.

    Raises:
        NoSuchThingError: This node never heard of it.
        NotConfirmedError: Nobody said yes; nothing was changed.
    """
    effect = run_effect(home, shelf, outbox, run)
    tell(_run_words(effect))
    if not confirm(run):
        raise _unsaid(f"iriai-node withdraw {run} --yes")
    done = owner_runs.stop(home, run)
    return Answer(data={**done.data, "effect": asdict(effect)}, text=done.text)


def _run_words(one: RunEffect) -> tuple[str, ...]:
    lines = [
        f"run        {one.run}"
        + (": it is stopped already" if one.stopped else ": it is over" if one.over else ""),
        f"given      {one.rounds_given} rounds, {one.messages} messages, {one.bytes_sent} bytes: for good",
    ]
    if one.training:
        lines.append("now        this node trains for it: that round is given up, its privacy may be spent")
    if one.groups_left is not None and one.groups_needed is not None:
        fails = " Rounds of the others fail until you go on." if one.groups_left < one.groups_needed else ""
        lines.append(f"others     {_groups(one)} for a round.{fails}")
    return tuple(lines)


def from_contract(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str,
    *,
    choice: str,
    code: str,
    confirm: Callable[[str], bool],
    tell: Callable[[Iterable[str]], None],
) -> Answer:
    """Leaves a contract for good, once a person has read numbers and consequences.

    Raises:
        NoSuchThingError: It is not here.
        RefusedError: The contract does not allow this exit; the clause is named.
        NotConfirmedError: Nobody said yes; nothing was changed.
    """
    digest = stopping.resolved(member, shelf, contract)
    effect = contract_effect(shelf, outbox, digest)
    tell(_contract_words(effect))
    done = stopping.leave(member, shelf, outbox, digest, choice=choice, code=code, confirm=confirm, tell=tell)
    return Answer(data={**done.data, "effect": asdict(effect)}, text=done.text, exit_code=done.exit_code)


def _contract_words(one: ContractEffect) -> tuple[str, ...]:
    ended = " It ends for everybody." if one.groups_left < one.groups_needed else ""
    return (
        f"contract   {one.contract}, {one.standing}",
        f"ends here  {len(one.runs)} runs that are not over: {' '.join(one.runs) or 'none'}",
        f"given      {one.rounds_given} rounds, {one.bytes_sent} bytes; that stays given",
        f"others     {_groups(one)}.{ended}",
    )


def _unsaid(command: str) -> NotConfirmedError:
    return NotConfirmedError(need="a person's word", found="no", remedy=f"repeat the command, or {command}")
