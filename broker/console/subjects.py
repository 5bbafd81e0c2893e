# SPDX-License-Identifier: Apache-2.0
"""What the subjects of actions are: the log has a digest, the broker's rows know what it stands for.

    known = named(view, [one.subject for one in acts])
    known.get(digest, Nothing())                                    a name, an id, or a link to its screen

- An action says what it was done to by a digest alone (`broker.log.actions`). Here the digests of one page
  are looked for among what the broker has: proposals, contracts, organisations, invitations, people, keys of
  auditors, models and the newest runs. A digest of none of them stays a digest.
- Names are shown to whoever may read every confidential value: operators, and auditors with a grant for all
  (`broker.console.auditor.rehearsal.may_read`). Anybody else gets no name at all.
- The work is bounded: members, people and invitations are as many as the federation has, runs are `RUNS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.auth.people import Addition, person_digest
from broker.console.auditor.rehearsal import may_read
from broker.console.screens import OPERATORS
from broker.console.values import Code, Link, Name, T, Value
from broker.membership.service import subject_of
from broker.store.tables import approval, auditor, contract_document, invite, model, person, proposal, run
from policies.encoding import canonical, digest
from policies.identity import parse_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from broker.console.viewing import View

__all__ = ["RUNS", "named"]

RUNS: Final = 1_000
"""Newest runs whose ids are looked at."""


def named(view: View, digests: Iterable[str | None]) -> Mapping[str, Value]:
    """What these digests stand for, where the broker knows it and the reader may."""
    wanted = frozenset(one for one in digests if one)
    if not wanted or not may_read(view):
        return {}
    found: dict[str, Value] = {}
    for each in (_people(view), _organisations(view, wanted), _signed(view, wanted), _training(view, wanted)):
        found |= {known: value for known, value in each if known in wanted}
    return found


def _led(view: View, value: Value, href: str) -> Value:
    """A link where the reader has the screen: an auditor has none of the operators'."""
    return Link(value, href) if view.role in OPERATORS else value


def _people(view: View) -> Iterator[tuple[str, Value]]:
    for row in view.session.execute(select(person)).mappings():
        name = Name(row["name"])
        added = Addition(
            name=row["name"], role=row["role"], org=row["org"], issuer=row["issuer"], sub=row["sub"]
        )
        yield person_digest(row["name"]), name
        yield digest(added.subject), name
    for row in view.session.execute(select(auditor.c.name, auditor.c.key)).mappings():
        yield digest(parse_key(row["key"])), Name(row["name"])


def _organisations(view: View, wanted: frozenset[str]) -> Iterator[tuple[str, Value]]:
    """Those that take part or did, those that were approved once, and those that were invited."""
    directory = view.services.directory
    for one in directory.members():
        yield digest(subject_of(one)), _led(view, Name(one.legal_name), f"/console/members/{one.org}")
    voted = select(approval.c.subject_digest, approval.c.org_id).where(approval.c.subject_digest.in_(wanted))
    for told, org in view.session.execute(voted):
        member = directory.of_org(org)
        if member is not None:
            yield told, _led(view, Name(member.legal_name), f"/console/members/{org}")
    for row in view.session.execute(select(invite)).mappings():
        said = [row["id"], row["legal_name"], row["country"], row["grp"]]
        yield digest(canonical(said)), Name(row["legal_name"])


def _signed(view: View, wanted: frozenset[str]) -> Iterator[tuple[str, Value]]:
    """Contracts by their titles, proposals by their kinds."""
    of = contract_document.c.digest
    for one in view.session.scalars(select(of).where(of.in_(wanted))):
        title = Name(view.services.contracts.read_in(view.session, one).title)
        yield from ((known, _led(view, title, f"/console/contracts/{one}")) for known in (one, _of_id(one)))
    asked = select(proposal.c.digest, proposal.c.id, proposal.c.kind).where(proposal.c.digest.in_(wanted))
    for told, name, kind in view.session.execute(asked):
        said = T("proposal {id} ({kind})", id=Code(name), kind=Code(kind))
        yield told, _led(view, said, f"/console/proposals/{name}")


def _training(view: View, wanted: frozenset[str]) -> Iterator[tuple[str, Value]]:
    """Runs, the recipes that were begun with, and models at the gate by the runs that they come from."""
    newest = select(run.c.run_id, run.c.recipe_digest, run.c.recipe_id).order_by(run.c.opened_ms.desc())
    for run_id, recipe, recipe_id in view.session.execute(newest.limit(RUNS)):
        yield recipe, T("recipe {id}", id=Code(recipe_id))
        yield _of_id(run_id), _led(view, Code(run_id), f"/console/runs/{run_id}")
    gone = select(model.c.digest, model.c.run_id).where(
        model.c.digest.in_(wanted) & model.c.run_id.is_not(None)
    )
    for told, run_id in view.session.execute(gone):
        yield told, _led(view, T("a model of run {id}", id=Code(run_id)), f"/console/releases/{told}")


def _of_id(name: str) -> str:
    """The digest that stands for an id in the log."""
    return digest(name.encode())
