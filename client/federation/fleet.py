# SPDX-License-Identifier: Apache-2.0
"""The node's one connection: receives requests, pulls what may be pulled, pushes replies.

One per process, in its main thread.

`run_fleet` returns when it is told to stop, and only then; it raises `KeyUnknownError` when the broker does
not know the fleet key, and `UnreachableError` when the first connection fails for good (certificate). A
broker that is away is waited for.

- A pull that fails otherwise (a status that Flower does not try again, a certificate) is lost, and tried
  again after growing pauses, or when the broker says (``Retry-After``). After `_PULLS` of them in a row the
  process ends with `UnreachableError`: another one begins with a new connection and reads its files anew.
- Flower's connection swallows every exception that leaves its block: what ends there without `_Stop` counts
  as lost.

- Before the header is verified, at most `FLEET_INLINE_BYTES` and a frame have come; before `Handler.decide`,
  nothing else is pulled (`client.federation.transfer`).
- Flower answers 401 with SIGINT to its own process: here SIGINT means exactly that. The parent process keeps
  the worker away from
  the terminal's own.
- Nothing that a request or a handler does ends the loop; what cannot be answered with a signed header is
  answered with a code.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization

from client.federation import names
from client.federation.errors import DeadlinePassedError, KeyUnknownError, UnreachableError
from client.federation.handlers import code_of, read_run
from client.federation.transfer import Incoming, LateConfirmation, invalid, push
from policies.errors import IriaiError
from policies.frames import object_id
from policies.limits import WORKER_BACKOFF_CAP_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from client.federation.handlers import Admission, Desk, RunConfig

__all__ = ["run_fleet"]

_LOG: Final = logging.getLogger("iriai.node")
_EMPTY_S: Final = 0.5  # a poll that comes back empty sooner than this was not held
_AGAIN_S: Final = 1.0  # after the first pull that failed; then twice as long each time
_PULLS: Final = 10  # that failed in a row: about six minutes

Event = Callable[[str, Mapping[str, str | int]], None]


class _Stop(BaseException):
    """Raised by SIGTERM wherever the loop is."""


class _Unauthorised(BaseException):
    """Raised by the SIGINT that Flower's client sends itself on 401."""


def run_fleet(
    *,
    url: str,
    ca_pem: bytes,
    fleet_key_pem: bytes,
    desk: Desk,
    state_dir: Path,
    on_event: Event | None = None,
) -> None:
    """Answers requests until SIGTERM; call it in the main thread of a process that does nothing else.

    Args:
        url: Of the broker, ``https://host:port``.
        ca_pem: The certificates that may vouch for it; no others.
        fleet_key_pem: P-256 private key, PKCS #8 PEM.
        desk: What answers.
        state_dir: Folder of the node's federation state.
        on_event: Called as ``(name, facts)`` for ``online``, ``answered`` (run, round, attempt, type,
            status, code, bytes),
            ``refused`` (code), ``late``, ``run-over`` and ``lost``; facts name no text of an exception.

    Raises:
        KeyUnknownError: 401: the key is not enrolled, or was revoked.
        UnreachableError: The first connection failed for good, or a later one did.
        FlowerVersionError: flwr is another one.
        EngineEnvironmentError: flwr was loaded with other settings.
    """
    os.environ["FLWR_HOME"] = str(state_dir / "flwr")
    names.probe()
    key = serialization.load_pem_private_key(fleet_key_pem, password=None)
    address = urlsplit(url).netloc
    event = on_event or (lambda _name, _facts: None)
    try:
        with _signals(), names.connect(address, ca_pem, key) as connection:
            event("online", {"node": desk.node})
            _Loop(connection, desk, event).run()
    except _Stop:
        return
    except _Unauthorised:
        raise KeyUnknownError(
            need="a fleet key that the broker knows",
            found="401",
            remedy="ask two operators of the broker to approve this node; enrol again if it was revoked",
        ) from None
    except SystemExit:
        raise _unreachable(address, "none") from None
    raise _unreachable(address, "one that ended by itself")


def _unreachable(address: str, found: str) -> UnreachableError:
    return UnreachableError(
        need=f"a connection to {address}", found=found, remedy="check network, clock and certificate"
    )


@contextmanager
def _signals() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Stop

    def unauthorised(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise _Unauthorised

    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, unauthorised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


class _Loop:
    """Receives, answers, sends; one request at a time."""

    def __init__(self, connection: names.Connection, desk: Desk, event: Event) -> None:
        self._net = connection
        self._desk = desk
        self._event = event
        self._runs: dict[int, tuple[RunConfig, Admission]] = {}

    def run(self) -> None:
        """Until `_Stop`; returns only when `_PULLS` pulls failed in a row."""
        pause, failed = threading.Event(), 0
        while failed < _PULLS:
            asked_s = time.monotonic()
            try:
                delivery = self._received()
            except (Exception, names.RunNotRunningException) as error:  # noqa: BLE001  nothing ends the loop
                self._lost(error)
                pause.wait(_pause_s(error, failed))
                failed += 1
                continue
            failed = 0
            if delivery is None:
                if time.monotonic() - asked_s < _EMPTY_S:
                    pause.wait(_EMPTY_S)
                continue
            try:
                self._one(delivery)
            except names.RunNotRunningException:  # a BaseException of Flower's
                self._runs.pop(delivery.metadata.run_id, None)
                self._event("run-over", {})
            except Exception as error:  # noqa: BLE001  the worker's top loop
                self._lost(error)

    def _received(self) -> names.Delivery | None:
        try:
            return self._net.receive()
        except IriaiError as error:  # a content that is not ours; the broker sends it again, once
            self._lost(error)
            return None

    def _lost(self, error: BaseException) -> None:
        _LOG.warning("a request was lost: %s", type(error).__name__)
        self._event("lost", {"kind": type(error).__name__})

    def _one(self, delivery: names.Delivery) -> None:
        metadata = delivery.metadata
        confirmation = LateConfirmation(self._net, metadata)
        try:
            config, admission = self._admitted(metadata.run_id)
            incoming = Incoming.of(self._net, delivery)
            slot = _slot(metadata.group_id)
            answer = self._desk.answer(
                config,
                admission,
                incoming.header,
                kind=metadata.message_type,
                slot=slot,
                pull=incoming.tensor,
                confirm=confirmation.expect,
            )
            size = push(self._net, metadata, answer, inline=delivery.content is not None)
        except DeadlinePassedError:
            self._event("late", {})
            return
        except IriaiError as error:
            code = code_of(error)
            self._event("refused", {"code": code})
            self._refuse(metadata, code)
            return
        finally:
            confirmation.done()
        facts: dict[str, str | int] = {
            "run": config.run,
            "round": slot[0],
            "attempt": slot[1],
            "type": metadata.message_type,
            "status": answer.status,
            "code": answer.code or "",
            "bytes": size,
            "repeated": int(answer.repeated),
        }
        self._event("answered", facts)

    def _admitted(self, run_id: int) -> tuple[RunConfig, Admission]:
        known = self._runs.get(run_id)
        if known is None:
            run = self._net.get_run(run_id)
            config = read_run(fab_hash=run.fab_hash, fab_id=run.fab_id, config=dict(run.override_config))
            known = self._runs[run_id] = config, self._desk.admit(config)
        return known

    def _refuse(self, metadata: names.Metadata, code: str) -> None:
        """A code where no signed header can be made."""
        own = names.reply_metadata(metadata)
        message, data = names.error_message(own, code)
        own.__dict__["_message_id"] = object_id(data)
        self._net.send(message, names.ObjectTree(object_id=object_id(data)), 0.0)


def _pause_s(error: BaseException, failed: int) -> float:
    """How long to wait after a pull that failed: as the broker says, else longer each time."""
    response = getattr(error, "response", None)
    said: str = "" if response is None else response.headers.get("retry-after", "")
    wanted = float(said) if said.isascii() and said.isdigit() else 0.0
    pause_s: float = max(wanted, _AGAIN_S * 2.0**failed)
    return min(pause_s, WORKER_BACKOFF_CAP_S)


def _slot(group: str) -> tuple[int, int]:
    round_, _, attempt = group.partition(".")
    if not (round_.isdigit() and attempt.isdigit() and len(group) <= 20):  # noqa: PLR2004  two numbers
        raise invalid("a group of round and attempt")
    return int(round_), int(attempt)
