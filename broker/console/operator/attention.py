# SPDX-License-Identifier: Apache-2.0
"""What is wrong, or waits for somebody of the broker: the lines of the overview, source by source.

A source that cannot be read is a line of its own, and the others are told.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from broker.backup.remembered import record
from broker.console.operator.nodes import standings
from broker.console.operator.proposals import about, what_of
from broker.console.values import (
    Code,
    Count,
    Foreign,
    Link,
    Name,
    Nothing,
    T,
    Value,
    When,
)
from broker.membership.service import approved_by
from broker.store.tables import run
from policies.errors import IriaiError
from policies.limits import BACKUP_AGE_H
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.console.viewing import View

__all__ = ["Line", "certificate_until_ms", "lines_for"]

_EXPIRES_DAYS: Final = 30
_DAY_MS: Final = 86_400_000
_RUNS: Final = 50
_INCIDENTS: Final = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing: wrong (``bad``), to be looked at (``warning``), or waiting for the reader (``wait``)."""

    word: str
    what: Value
    since: Value
    href: str


def lines_for(view: View) -> list[Line]:
    """Everything that an operator or approver should look at now."""
    sources = (_log_lines, _witness_lines, _incidents, _proposals, _waiting, _runs, _nodes, _keys, _backups)
    return [line for source in sources for line in _looked(view, source)]


def _looked(view: View, source: Callable[[View], Iterator[Line]]) -> list[Line]:
    """What a source tells; one that cannot be read tells that."""
    try:
        return list(source(view))
    except IriaiError as error:
        unread = T("One source could not be read: {code}.", code=Code(error.code))
    except (DBAPIError, OSError) as error:
        _log.exception("overview: %s", source.__name__)
        unread = T("One source could not be read: {code}.", code=Code(type(error).__name__))
    return [Line("bad", unread, Nothing(), "/console/health")]


def _log_lines(view: View) -> Iterator[Line]:
    frozen = view.services.writer.frozen
    if frozen is not None:
        yield Line(
            "bad",
            T("The log is frozen, and every change is refused: {found}", found=Foreign(frozen.found)),
            Nothing(),
            "/console/health",
        )


def _witness_lines(view: View) -> Iterator[Line]:
    seen: dict[str, Any] = view.services.witnessing.status()
    if not seen["k"]:
        yield Line("warning", T("Nobody witnesses the log yet."), Nothing(), "/console/keys")
        return
    if seen["alarm"]:
        since = Nothing() if seen["age_s"] is None else When(view.now_ms - 1000 * int(seen["age_s"]))
        yield Line(
            "bad", T("Too few witnesses have cosigned the log; no round begins."), since, "/console/keys"
        )
    for one in seen["witnesses"]:
        if one["missing"]:
            since = Nothing() if one["age_s"] is None else When(view.now_ms - 1000 * int(one["age_s"]))
            told = T("The witness of {name} was not heard.", name=Name(str(one["legal_name"])))
            yield Line("warning", told, since, "/console/keys")


def _incidents(view: View) -> Iterator[Line]:
    incidents = view.services.incidents
    newest, more = incidents.page(view.session, limit=_INCIDENTS, closed=False)
    for one in reversed(newest):
        told = T("An incident is open: {kind}", kind=Code(str(one["kind"])))
        yield Line("bad", told, When(to_ms(str(one["at"]))), "/console/incidents")
    if more is not None:
        older = T(
            "Older incidents that are open: {n}", n=Count(len(incidents.open(view.session)) - _INCIDENTS)
        )
        yield Line("bad", older, Nothing(), f"/console/incidents?state=open&after={more}")


def _proposals(view: View) -> Iterator[Line]:
    for one in view.services.acts.proposals.open(view.session, view.now_ms):
        if one.waits_for(view.signed_in.person.name, view.now_ms):
            what = about(view, one)
            bare = what.value if isinstance(what, Link) else what
            told = T(
                "{who} proposes for {about}: {what}", who=Name(one.proposer), about=bare, what=what_of(one)
            )
            yield Line("wait", told, When(one.created_ms), f"/console/proposals/{one.id}")


def _waiting(view: View) -> Iterator[Line]:
    name = view.signed_in.person.name
    for one in view.services.directory.members():
        waits = one.state == "waiting-approval"
        if waits and name not in approved_by(view.session, one, view.now_ms):
            told = T("{name} has joined and waits for your approval.", name=Name(one.legal_name))
            yield Line("wait", told, When(one.since_ms), f"/console/members/{one.org}")


def _runs(view: View) -> Iterator[Line]:
    names = view.session.scalars(
        select(run.c.run_id).where(run.c.outcome.is_(None)).order_by(run.c.opened_ms).limit(_RUNS)
    ).all()
    for name in names:
        body: dict[str, Any] | None = view.services.runs.views.show(view.session, name, view.party).body
        stuck = None if body is None else _stuck(body)
        if body is not None and stuck is not None:
            told = T("Run {run} stands still: {why}", run=Code(str(body["recipe_id"])), why=stuck)
            yield Line("bad", told, When(int(body["opened_ms"])), f"/console/runs/{name}")


def _stuck(body: dict[str, Any]) -> Value | None:
    """Why a run asks nobody just now; None if it goes on."""
    if body["rejected"] is not None:
        return T(
            "its models were rejected {n} times in a row; an operator decides",
            n=Count(int(body["rejected"]["rounds"])),
        )
    if body["waiting"] is not None:
        return Foreign(str(body["waiting"]["reason"]))
    short = body.get("short")
    if short is not None:
        return T(
            "groups online {there}, needed {needed}; away: {names}",
            there=Count(int(short["groups"])),
            needed=Count(int(short["groups_needed"])),
            names=Name(", ".join(short["names"])),
        )
    return T("its contract is halted") if body["state"] == "suspended" else None


def _nodes(view: View) -> Iterator[Line]:
    members = view.services.directory.members()
    for org, standing in standings(view.services, view.session, members).items():
        if standing.word not in {"stale", "never-seen", "suspended"}:
            continue
        name = Name(view.services.directory.member(org).legal_name)
        told = {
            "stale": T("The node of {name} does not answer.", name=name),
            "never-seen": T("The node of {name} has not come yet.", name=name),
            "suspended": T("{name} is suspended.", name=name),
        }[standing.word]
        yield Line("warning", told, standing.since, f"/console/members/{org}")


def _keys(view: View) -> Iterator[Line]:
    until_ms = certificate_until_ms(view)
    if until_ms - view.now_ms < _EXPIRES_DAYS * _DAY_MS:
        word = "bad" if until_ms <= view.now_ms else "warning"
        told = T("The certificate of this broker ends {when}.", when=When(until_ms))
        yield Line(word, told, Nothing(), "/console/keys")


def certificate_until_ms(view: View) -> int:
    """When the broker's certificate ends."""
    leaf = x509.load_pem_x509_certificates(view.services.keys.tls_chain_pem)[0]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (leaf.not_valid_after_utc - epoch) // dt.timedelta(milliseconds=1)


def _backups(view: View) -> Iterator[Line]:
    facts = record(view.services.settings)
    if facts.problem is not None:
        told = T("The note of backups cannot be read: {why}", why=Foreign(facts.problem))
        yield Line("warning", told, Nothing(), "/console/health")
    elif facts.last is None:
        told = T(
            "No backup was ever made: {command}",
            command=Code("iriai-broker backup create --out FOLDER --dir DIR"),
        )
        yield Line("warning", told, Nothing(), "/console/health")
    elif view.now_ms - facts.last.at_ms > BACKUP_AGE_H * 3_600_000:
        yield Line("warning", T("The newest backup is old."), When(facts.last.at_ms), "/console/health")
    if facts.problem is None and facts.tested is None:
        told = T(
            "No restore was ever tested: {command}",
            command=Code("iriai-broker backup verify BACKUP --dir DIR"),
        )
        yield Line("warning", told, Nothing(), "/console/health")
