# SPDX-License-Identifier: Apache-2.0
"""Models that a contract opened to all, for anybody who comes by.

Only what was released to the tier ``open`` is told: the model and its recipe by their names in the tier's
clause, when, under which licence, how large, and what the privacy statement of the release says of the
strongest loss. The contract's text and its parties' names are theirs: of the contract stands its digest,
which the public log has too.

Nobody downloads here: whoever wants the bytes asks a party, or joins. A download is judged and logged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.console.screens import PUBLIC, Area, Column, Panel, Room, Screen, Sees, Table
from broker.console.statements import told
from broker.console.values import Bytes, Code, Count, Digest, Name, Nothing, Number, State, T, Value, When
from broker.store.tables import model, release, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import RowMapping

    from broker.console.viewing import View

__all__ = ["room"]

room = Room("models")
PAGE: Final = 50
_OPEN: Final = "open"


@room.screen(
    "/models",
    name="open-models",
    title=T("Open models"),
    roles=PUBLIC,
    sees=Sees.OPEN,
    area=Area.PUBLIC,
    nav=True,
)
def models(view: View) -> Screen:
    """What was released to all."""
    found = list(_released(view))
    page = found[:PAGE]
    table = Table(
        name="models",
        caption=T("Released to all, the newest first"),
        columns=(
            Column("model", T("Model"), sort=True),
            Column("recipe", T("Recipe"), sort=True),
            Column("released", T("Released")),
            Column("licence", T("Licence"), sort=True),
            Column("privacy", T("Privacy"), sort=True),
            Column("epsilon", T("Epsilon")),
            Column("delta", T("Delta")),
            Column("size", T("Size"), sort=True),
            Column("digest", T("Digest")),
            Column("statement", T("Privacy statement")),
            Column("contract", T("Contract")),
        ),
        rows=[_row(view, one) for one in page],
        empty=T(
            "No contract here has opened a model to all yet. Models that only the contributors may use "
            "are not listed; whoever takes part finds them at home with {command}.",
            command=Code("iriai-node models list"),
        ),
        more={"after": str(page[-1]["model"])} if len(found) > PAGE else None,
    ).sorted_by(view.query)
    return Screen(
        panels=(
            Panel(
                name="models",
                title=T("Which models may anybody use?"),
                prose=tuple(_said(len(found), whole=len(found) <= PAGE)),
                table=table,
            ),
        )
    )


def _said(number: int, *, whole: bool) -> Iterator[Value]:
    if not number:
        yield T("None so far.")
        return
    if whole:
        yield T("Models that are open to all: {n}.", n=Count(number))
    yield T(
        "Epsilon is the largest loss of any contributor, at its delta, as the privacy statement of the "
        "release says. To get a model, ask a member of this pool: a download is judged and logged."
    )


def _released(view: View) -> Iterator[RowMapping]:
    query = (
        select(
            release.c.model,
            release.c.contract,
            release.c.statement_digest,
            release.c.at_ms,
            model.c.path,
            run.c.recipe_digest,
        )
        .join(model, model.c.digest == release.c.model)
        .join(run, run.c.run_id == model.c.run_id)
        .where(release.c.tier == _OPEN)
        .order_by(release.c.at_ms.desc(), release.c.model)
    )
    after = view.query.get("after", "")
    if after:
        at_ms = view.session.scalar(
            select(release.c.at_ms).where((release.c.model == after) & (release.c.tier == _OPEN))
        )
        if at_ms is not None:
            later = (release.c.at_ms == at_ms) & (release.c.model > after)
            query = query.where((release.c.at_ms < at_ms) | later)
    yield from view.session.execute(query.limit(PAGE + 1)).mappings()


def _row(view: View, one: RowMapping) -> Mapping[str, Value]:
    contract = view.services.contracts.read_in(view.session, one["contract"])
    clause = contract.recipe(one["recipe_digest"])
    tiers = [] if clause is None else [tier for tier in contract.tiers if tier.recipe == clause.id]
    tier = next((each for each in tiers if each.tier == _OPEN), None)
    return {
        "model": Nothing() if tier is None else Name(tier.model),
        "recipe": Nothing() if clause is None else Name(clause.id),
        "released": When(one["at_ms"]),
        "licence": Nothing() if tier is None else Name(tier.licence),
        **_privacy(view, one["statement_digest"]),
        "size": _size(one["path"]),
        "digest": Digest(one["model"]),
        "contract": Digest(contract.digest),
    }


def _privacy(view: View, digest: str | None) -> dict[str, Value]:
    """What the statement says of the contributor that loses most; no name of anybody."""
    if digest is None:
        return {"privacy": State("unknown")}
    said = told(view.session, digest)
    claims = [one["claim"] for one in said.get("contributors", ()) if one.get("claim")]
    most = max(claims, key=lambda one: float(one["epsilon_rdp"]), default=None)
    return {
        "privacy": State(
            {"PRIVATE": "private", "NOT PRIVATE": "not-private"}.get(said.get("verdict", ""), "unknown")
        ),
        "epsilon": Nothing() if most is None else Number(str(most["epsilon_rdp"])),
        "delta": Nothing() if most is None else Number(str(most["delta"])),
        "statement": Digest(digest),
    }


def _size(path: str) -> Value:
    try:
        return Bytes(Path(path).stat().st_size)
    except OSError:
        return Nothing()
