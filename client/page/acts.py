# SPDX-License-Identifier: Apache-2.0
"""What the owner may do on the page. Each act calls the function that the command of the same name calls.

A code was used up before any of this runs (`client.page.gate`). Only fields that the form had are read; what
is not among them is refused. What was done, or why not, is said on the page that follows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client import owner_runs, pausing, releases, withdrawing
from client.membership import open_member
from client.outbox import Outbox
from client.page.errors import FormError
from client.page.screens.withdraw import REASON
from client.page.values import Spoken, msg
from policies.encoding import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client.answers import Answer
    from client.membership import Member
    from client.page.reading import Site
    from client.page.values import Text, Value

__all__ = ["ACTS", "Act"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One change: what it is called afterwards, where the page goes on, and what it does."""

    done: Text
    back: str
    work: Callable[[Site, Mapping[str, str]], Answer]

    def told(self, answer: Answer) -> tuple[Text, tuple[Value, ...]]:
        """What the next page says: the command's own words, in its own language."""
        return self.done, tuple(Spoken(line) for line in answer.text)


def _yes(_shown: str) -> bool:
    """The person who typed a fresh code below the numbers."""
    return True


def _silent(_lines: object) -> None:
    """The numbers stood above the button."""


@contextmanager
def _writing(site: Site) -> Iterator[tuple[Member, Outbox]]:
    """The node as a command opens it: it may write, and waits for the broker as long as a command does."""
    member = open_member(site.home.need(), clock=site.clock, entropy=site.entropy, transport=site.transport)
    outbox = Outbox.of(
        site.home, member.identity, origin=member.broker.origin, clock=site.clock, entropy=site.entropy
    )
    try:
        with member.client:
            yield member, outbox
    finally:
        outbox.close()


def _field(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value:
        raise FormError(need=f"the field {name}", found="none", remedy="go back, reload the page, try again")
    return value


def _digest(fields: Mapping[str, str], name: str) -> str:
    value = _field(fields, name)
    if not is_digest(value):
        raise FormError(need=f"a digest as {name}", found=ascii(value)[:80], remedy="reload the page")
    return value


def _pause(site: Site, _fields: Mapping[str, str]) -> Answer:
    return pausing.set_paused(site.home, paused=True)


def _resume(site: Site, _fields: Mapping[str, str]) -> Answer:
    return pausing.set_paused(site.home, paused=False)


def _run_stop(site: Site, fields: Mapping[str, str]) -> Answer:
    return withdrawing.from_run(
        site.home, site.shelf, site.outbox, _field(fields, "run"), confirm=_yes, tell=_silent
    )


def _run_resume(site: Site, fields: Mapping[str, str]) -> Answer:
    return owner_runs.resume(site.home, _field(fields, "run"))


def _leave(site: Site, fields: Mapping[str, str]) -> Answer:
    choice = _field(fields, "choice")
    if choice not in {"retrain", "discard"}:
        raise FormError(need="retrain or discard", found=ascii(choice)[:40], remedy="choose one of the two")
    with _writing(site) as (member, outbox):
        return withdrawing.from_contract(
            member,
            site.shelf,
            outbox,
            _digest(fields, "contract"),
            choice=choice,
            code=REASON,
            confirm=_yes,
            tell=_silent,
        )


def _vote(site: Site, fields: Mapping[str, str], verdict: str, clause: str | None) -> Answer:
    with _writing(site) as (member, outbox):
        candidate = _digest(fields, "candidate")
        return releases.vote(member, site.shelf, outbox, candidate, verdict=verdict, clause=clause)


def _approve(site: Site, fields: Mapping[str, str]) -> Answer:
    return _vote(site, fields, "approve", None)


def _veto(site: Site, fields: Mapping[str, str]) -> Answer:
    return _vote(site, fields, "veto", fields.get("choice") or None)


ACTS: Final[dict[str, Act]] = {
    "pause": Act(done=msg("Paused."), back="/", work=_pause),
    "resume": Act(done=msg("Not paused any more."), back="/", work=_resume),
    "run-stop": Act(done=msg("The run is stopped for this node."), back="/withdraw", work=_run_stop),
    "run-resume": Act(done=msg("The run may go on."), back="/withdraw", work=_run_resume),
    "leave": Act(done=msg("You left the contract."), back="/contract", work=_leave),
    "approve": Act(done=msg("Your vote is cast: approved."), back="/models", work=_approve),
    "veto": Act(done=msg("Your vote is cast: vetoed."), back="/models", work=_veto),
}
