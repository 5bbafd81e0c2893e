# SPDX-License-Identifier: Apache-2.0
"""Routes of the facade for connectors of dataspaces: version, catalogue, negotiations, provider side.

Off unless ``dsp.enabled`` is set: then the paths do not exist. Every call, but the one for versions:

1. the bearer token is a registered connector's, before anything of the body is read
2. the body is read up to `DSP_MESSAGE_BYTES`, as JSON, by `policies.contract.odrl.dsp_messages`
3. the change and the provider's answer to it are one transaction (`broker.dataspace.facade`)
4. after the answer, what the provider said is told to the registered callback address

Refusals have the protocol's own form, ContractNegotiationError or CatalogError, with our code and the need,
what was found and the remedy as reasons. The operators' routes are as everywhere in the API.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import StringConstraints
from starlette.background import BackgroundTask
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.dsp import (
    Counterparties,
    CounterpartyLine,
    CounterpartyMade,
    DspAnswer,
    DspMessage,
    DspVersions,
)
from broker.api.bodies import Body, read_raw
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.problems import request_id
from broker.api.signed import OperatorCall, json_response, services_of
from broker.dataspace.facade import Negotiation, Said
from broker.dataspace.offers import DSP_PATH
from broker.dataspace.rows import negotiation_of
from broker.errors import NotFoundError, retry_headers
from broker.log.errors import LogFrozenError
from policies.contract.negotiation.pool import LaneState
from policies.contract.odrl import dsp_messages as dsp
from policies.errors import IdentityError, IriaiError
from policies.limits import DSP_ID_CHARS, DSP_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from broker.dataspace.counterparties import Counterparty
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["ROLES", "operator_router", "router"]

_T = TypeVar("_T")
_NOBODY: Final = "iriai:none"
_OURS: Final = 500
_log = logging.getLogger("iriai.broker")


class _Route(APIRoute):
    """A route whose refusals have the protocol's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            services = services_of(request)
            if not services.settings.dsp.enabled:
                raise _off()
            try:
                return await inner(request)
            except IriaiError as error:
                return _refusal(services, request, error)

        return handle


def _off() -> NotFoundError:
    return NotFoundError(
        need="a documented path and method", found="another", remedy="see docs/reference/http-api.md"
    )


def _refusal(services: Services, request: Request, error: IriaiError) -> Response:
    reason = [f"needs {error.need}", f"found {error.found}", f"remedy: {error.remedy}"]
    if error.http_status >= _OURS:
        given_id = request_id(services)
        _log.error("%s %s", given_id, error, exc_info=error)
        reason.append(f"tell the operators {given_id}")
    if request.url.path.startswith(f"{DSP_PATH}/catalog/"):
        body = dsp.catalog_error(code=error.code, reason=reason)
    else:
        provider = request.path_params.get("provider_pid", _NOBODY)
        consumer = getattr(request.state, "consumer_pid", _NOBODY)
        body = dsp.negotiation_error(provider, consumer, code=error.code, reason=reason)
    answer = json_response(body, status=error.http_status)
    if isinstance(error, IdentityError):
        answer.headers["WWW-Authenticate"] = "Bearer"
    answer.headers.update(retry_headers(error))
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class DspCall:
    """A call of a registered connector."""

    services: Services
    counterparty: Counterparty
    request: Request
    body: bytes

    def message(self) -> Json:
        """The body as JSON; the consumer's pid in it is kept for a refusal.

        Raises:
            DspMessageError: No JSON of the protocol's profile.
        """
        tree = dsp.read_json(self.body)
        pid = tree.get("consumerPid") if isinstance(tree, dict) else None
        if isinstance(pid, str) and len(pid) <= DSP_ID_CHARS and pid.isascii() and pid.isprintable():
            self.request.state.consumer_pid = pid
        return tree

    async def change(self, effect: Callable[[Session], _T]) -> _T:
        """Runs an effect in one transaction."""

        def work(session: Session, _tx: LogTx) -> _T:
            return effect(session)

        done, _ = await self.services.writer.run(work)
        return done

    def tell(self, provider_pid: str) -> BackgroundTask:
        """Tells the connector what waits for it, after the answer."""
        return BackgroundTask(self.services.courier.tell, self.counterparty, provider_pid)

    async def take(self, pid: str, said: Said) -> Response:
        """Takes a message of a running negotiation."""
        facade = self.services.facade
        done = await self.change(lambda session: facade.take(session, self.counterparty, pid, said))
        return _negotiation(done, background=self.tell(pid))


def _negotiation(done: Negotiation, *, background: BackgroundTask, status: int = 200) -> Response:
    answer = json_response(done.to_json(), status=status)
    answer.background = background
    return answer


async def _counterparty(request: Request) -> DspCall:
    """Steps 1 and 2."""
    services = services_of(request)
    with services.store.read() as session:
        known = services.counterparties.authenticate(session, request.headers.get("authorization"))
    services.admission.proved(request.scope, f"connector {known.name}")
    body = await read_raw(request, most=DSP_MESSAGE_BYTES)
    return DspCall(services=services, counterparty=known, request=request, body=body)


CounterpartyCall = Annotated[DspCall, Depends(_counterparty)]
ROLES: Final[dict[Any, str]] = {_counterparty: "counterparty"}
"""As `broker.api.signed.ROLES`: who may call, by the dependency that checks it."""

router = APIRouter(prefix="/dsp", route_class=_Route)


@router.get("/.well-known/dspace-version")
@gives(DspVersions, role="anyone", refuses=(404,))
async def versions() -> Response:
    """Which version of the Dataspace Protocol is spoken here. For anyone."""
    return json_response(dsp.versions(DSP_PATH))


@router.post("/catalog/request")
@gives(DspAnswer, takes=DspMessage)
async def catalog(call: CounterpartyCall) -> Response:
    """The offers that are open to the caller, by what they are about."""
    dsp.read_catalog_request(call.message())
    services, url = call.services, call.services.settings.public_url
    with services.store.read() as session:
        datasets = services.dsp_offers.datasets(session, call.counterparty)
    service = {"@id": url + DSP_PATH, "@type": "DataService", "endpointURL": url + DSP_PATH}
    shown = dsp.catalog(
        catalog_id=f"{url}{DSP_PATH}/catalog", participant=url, service=service, datasets=datasets
    )
    return json_response(shown)


@router.get("/catalog/datasets/{dataset:path}")
@gives(DspAnswer)
async def dataset(call: CounterpartyCall, dataset: str) -> Response:
    """One data set or model of the catalogue, with its offers."""
    with call.services.store.read() as session:
        datasets = call.services.dsp_offers.datasets(session, call.counterparty)
    found = next((one for one in datasets if one["@id"] == dataset), None)
    if found is None:
        raise NotFoundError(
            need="an @id of the catalogue",
            found=ascii(dataset)[1:-1][:120],
            remedy="ask the catalogue again",
        )
    return json_response(dsp.with_context(None, found))


@router.post("/negotiations/request")
@gives(DspAnswer, status=201, takes=DspMessage, refuses=(429,))
async def begin(call: CounterpartyCall) -> Response:
    """Begins a negotiation about an offer of the catalogue."""
    message, facade = dsp.read_request(call.message()), call.services.facade
    if message.provider_pid is not None:
        raise dsp.malformed("a request that begins a negotiation: callbackAddress", "providerPid")
    done = await call.change(lambda session: facade.begin(session, call.counterparty, message, call.body))
    return _negotiation(done, background=call.tell(done.provider_pid), status=201)


@router.get("/negotiations/{provider_pid}")
@gives(DspAnswer)
async def show(call: CounterpartyCall, provider_pid: str) -> Response:
    """Where a negotiation of the caller stands; what could not be told is told again."""
    services, facade = call.services, call.services.facade
    with services.store.read() as session:
        due = facade.is_due(session, call.counterparty, provider_pid)
        row = negotiation_of(session, call.counterparty.name, provider_pid)
    done = Negotiation(provider_pid=provider_pid, consumer_pid=row.consumer_pid, state=row.state)
    if due:
        try:
            done = await call.change(lambda session: facade.look(session, call.counterparty, provider_pid))
        except LogFrozenError:
            _log.warning("a negotiation cannot move: the log is frozen")
    return _negotiation(done, background=call.tell(provider_pid))


@router.post("/negotiations/{provider_pid}/request")
@gives(DspAnswer, takes=DspMessage)
async def counter(call: CounterpartyCall, provider_pid: str) -> Response:
    """Takes a counter-offer; it is met with the terms of the contract, which do not change."""
    message = dsp.read_request(call.message())
    if message.provider_pid is None:
        raise dsp.malformed("a counter-offer: providerPid", "callbackAddress")
    said = Said(
        to=LaneState.REQUESTED,
        kind="ContractRequestMessage",
        pids=dsp.Heard(provider_pid=message.provider_pid, consumer_pid=message.consumer_pid),
        data=call.body,
        offer=message.offer,
    )
    return await call.take(provider_pid, said)


@router.post("/negotiations/{provider_pid}/events")
@gives(DspAnswer, takes=DspMessage)
async def event(call: CounterpartyCall, provider_pid: str) -> Response:
    """Takes the event ACCEPTED."""
    pids, name = dsp.read_event(call.message())
    kind = "ContractNegotiationEventMessage"
    return await call.take(provider_pid, Said(to=LaneState(name), kind=kind, pids=pids, data=call.body))


@router.post("/negotiations/{provider_pid}/agreement/verification")
@gives(DspAnswer, takes=DspMessage)
async def verification(call: CounterpartyCall, provider_pid: str) -> Response:
    """Takes the verification of the agreement, which makes it final."""
    pids = dsp.read_verification(call.message())
    kind = "ContractAgreementVerificationMessage"
    return await call.take(provider_pid, Said(to=LaneState.VERIFIED, kind=kind, pids=pids, data=call.body))


@router.post("/negotiations/{provider_pid}/termination")
@gives(DspAnswer, takes=DspMessage)
async def termination(call: CounterpartyCall, provider_pid: str) -> Response:
    """Takes the end of a negotiation by the consumer."""
    pids = dsp.read_termination(call.message())
    kind = "ContractNegotiationTerminationMessage"
    return await call.take(provider_pid, Said(to=LaneState.TERMINATED, kind=kind, pids=pids, data=call.body))


# --- the operators' side ---

operator_router = APIRouter()
_Participant = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._~%#?/@-]*$", max_length=DSP_ID_CHARS)
]


class CounterpartyBody(Body):
    """A connector: its name among the operators, where it is told, how it is called, for whom it speaks."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    callback: Annotated[str, StringConstraints(max_length=DSP_ID_CHARS)]
    participant: _Participant | None = None
    org: Annotated[str, StringConstraints(pattern=r"^org_[a-z2-7]{16}$")] | None = None


def _check_enabled(services: Services) -> None:
    if not services.settings.dsp.enabled:
        raise NotFoundError(
            need="the facade for connectors", found="off", remedy="set dsp.enabled = true in broker.toml"
        )


@operator_router.post("/operator/dsp/counterparties")
@gives(CounterpartyMade, status=201, takes=CounterpartyBody)
async def add(call: OperatorCall) -> Response:
    """Registers a connector; its token is in the answer and nowhere else."""
    body, services = call.read(CounterpartyBody), call.services
    _check_enabled(services)
    made = services.counterparties.new(
        name=body.name, callback=body.callback, participant=body.participant, org=body.org
    )

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.counterparties.add(session, tx, made, operator=call.operator, request=call.digest)
        return Answer(status=201, body={**done, "token": made.token})

    return await call.change(effect, forget=frozenset({"token"}))


@operator_router.get("/operator/dsp/counterparties")
@gives(Counterparties, refuses=(404,))
async def registered(call: OperatorCall) -> Response:
    """Every connector that was registered."""
    _check_enabled(call.services)
    with call.services.store.read() as session:
        return json_response({"counterparties": call.services.counterparties.list(session)})


@operator_router.post("/operator/dsp/counterparties/{name}/remove")
@gives(CounterpartyLine)
async def remove(call: OperatorCall, name: str) -> Response:
    """Ends a connector's token at once."""
    _check_enabled(call.services)

    def effect(session: Session, tx: LogTx) -> Answer:
        removed = call.services.counterparties.remove(
            session, tx, name, operator=call.operator, request=call.digest
        )
        return Answer(body=removed)

    return await call.change(effect)
