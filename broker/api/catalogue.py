# SPDX-License-Identifier: Apache-2.0
"""Routes of the catalogue: signed documents of owners in; what a caller may know of them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as QueryParam
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.membership import CatalogueShown, Dcat, Published, Withdrawn
from broker.api.answers.values import Dsse
from broker.api.bodies import read_document
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.paging import Asked as Paged  # noqa: TC001  FastAPI reads the annotations
from broker.api.signed import MemberCall, PartyCall, json_response
from policies.messages import EmbodimentClass, EpisodesBucket  # noqa: TC001  FastAPI reads the annotations
from policies.shown_data import Sought, dcat_catalogue
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()

Word = Annotated[str | None, QueryParam(max_length=80)]


@router.post("/catalogue/descriptors")
@gives(Published, takes=Dsse)
async def publish(call: MemberCall, shown: Literal["open", "fits"] = "open") -> Response:
    """Publishes the descriptor of one data set; a newer one replaces it."""
    found = call.services.catalogue.read(call.member, Envelope.from_json(read_document(call.body)))

    def effect(session: Session, _tx: LogTx) -> Answer:
        return Answer(body=call.services.catalogue.publish(session, call.member, found, shown=shown))

    return await call.change(effect)


@router.post("/catalogue/certificates")
@gives(Published, takes=Dsse)
async def certify(call: MemberCall) -> Response:
    """Publishes the certificate of quality that the next descriptor of a data set names."""
    found = call.services.catalogue.read_certificate(
        call.member, Envelope.from_json(read_document(call.body))
    )

    def effect(session: Session, _tx: LogTx) -> Answer:
        return Answer(body=call.services.catalogue.certify(session, call.member, found))

    return await call.change(effect)


@router.post("/catalogue/withdrawals")
@gives(Withdrawn, takes=Dsse)
async def withdraw(call: MemberCall) -> Response:
    """Takes the named publication of one's own data set out of the catalogue; contracts are not touched."""
    found = call.services.catalogue.read_withdrawal(call.member, Envelope.from_json(read_document(call.body)))

    def effect(session: Session, _tx: LogTx) -> Answer:
        return Answer(body=call.services.catalogue.withdraw(session, call.member, found))

    return await call.change(effect)


def _sought(
    *,
    embodiment_class: EmbodimentClass | None = None,
    task: Word = None,
    episodes: EpisodesBucket | None = None,
    field: Word = None,
    label: Word = None,
    recipe: Word = None,
    certified: bool = False,
) -> Sought:
    return Sought(
        embodiment_class=embodiment_class,
        task=task,
        episodes=episodes,
        field=field,
        label=label,
        recipe=recipe,
        certified=certified,
    )


Asked = Annotated[Sought, Depends(_sought)]


@router.get("/catalogue")
@gives(CatalogueShown)
async def catalogue(call: PartyCall, sought: Asked, asked: Paged) -> Response:
    """Data sets that have what is sought: one's own in full, of others what they show; all for operators."""
    with call.services.store.read() as session:
        found = call.services.catalogue.list_for(session, call.known, sought)
    page = asked.of("catalogue", found.datasets, key=lambda one: (str(one["org"]), str(one["dataset"])))
    shown = {"datasets": page.rows, **page.more}
    for name, noted in (("unverified", found.unverified), ("withdrawn", found.withdrawn)):
        if noted:
            shown[name] = [{"org": org, "dataset": dataset} for org, dataset in noted]
    return json_response(shown)


@router.get("/catalogue/dcat")
@gives(Dcat)
async def dcat(call: PartyCall, sought: Asked) -> Response:
    """The same as a DCAT catalogue (JSON-LD)."""
    with call.services.store.read() as session:
        rows = call.services.catalogue.list_for(session, call.known, sought).datasets
    origin = call.services.writer.origin
    return json_response(dcat_catalogue(rows, publisher=origin, identifier=f"urn:iriai:{origin}:catalogue"))
