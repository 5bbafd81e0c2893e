# SPDX-License-Identifier: Apache-2.0
"""A second door to the same service: an OPC UA server, for supervision and not for servo loops.

    Model/   Digest  State  Flags
    Inputs/  one array of doubles per field, StampNs, Seq
    Outputs/ one array of doubles per field
    EndEpisode(Outcome) → Recorded

- The client writes the inputs and **Seq last**, in one request or in several. The write of ``Seq`` asks the
  question; when it is answered, ``Outputs``, ``State`` and ``Flags`` hold the answer. The outputs are the
  first row of the chunk, and no other row counts as sent: ask at every tick.
- No action is an output whose status is bad: a controller that reads it as a value does not follow OPC UA.
  A watchdog that fires writes the fallback by itself; the end of an episode, and an owner who resumes, write
  no action. Whatever fails while a question is answered is the fallback with no action.
- Only policies that sign **and** encrypt; nobody is anonymous: user ``cell`` with the cell's token as its
  password, or a client certificate that the owner named. Nothing here resumes: a cell that fell back is let
  go on by a command on the machine itself.
- Every field has ``EngineeringUnits`` (UNECE codes) and ``EURange``.
- Who has no session holds little and not for long (`client.deploy.opcua_connections`).
- The guards, the recorder and the counts are those of `client.deploy.serving`; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

import numpy as np

from client.deploy.guards import Flag
from client.deploy.refusals import OpcUaError, RequestError, ServeError
from client.deploy.states import Phase, Question
from policies.limits import INTEGER_MAX

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from client.deploy.ports import Channel
    from client.deploy.serving import Answer, Outcome, Serving
    from client.deploy.token import Tokens

__all__ = ["USER", "OpcUaDoor", "OpcUaOptions"]

USER: Final = "cell"
_NAMESPACE: Final = "https://iriai.example/serve/1"
_UNECE: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
_UNITS: Final = {
    "1": "C62",
    "A": "AMP",
    "K": "KEL",
    "N": "NEW",
    "Nm": "NU",
    "kg": "KGM",
    "m": "MTR",
    "m/s": "MTS",
    "rad": "C81",
    "rad/s": "2A",
    "rad/s2": "2B",
    "s": "SEC",
}
_LOOK_S: Final = 0.05  # how often silence is looked for
_STAMP_MAX: Final = 2**63 - 1
_OUTCOMES: Final = ("success", "fail", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaOptions:
    """Where the server listens, who it is, and whom it knows beside the cell's password.

    Attributes:
        url: ``opc.tcp://HOST:PORT/…``.
        certificate: Its own, DER; made with its key if it is missing.
        key: Its private key, PEM.
        clients: Certificates of clients that need no password.
    """

    url: str
    certificate: Path
    key: Path
    clients: tuple[Path, ...] = ()


class _Users:
    """Who may open a session: asyncua asks with what the client has proved."""

    def __init__(self, tokens: Tokens, clients: frozenset[bytes]) -> None:
        self._tokens, self._clients = tokens, clients

    def get_user(
        self,
        iserver: object,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Any:  # noqa: ANN401  the library's user, or nobody
        from asyncua.crypto.permission_rules import User, UserRole

        del iserver
        if username is not None:
            known = username == USER and self._tokens.is_password(password)
        else:
            known = certificate is not None and certificate in self._clients
        return User(role=UserRole.User, name=USER) if known else None


class OpcUaDoor:
    """The server, as an asynchronous context; it shares the loop that owns the service."""

    def __init__(self, serving: Serving, options: OpcUaOptions, tokens: Tokens) -> None:
        self.url = _checked(options.url)
        self._serving, self._options, self._tokens = serving, options, tokens
        self._watch: asyncio.Task[None] | None = None
        self._shown: tuple[str, str] = ("", "")

    async def __aenter__(self) -> Self:
        """Starts it.

        Raises:
            OpcUaError: The library is missing, a file cannot be read, or the address is taken.
        """
        try:
            from asyncua import ua
            from asyncua.crypto.uacrypto import load_certificate
            from cryptography.hazmat.primitives.serialization import Encoding

            from client.deploy.opcua_connections import GuardedServer
        except ImportError as error:
            raise _refused("asyncua", str(error), "pip install 'iriai[opcua]'") from error
        self._ua: Any = ua
        options = self._options
        try:
            trusted = [await load_certificate(one) for one in options.clients]
            known = frozenset(one.public_bytes(Encoding.DER) for one in trusted)
        except (OSError, ValueError) as error:
            raise _refused("readable client certificates", type(error).__name__, "name others") from error
        await _own_certificate(options)
        self._server: Any = GuardedServer(user_manager=_Users(self._tokens, known))
        await self._server.init()
        await self._server.set_application_uri(_NAMESPACE)
        self._server.set_server_name("iriai model")
        self._server.set_endpoint(self.url)
        kinds = ua.SecurityPolicyType
        self._server.set_security_policy(
            [kinds.Basic256Sha256_SignAndEncrypt, kinds.Aes256Sha256RsaPss_SignAndEncrypt]
        )
        self._server.set_identity_tokens([ua.UserNameIdentityToken, ua.X509IdentityToken])
        await self._server.load_certificate(options.certificate)
        await self._server.load_private_key(options.key)
        await self._furnish()
        try:
            await self._server.start()
        except OSError as error:
            raise _refused(f"{self.url} to be free", error.strerror or "it is not", "name another") from error
        self._watch = asyncio.create_task(self._watching())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._server.stop()

    # --- nodes ---

    async def _furnish(self) -> None:
        from asyncua.common.callback import CallbackType

        ua, facts = self._ua, self._serving.facts
        space = await self._server.register_namespace(_NAMESPACE)
        root = self._server.nodes.objects
        model = await root.add_object(space, "Model")
        await model.add_variable(space, "Digest", facts.model)
        self._state = await model.add_variable(space, "State", "")
        self._flags = await model.add_variable(space, "Flags", "")
        inputs, outputs = await root.add_object(space, "Inputs"), await root.add_object(space, "Outputs")
        self._inputs = [await self._field(inputs, space, one, writable=True) for one in facts.inputs]
        self._outputs = [await self._field(outputs, space, one, writable=False) for one in facts.outputs]
        self._stamp = await inputs.add_variable(space, "StampNs", 0, ua.VariantType.Int64)
        self._seq = await inputs.add_variable(space, "Seq", -1, ua.VariantType.Int64)
        for one in (self._stamp, self._seq):
            await one.set_writable()
        kinds = [[ua.VariantType.String], [ua.VariantType.Boolean]]
        await root.add_method(space, "EndEpisode", self._end_episode, *kinds)
        self._server.subscribe_server_callback(CallbackType.PostWrite, self._written)
        await self._show()

    async def _field(self, parent: Any, space: int, channel: Channel, *, writable: bool) -> Any:  # noqa: ANN401
        ua = self._ua
        blank = ua.DataValue(
            ua.Variant([0.0] * channel.size, ua.VariantType.Double),
            StatusCode=ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData),
        )
        node = await parent.add_variable(space, channel.name, [0.0] * channel.size, ua.VariantType.Double)
        await node.write_value(blank)
        code = _UNITS.get(channel.unit, "C62")
        unit = ua.EUInformation(
            NamespaceUri=_UNECE,
            UnitId=int.from_bytes(code.encode("ascii"), "big"),
            DisplayName=ua.LocalizedText(channel.unit),
            Description=ua.LocalizedText(f"UNECE {code}"),
        )
        await node.add_property(space, "EngineeringUnits", unit)
        await node.add_property(space, "EURange", ua.Range(Low=min(channel.low), High=max(channel.high)))
        if writable:
            await node.set_writable()
        return node

    # --- what happens ---

    async def _written(self, event: Any, _dispatcher: object = None) -> None:  # noqa: ANN401
        """A client wrote; if ``Seq`` was among it and taken, its question is answered before the write is."""
        if not event.is_external:
            return
        results = zip(event.request_params.NodesToWrite, event.response_params, strict=False)
        if any(one.NodeId == self._seq.nodeid and code.is_good() for one, code in results):
            await self._ask()

    async def _ask(self) -> None:
        try:
            answer = self._serving.infer(await self._question(), rows=1)
        except ServeError as error:
            await self._put(None)
            await self._show(error.code)
            return
        except Exception:  # noqa: BLE001  whatever the library or a value did: an old action must not stay
            self._serving.trip(Flag.INPUT)
            await self._put(None)
            await self._show()
            return
        await self._put(answer)
        await self._show(" ".join(one.value for one in answer.flags))

    async def _question(self) -> Question:
        parts = [await node.read_data_value(raise_on_bad_status=False) for node in self._inputs]
        seq, stamp = await self._whole(self._seq, INTEGER_MAX), await self._whole(self._stamp, _STAMP_MAX)
        sizes = [one.size for one in self._serving.facts.inputs]
        try:
            arrays = [np.asarray(part.Value.Value, dtype=np.float64) for part in parts]
        except (TypeError, ValueError) as error:
            raise _bad_inputs() from error
        if [one.shape for one in arrays] != [(size,) for size in sizes]:
            raise _bad_inputs()
        for part, array in zip(parts, arrays, strict=True):
            if not part.StatusCode.is_good():  # a value that its own writer does not trust is missing
                array[:] = np.nan
        return Question(observation=np.concatenate(arrays), stamp_ns=stamp, seq=seq)

    async def _whole(self, node: Any, most: int) -> int:  # noqa: ANN401  of the library
        told = await node.read_data_value(raise_on_bad_status=False)
        value = None if told.Value is None else told.Value.Value
        if not told.StatusCode.is_good() or type(value) is not int or not 0 <= value <= most:
            raise _bad_inputs()
        return value

    async def _put(self, answer: Answer | None) -> None:
        """Writes the action to the outputs; no action is a bad status."""
        ua, at = self._ua, 0
        row = None if answer is None or answer.rows is None else answer.rows[0]
        for node, channel in zip(self._outputs, self._serving.facts.outputs, strict=True):
            values = [0.0] * channel.size if row is None else row[at : at + channel.size].tolist()
            code = ua.StatusCodes.BadNoData if row is None else ua.StatusCodes.Good
            await node.write_value(
                ua.DataValue(ua.Variant(values, ua.VariantType.Double), StatusCode=ua.StatusCode(code))
            )
            at += channel.size

    async def _show(self, flags: str = "") -> None:
        """Writes state and flags where they changed."""
        standing = self._serving.standing()
        shown = (standing.phase.value, flags or " ".join(one.value for one in standing.cause))
        if shown != self._shown:
            await self._state.write_value(shown[0])
            await self._flags.write_value(shown[1])
            self._shown = shown

    async def _watching(self) -> None:
        """Silence beyond the watchdog: the fallback is written, though nobody asked."""
        while True:
            await asyncio.sleep(_LOOK_S)
            phase = self._serving.standing().phase
            if phase.value == self._shown[0]:
                continue
            if phase is not Phase.ACTIVE:  # the fallback; or no action, since nobody asked for one yet
                await self._put(self._serving.fallback_due())
            await self._show()

    async def _end_episode(self, _parent: object, outcome: Any) -> Any:  # noqa: ANN401  variants of the library
        ua = self._ua
        told = outcome.Value
        if told not in _OUTCOMES:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        written = self._serving.end_episode(cast("Outcome", told))
        await self._put(self._serving.fallback_due())
        await self._show()
        path = None if written is None else await asyncio.wrap_future(written)
        return [ua.Variant(path is not None, ua.VariantType.Boolean)]


async def _own_certificate(options: OpcUaOptions) -> None:
    """Makes certificate and key where they are missing; the key is this account's alone."""
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from cryptography.x509.oid import ExtendedKeyUsageOID

    options.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    await setup_self_signed_certificate(
        options.key,
        options.certificate,
        _NAMESPACE,
        urlsplit(options.url).hostname or "",
        [ExtendedKeyUsageOID.SERVER_AUTH],
        {"commonName": "iriai model"},
    )
    options.key.chmod(0o600)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "opc.tcp" and bool(parts.hostname) and (parts.port or 0) > 0
    except ValueError:
        fits = False
    if not fits or parts.username is not None:
        raise _refused(
            "opc.tcp://HOST:PORT/", ascii(url)[:80], "name the address of the interface that the cell reaches"
        )
    return url


def _refused(need: str, found: str, remedy: str) -> OpcUaError:
    return OpcUaError(need=need, found=found, remedy=remedy)


def _bad_inputs() -> RequestError:
    return RequestError(
        need="every input as an array of its size, StampNs and Seq as whole numbers from 0",
        found="another",
        remedy="write them as they are declared",
    )
