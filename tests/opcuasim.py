# SPDX-License-Identifier: Apache-2.0
"""A robot's OPC UA server on loopback, in a thread of its own, laid out as OPC 40010-1 does: real server, real encryption."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from asyncua import Server, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from cryptography.x509.oid import ExtendedKeyUsageOID

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

URI = "urn:iriai:test"
START = dt.datetime(2026, 11, 24, 10, 4, 5, tzinfo=dt.UTC)
AXES = tuple(f"MotionDevices/MotionDevice_1/Axes/Axis_{i}/ParameterSet" for i in range(1, 7))
SAFETY = "SafetyStates/SafetyState_1/ParameterSet"
POSITIONS = tuple(f"{axis}/ActualPosition" for axis in AXES)
STOP = f"{SAFETY}/EmergencyStop"
MODE = f"{SAFETY}/OperationalMode"
RADIAN, BARE = "Odd/Radian", "Odd/Bare"  # another unit than the map's, and none
UNITS = {**dict.fromkeys(POSITIONS, "DD"), RADIAN: "C81"}


def unit_id(code: str) -> int:
    """UN/ECE code as OPC 10000-8 writes it into UnitId."""
    return int.from_bytes(code.encode("ascii"), "big")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


async def make_pair(folder: Path, name: str) -> Pair:
    pair = Pair(certificate=folder / f"{name}.der", key=folder / f"{name}.pem")
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    await setup_self_signed_certificate(pair.key, pair.certificate, f"{URI}:{name}", "localhost", usages, {})
    return pair


class _Users:
    """Lets in one user by password, and any certificate: which one is the secure channel's business."""

    def get_user(
        self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        known = (username, password) == ("recorder", "secret") or (
            username is None and certificate is not None
        )
        return User(role=UserRole.User, name="recorder") if known else None


class RobotServer:
    """A server that tests script: it runs in a thread, and every call returns when it is done."""

    def __init__(self, *, pair: Pair | None = None) -> None:
        self.port = free_port()
        self.endpoint = f"opc.tcp://127.0.0.1:{self.port}/robot"
        self._pair = pair
        self.begin = START
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._nodes: dict[str, Any] = {}
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.do(self._tidy())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def start(self) -> None:
        self.do(self._start())

    def stop(self) -> None:
        if self._server is not None:
            self.do(self._server.stop())
        self._server = None

    def write(
        self, path: str, value: Any, second: float, *, status: int = ua.StatusCodes.Good, stamped: bool = True
    ) -> None:
        """A value at ``second`` of this recording, as its source stamps it."""
        stamp = self.begin + dt.timedelta(seconds=second) if stamped else None
        data = ua.DataValue(ua.Variant(value), ua.StatusCode(status), SourceTimestamp=stamp)
        self.do(self._nodes[path].write_value(data))

    def is_watched(self) -> bool:
        """Whether a client watches all variables that a profile names."""
        service = self._server.iserver.subscription_service if self._server else None
        found = service.subscriptions.values() if service else ()
        return any(len(one.monitored_item_srv._monitored_items) >= 8 for one in found)

    def node_id(self, path: str) -> str:
        return str(self._nodes[path].nodeid.to_string())

    async def _tidy(self) -> None:
        """Ends what the library leaves running when a client went away without a word."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _start(self) -> None:
        server = Server(user_manager=_Users())
        await server.init()
        server.set_endpoint(self.endpoint)
        await server.set_application_uri(f"{URI}:server")
        if self._pair is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            server.set_identity_tokens([ua.UserNameIdentityToken, ua.X509IdentityToken])
            await server.load_certificate(self._pair.certificate)
            await server.load_private_key(self._pair.key)
        space = await server.register_namespace("http://iriai.test/robot")
        for path in (*POSITIONS, STOP, MODE, RADIAN, BARE):
            await self._add(server, space, path)
        await server.start()
        self._server = server

    async def _add(self, server: Server, space: int, path: str) -> None:
        node = server.nodes.objects
        *folders, name = ("Robot", *path.split("/"))
        for folder in folders:
            try:
                node = await node.get_child(f"{space}:{folder}")
            except ua.UaStatusCodeError:
                node = await node.add_object(space, folder)
        first: Any = False if path == STOP else 3 if path == MODE else 0.0
        variable = await node.add_variable(space, name, first)
        old = START - dt.timedelta(days=7)
        await variable.write_value(ua.DataValue(ua.Variant(first), SourceTimestamp=old))
        if path in UNITS:
            said = ua.EUInformation()
            said.NamespaceUri = "http://www.opcfoundation.org/UA/units/un/cefact"
            said.UnitId = unit_id(UNITS[path])
            said.DisplayName = ua.LocalizedText(UNITS[path])
            await variable.add_property(0, "EngineeringUnits", said)
        self._nodes[path] = variable
