# SPDX-License-Identifier: Apache-2.0
"""What a node does with a request, whoever carried it: verify, decide, pull, work, sign.

No Flower, no sockets.

A `Handler` has two methods, and the order of their calls is the promise of the node: `Handler.decide` sees
the signed header only,
before one byte of the tensor is pulled; `Handler.run` is called only if it did not refuse. The table of
handlers is closed and built
once; nothing is ever imported by a name that came over the wire.

`Desk.answer`, in this order:
1. the header is signed by the broker key that the contract names, and belongs to this run, this node and
this message;
2. its deadline has not passed, else nothing is answered;
3. the ledger: what was answered is answered again with the same content, what was interrupted, differs or is
closed is refused;
4. type and size are within the table and the run's bound;
5. `Handler.decide`; a refusal is signed and kept like any reply;
6. the tensor is pulled and has the digest that the header names; receipt is confirmed;
7. the ledger says RUNNING, on disk; then `Handler.run`;
8. the reply says nothing that is not of the closed list (`policies.reply_body`); it is signed and on disk;
9. where the contract asks for slots, a training request (`TRAINING`) is answered at the next one
   (`client.federation.slots`), whatever the answer is;
10. right before it leaves, also where it was on disk already: the owner did not stop the run meanwhile, else
   a refusal leaves in its place. The answer stays on disk, for an owner who lets the run go on.

Steps 3, 7 and 10 and the copy on disk are left out for requests that cost nothing (`FREE`). A ping is
answered anew. So are the messages of secure aggregation that carry no update: what they rest on is in memory
only, and the machine there gives the same bytes for the same request (`policies.secagg.node`).

What fails before step 2 has no signed header to answer to: `FleetError` is raised and its code, nothing
else, goes to the broker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from client.federation.errors import (
    DeadlinePassedError,
    FleetError,
    HandlerFailedError,
    RequestInvalidError,
    RunHasCodeError,
    RunRefusedError,
    TooLargeError,
    UnknownTypeError,
)
from client.federation.slots import wait_ms
from policies.encoding import digest, is_digest
from policies.errors import EncodingError, IriaiError, SignatureInvalidError
from policies.exchange import (
    ExchangeType,
    RequestHeader,
    TensorSpec,
    digest_of_parts,
    open_reply,
    open_request,
    seal_reply,
    tensor_bytes,
)
from policies.limits import SECAGG_SETUP_BYTES, SECAGG_SHOWN, TEAMS_MAX
from policies.log.kinds import ID
from policies.reply_body import check_reply_body
from policies.signing import Envelope

if TYPE_CHECKING:
    from client.federation.ledger import FleetLedger, Stored
    from policies.identity import SigningKey
    from policies.ports import Timer

__all__ = [
    "FREE",
    "TRAINING",
    "Admission",
    "Admit",
    "Answer",
    "Desk",
    "Handler",
    "HandlerReply",
    "Refusal",
    "RunConfig",
    "read_run",
]

Json = Any  # a JSON value, as in `policies.encoding`
CONFIG_KEYS: Final = frozenset({"iriai", "run", "contract", "recipe"})
FREE: Final = frozenset(
    {
        ExchangeType.PING,
        ExchangeType.SA_ADVERTISE,
        ExchangeType.SA_SHARE,
        ExchangeType.SA_OPEN,
        ExchangeType.SA_CONFIRM,
        ExchangeType.SA_UNMASK,
    }
)
"""Requests that have no row in the ledger: they spend nothing, and no work of theirs outlives the process."""
TRAINING: Final = frozenset({ExchangeType.CONTRIBUTE, ExchangeType.SA_CONTRIBUTE})
"""Requests whose time of work follows from private data."""
_LOG: Final = logging.getLogger("iriai.node")
_STATE: Final = 2 * 3  # that of Adam, in double length
_JUDGED: Final = 2 + TEAMS_MAX + _STATE  # two models, a sum for each team
_MASKED: Final = 2 + SECAGG_SHOWN + _STATE  # two models, and sums between them


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a broker says about a run: its name and the digests of contract and recipe.

    Nothing else exists.
    """

    run: str
    contract: str
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The node's consent to a run, from local files only.

    Whose signature counts, how large a model is, and at which slots training is answered (0: at once).
    """

    broker_key: bytes
    tensor_bytes: int
    reply_slot_ms: int = 0


Admit = Callable[[RunConfig], Admission]  # raises an IriaiError, best RunRefusedError, to refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal before the tensor is pulled.

    ``body`` is the reply's body, with the decision where a guard made one.
    """

    code: str
    body: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerReply:
    """What a handler answers.

    ``tensor`` is a flat vector: float32, the masked update in uint32, or the uint8 bytes of a message of
    secure aggregation. A reply with status ``refused`` has a code and no tensor.
    """

    status: str = "ok"
    code: str | None = None
    body: Mapping[str, Json] = field(default_factory=dict)
    tensor: np.ndarray | None = None


class Handler(Protocol):
    """One entry of the closed table."""

    def decide(self, header: RequestHeader) -> Refusal | None:
        """None to go on, or the refusal. Called before the tensor is pulled."""
        ...

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        """Does the work.

        An `IriaiError` raised here is a refusal with its code; anything else is
        ``engine.handler-failed``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a signed header and the tensor's bytes.

    ``repeated`` says that it was answered before.
    """

    header: bytes
    tensor: bytes | None
    status: str
    code: str | None
    repeated: bool = False


def read_run(*, fab_hash: str, fab_id: str, config: Mapping[str, object]) -> RunConfig:
    """The run behind what the fleet API says about it.

    Raises:
        RunHasCodeError: The run names an app bundle.
        RunRefusedError: The configuration has other keys or values than the four of an iriai run.
    """
    if fab_hash or fab_id:
        raise RunHasCodeError(
            need="a run without code",
            found="an app bundle",
            remedy="stop the node and tell the other members: the broker is not ours or was broken into",
        )
    good = (
        set(config) == CONFIG_KEYS
        and config["iriai"] == 1
        and is_digest(config["contract"])
        and is_digest(config["recipe"])
        and ID.holds(config["run"])
    )
    if not good:
        raise RunRefusedError(
            need="exactly iriai, run, contract and recipe",
            found="another run configuration",
            remedy="update node or broker; the run was not joined",
        )
    return RunConfig(run=str(config["run"]), contract=str(config["contract"]), recipe=str(config["recipe"]))


class Desk:
    """Answers requests of one node, one at a time."""

    def __init__(
        self,
        *,
        node: str,
        key: SigningKey,
        handlers: Mapping[ExchangeType, Handler],
        admit: Admit,
        ledger: FleetLedger,
        clock: Timer,
        former: tuple[bytes, ...] = (),
        stopped: Callable[[str], str | None] = lambda _run: None,
    ) -> None:
        """Takes what `client.worker` composes.

        Args:
            node: Name of this node.
            key: Signs its replies.
            handlers: The closed table.
            admit: Consent to a run.
            ledger: What was answered.
            clock: Of deadlines and slots.
            former: Public keys that the node had before.
            stopped: Code of the refusal if the owner stopped a run, else None.
        """
        self.node = node
        self.admit = admit
        self._key = key
        self._former = former
        self._stopped = stopped
        self._handlers = dict(handlers)
        self._ledger = ledger
        self._clock = clock

    def answer(
        self,
        config: RunConfig,
        admission: Admission,
        header: bytes,
        *,
        kind: str,
        slot: tuple[int, int],
        pull: Callable[[TensorSpec], bytes | bytearray],
        confirm: Callable[[], None],
    ) -> Answer:
        """The signed answer to a request, after the ten steps of the module.

        Args:
            config: Of the run, as admitted.
            admission: What `Admit` returned for it.
            header: Signed request header as it arrived.
            kind: Type that the carrier claims.
            slot: Round and attempt that the carrier claims.
            pull: Fetches the tensor's bytes; called at most once, after `Handler.decide`.
            confirm: Tells the carrier that everything arrived.

        Raises:
            FleetError: Steps 1 and 2; there is nothing signed to answer to.
        """
        arrived_ms = self._clock.now_ms()
        request = self._verified(config, admission, header, kind=kind, slot=slot)
        answer = self._answered(request, admission, pull, confirm)
        if request.type in TRAINING:
            now_ms, slot_ms = self._clock.now_ms(), admission.reply_slot_ms
            if (left_ms := wait_ms(arrived_ms=arrived_ms, now_ms=now_ms, slot_ms=slot_ms)) > 0:
                self._clock.pause_ms(left_ms)
        return self._unless_stopped(request, answer)

    def _unless_stopped(self, request: RequestHeader, answer: Answer) -> Answer:
        """Step 10. Nothing may come between it and the first byte on the wire."""
        if request.type in FREE or answer.status != "ok":
            return answer
        code = self._stopped(request.run)
        return answer if code is None else self._refuse(request, code, {})

    def _answered(
        self,
        request: RequestHeader,
        admission: Admission,
        pull: Callable[[TensorSpec], bytes | bytearray],
        confirm: Callable[[], None],
    ) -> Answer:
        """Steps 3 to 8."""
        try:
            stored = None if request.type in FREE else self._ledger.look(request)
            if stored is not None:
                return self._again(request, stored)
            handler = self._checked(request, admission)
            refusal = handler.decide(request)
            if refusal is None:
                return self._work(handler, request, pull, confirm)
            check_reply_body(request.type, refusal.body)
        except IriaiError as error:
            return self._refuse(request, error.code, {})
        except Exception:  # noqa: BLE001  the boundary behind which foreign code runs; its text stays here
            _LOG.exception("handler %s failed", request.type)
            return self._refuse(request, HandlerFailedError.code, {})
        return self._keep(request, HandlerReply(status="refused", code=refusal.code, body=refusal.body))

    def local(
        self,
        config: Mapping[str, object],
        header: bytes,
        kind: str,
        slot: tuple[int, int],
        tensor: bytes | None,
    ) -> tuple[bytes, bytes | None] | str | None:
        """The same without a network, for federations in one process.

        Returns:
            Header and tensor of the reply, or the code of an unsigned refusal, or None where nothing is
            answered.
        """
        try:
            run = read_run(fab_hash="", fab_id="", config=config)
            admission = self.admit(run)
            answer = self.answer(
                run,
                admission,
                header,
                kind=kind,
                slot=slot,
                pull=lambda _spec: tensor or b"",
                confirm=lambda: None,
            )
        except DeadlinePassedError:
            return None
        except IriaiError as error:
            return code_of(error)
        return answer.header, answer.tensor

    def _verified(
        self, config: RunConfig, admission: Admission, header: bytes, *, kind: str, slot: tuple[int, int]
    ) -> RequestHeader:
        remedy = "compare the broker key with the contract; nothing was done"
        try:
            request = open_request(header, admission.broker_key)
        except (SignatureInvalidError, EncodingError) as error:
            raise RequestInvalidError(
                need="a request signed by the contract's broker key", found=error.code, remedy=remedy
            ) from error
        claimed = (config.contract, config.recipe, config.run, self.node, kind, slot)
        signed = (request.contract, request.recipe, request.run, request.node, request.type.value)
        if (*signed, (request.round, request.attempt)) != claimed:
            raise RequestInvalidError(
                need="a request for this node, in this run, round and attempt",
                found="another one",
                remedy=remedy,
            )
        if request.deadline_ms <= self._clock.now_ms():
            raise DeadlinePassedError(
                need="a deadline ahead", found="one that has passed", remedy="compare the clocks (NTP)"
            )
        return request

    def _checked(self, request: RequestHeader, admission: Admission) -> Handler:
        handler = self._handlers.get(request.type)
        if handler is None:
            raise UnknownTypeError(
                need="a type of the table", found=request.type.value, remedy="update the node"
            )
        most = _most_bytes(request.type, admission)
        if request.tensor is not None and request.tensor.size_bytes > most:
            raise TooLargeError(
                need=f"at most {most} bytes",
                found=f"{request.tensor.size_bytes}",
                remedy="compare the recipe's tensor manifest",
            )
        return handler

    def _work(
        self,
        handler: Handler,
        request: RequestHeader,
        pull: Callable[[TensorSpec], bytes | bytearray],
        confirm: Callable[[], None],
    ) -> Answer:
        keep = request.type not in FREE
        if keep:
            self._ledger.admit(request)
        tensor = None if request.tensor is None else _vector(request.tensor, pull(request.tensor))
        confirm()
        if keep:
            self._ledger.running(request)
        try:
            reply = handler.run(request, tensor)
            check_reply_body(request.type, reply.body)
        except IriaiError as error:
            reply = HandlerReply(status="refused", code=error.code)
        except Exception:  # noqa: BLE001  the boundary behind which foreign code runs; its text stays here
            _LOG.exception("handler %s failed", request.type)
            reply = HandlerReply(status="refused", code=HandlerFailedError.code)
        del tensor  # a large one is not beside its answer in memory
        return self._keep(request, reply)

    def _keep(self, request: RequestHeader, reply: HandlerReply) -> Answer:
        data = None if reply.tensor is None else tensor_bytes(reply.tensor)
        spec = None
        if reply.tensor is not None and data is not None:
            spec = TensorSpec(
                digest=digest(data), dtype=reply.tensor.dtype.name, shape=tuple(reply.tensor.shape)
            )
        header = seal_reply(
            self._key, request, status=reply.status, code=reply.code, tensor=spec, body=reply.body
        )
        if request.type not in FREE:
            self._ledger.replied(request, header, data)
        return Answer(header=header, tensor=data, status=reply.status, code=reply.code)

    def _again(self, request: RequestHeader, stored: Stored) -> Answer:
        """The stored answer.

        Its header is sealed again where only deadline or news of the request are new, or this node's key is.
        """
        sealed = Envelope.from_bytes(stored.header)
        by = next((key for key in self._former if sealed.signed_by(key)), self._key.public)
        old = open_reply(stored.header, by)
        header = stored.header
        if old.request != request.digest or by != self._key.public:
            header = seal_reply(
                self._key, request, status=old.status, code=old.code, tensor=old.tensor, body=old.body
            )
        return Answer(header=header, tensor=stored.tensor, status=old.status, code=old.code, repeated=True)

    def _refuse(self, request: RequestHeader, code: str, body: Mapping[str, Json]) -> Answer:
        header = seal_reply(self._key, request, status="refused", code=code, tensor=None, body=body)
        return Answer(header=header, tensor=None, status="refused", code=code)


def _most_bytes(kind: ExchangeType, admission: Admission) -> int:
    """What a request of a type may carry: a model, sums and another model behind it, a setup message."""
    if kind in {ExchangeType.SA_SHARE, ExchangeType.SA_OPEN}:
        return SECAGG_SETUP_BYTES
    if kind is ExchangeType.SA_JUDGE:
        return _JUDGED * admission.tensor_bytes
    if kind is ExchangeType.SA_CONTRIBUTE:
        return _MASKED * admission.tensor_bytes
    return admission.tensor_bytes if kind not in FREE else 0


def _vector(spec: TensorSpec, data: bytes | bytearray) -> np.ndarray:
    """The tensor of a request, ``[…]`` of the header's own dtype, little-endian."""
    if len(data) != spec.size_bytes or digest_of_parts((memoryview(data),)) != spec.digest:
        raise RequestInvalidError(
            need="the tensor that the header names", found="other bytes", remedy="ask for the round again"
        )
    return np.frombuffer(data, dtype=np.dtype(spec.dtype).newbyteorder("<")).reshape(spec.shape)


def code_of(error: IriaiError) -> str:
    """The only thing about an error that leaves the site."""
    return error.code if isinstance(error, FleetError) else RunRefusedError.code
