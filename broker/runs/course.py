# SPDX-License-Identifier: Apache-2.0
"""Which of a run's models stand, as the votes in its log say: read by rounds, status and the release alike.

- ``round.judged`` says of one round's model whether it stands; ``round.chosen`` of a probe says which teams
  make its model, which stands then, or that none does. A rejected one is taken back, with those since
  the last accepted model; the run goes on from there.
- ``sum.withdrawn`` says of one round that its sum was wrong (a member's tag, or the broker's sum): its model
  is taken back too, whether it was voted on or not, and the run goes on from the model before it.
- As many rejections in a row as the contract allows, and the run asks nobody until an operator says
  ``run resume``, which is an entry of the log too.

Everything is read from entries: a broker that is started again goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.store.tables import log_entry
from policies.encoding import digest
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from broker.store import Session
    from policies.contract import Contract

__all__ = ["RESUME", "Course", "course_of"]

RESUME: Final = "run.resume"
"""Action of an operator that lets a run go on after rejections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a run stands after its votes.

    Attributes:
        accepted: Rounds whose models were accepted and stand, oldest first.
        rejections: Rejected rounds in a row, since an operator's word if there was one.
        judged: Rounds that were voted on.
        back: Rounds whose models were taken back.
        wrong: Of these, rounds whose sums were wrong, oldest first.
    """

    accepted: tuple[int, ...] = ()
    rejections: int = 0
    judged: frozenset[int] = field(default_factory=frozenset)
    back: frozenset[int] = field(default_factory=frozenset)
    wrong: tuple[int, ...] = ()

    @property
    def stands(self) -> int:
        """Round of the newest accepted model; 0: none was, and the start model counts."""
        return self.accepted[-1] if self.accepted else 0

    def after(self, number: int, *, accepted: bool) -> Course:
        """The course after the verdict on a round."""
        judged = self.judged | {number}
        if accepted:
            return replace(self, accepted=(*self.accepted, number), rejections=0, judged=judged)
        back = self.back | frozenset(range(self.stands + 1, number + 1))
        return replace(self, rejections=self.rejections + 1, judged=judged, back=back)

    def without(self, number: int) -> Course:
        """The course once the sum of a round is found to be wrong."""
        accepted = tuple(one for one in self.accepted if one != number)
        return replace(self, accepted=accepted, back=self.back | {number}, wrong=(*self.wrong, number))

    def paused(self, contract: Contract) -> bool:
        """Whether the run waits for a human under a contract."""
        clause = contract.validation
        return clause is not None and self.rejections >= clause.max_rejected_rounds


def course_of(session: Session, run_id: str) -> Course:
    """The course of a run, from its log."""
    kinds = tuple(
        one.value for one in (EntryType.ROUND_JUDGED, EntryType.ROUND_CHOSEN, EntryType.SUM_WITHDRAWN)
    )
    of_run = log_entry.c.type.in_(kinds) & (log_entry.c.run == run_id)  # by the index of both
    query = select(log_entry.c.idx, log_entry.c.type, log_entry.c.round, log_entry.c.body).order_by(
        log_entry.c.idx
    )
    verdicts = session.execute(query.where(of_run)).all()
    accepted = [
        None
        if row.type == EntryType.SUM_WITHDRAWN.value
        else _accepted(row.type, json.loads(row.body)["pub"])
        for row in verdicts
    ]
    # an operator's word changes nothing where nothing was rejected, and is looked for among all actions
    words = _resumed(session, run_id, since=verdicts[0].idx) if False in accepted else []
    course = Course()
    for row, stands in zip(verdicts, accepted, strict=True):
        if any(at < row.idx for at in words):
            words = [at for at in words if at > row.idx]
            course = replace(course, rejections=0)
        if row.type == EntryType.SUM_WITHDRAWN.value:
            course = course.without(row.round)
        elif stands is not None:
            course = course.after(row.round, accepted=stands)
    return replace(course, rejections=0) if words else course


def _accepted(kind: str, pub: dict[str, Any]) -> bool | None:
    """Whether an entry says that a model stands; None if nobody was asked: no team was within the bound."""
    if kind == EntryType.ROUND_JUDGED.value:
        return bool(pub["verdict"] == "accepted")
    return None if pub["failed"] == pub["opened"] else bool(pub["chosen"])


def _resumed(session: Session, run_id: str, *, since: int) -> list[int]:
    """Indexes of an operator's words about a run."""
    actions = (log_entry.c.type == EntryType.CONSOLE_ACTION.value) & (log_entry.c.idx > since)
    query = select(log_entry.c.idx, log_entry.c.body).where(actions).order_by(log_entry.c.idx)
    about = digest(run_id.encode())
    found = []
    for row in session.execute(query):
        if about.encode() not in row.body:  # few of thousands are about this run, and need be read
            continue
        pub = json.loads(row.body)["pub"]
        if (pub["action"], pub["subject"]) == (RESUME, about):
            found.append(row.idx)
    return found
