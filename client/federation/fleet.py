# SPDX-License-Identifier: Apache-2.0
"""The node's one connection: receives requests, pulls what may be pulled, pushes replies.

One per process, in its main thread.

`run_fleet` returns when it is told to stop; it raises `KeyUnknownError` when the broker does not know the
fleet key, and
`UnreachableError` when the first connection fails for good (certificate). A broker that is away is waited
for.

- Before the header is verified, one object of at most `FLEET_INLINE_BYTES` and its frame is pulled; before
  `Handler.decide`, nothing
  else. Every object is checked against its id, and the tree against the size that the header names.
- Flower answers 401 with SIGINT to its own process: here SIGINT means exactly that. The parent process keeps
  the worker away from
  the terminal's own.
- Nothing that a request or a handler does ends the loop; what cannot be answered with a signed header is
  answered with a code.
"""

from __future__ import annotations

import logging
import math
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
from client.federation.errors import (
    DeadlinePassedError,
    FleetError,
    KeyUnknownError,
    RequestInvalidError,
    TooLargeError,
    UnreachableError,
)
from client.federation.handlers import code_of, read_run
from policies.errors import IriaiError
from policies.frames import (
    array_frame,
    array_record_frame,
    chunk_frames,
    chunk_order,
    fits_inline,
    object_id,
    record_dict_frame,
    split,
    unframe,
)
from policies.limits import FLEET_CHUNK_BYTES, FLEET_TREE_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from client.federation.handlers import Admission, Answer, Desk, RunConfig
    from policies.exchange import TensorSpec

__all__ = ["run_fleet"]

_LOG: Final = logging.getLogger("iriai.node")
_EMPTY_S: Final = 0.5  # a poll that comes back empty sooner than this was not held
_FRAME_BYTES: Final = 1024

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
        UnreachableError: The first connection failed for good.
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
            remedy="wait for approval, or enrol again",
        ) from None
    except SystemExit:
        raise UnreachableError(
            need=f"a connection to {address}",
            found="none",
            remedy="check network, clock and certificate",
        ) from None


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
        """Until `_Stop`."""
        pause = threading.Event()
        while True:
            asked_s = time.monotonic()
            got = self._net.receive()
            if got is None:
                if time.monotonic() - asked_s < _EMPTY_S:
                    pause.wait(_EMPTY_S)
                continue
            message, tree = got
            try:
                self._one(message.metadata, tree)
            except names.RunNotRunningException:  # a BaseException of Flower's
                self._runs.pop(message.metadata.run_id, None)
                self._event("run-over", {})
            except Exception as error:  # noqa: BLE001  the worker's top loop
                _LOG.warning("a request was lost: %s", type(error).__name__)
                self._event("lost", {"kind": type(error).__name__})

    def _one(self, metadata: names.Metadata, tree: names.ObjectTree) -> None:
        try:
            config, admission = self._admitted(metadata.run_id)
            answer = self._answer(metadata, tree, config, admission)
        except DeadlinePassedError:
            self._event("late", {})
            return
        except IriaiError as error:
            code = code_of(error)
            self._event("refused", {"code": code})
            self._refuse(metadata, code)
            return
        size = self._push(metadata, answer)
        round_, attempt = _slot(metadata.group_id)
        facts: dict[str, str | int] = {
            "run": config.run,
            "round": round_,
            "attempt": attempt,
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

    def _answer(
        self, metadata: names.Metadata, tree: names.ObjectTree, config: RunConfig, admission: Admission
    ) -> Answer:
        config_id, array_id, chunk_ids = _shape(tree)
        try:
            header, blob = names.open_config(self._pull(metadata.run_id, config_id))
        except ValueError as error:
            raise _invalid("a record of header and small tensor") from error

        def pull(spec: TensorSpec) -> bytes:
            if blob is not None:
                return blob
            return self._tensor(metadata.run_id, spec, array_id, chunk_ids)

        return self._desk.answer(
            config,
            admission,
            header,
            kind=metadata.message_type,
            slot=_slot(metadata.group_id),
            pull=pull,
            confirm=lambda: self._net.confirm(metadata.run_id, metadata.message_id),
        )

    def _tensor(
        self, run_id: int, spec: TensorSpec, array_id: str | None, chunk_ids: frozenset[str]
    ) -> bytes:
        """Pulls chunk by chunk into one buffer of the size that the header names."""
        if array_id is None:
            raise _invalid("a tensor")
        order = chunk_order(self._pull(run_id, array_id))
        if len(order) != math.ceil(spec.size_bytes / FLEET_CHUNK_BYTES) or not chunk_ids.issuperset(order):
            raise _invalid("as many chunks as the tensor has")
        data = bytearray(spec.size_bytes)
        at = 0
        for name in order:
            chunk = self._pull(run_id, name)
            body = memoryview(chunk)[unframe(chunk).offset :]
            if at + len(body) > len(data):
                raise TooLargeError(
                    need=f"{len(data)} bytes", found="more", remedy="compare the recipe's tensor manifest"
                )
            data[at : at + len(body)] = body
            at += len(body)
        return bytes(data[:at])

    def _pull(self, run_id: int, name: str) -> bytes:
        data = self._net.pull_object(run_id, name)
        if len(data) > FLEET_CHUNK_BYTES + _FRAME_BYTES or object_id(data) != name:
            raise _invalid("the object that the tree names")
        return data

    def _push(self, metadata: names.Metadata, answer: Answer) -> int:
        """Sends a reply; returns the bytes of header and tensor."""
        size = len(answer.tensor or b"")
        inline = answer.tensor is None or fits_inline(answer.header, size)
        objects: dict[str, bytes] = {}
        config = _add(objects, names.config_object(answer.header, answer.tensor if inline else None))
        leaves = [_tree(config)]
        record_id = None
        if answer.tensor is not None and not inline:
            tensor = self._array(objects, memoryview(answer.tensor))
            record_id = tensor.object_id
            leaves.append(tensor)
        records = _add(objects, record_dict_frame(config, record_id))
        own = names.reply_metadata(metadata)
        root = _add(objects, names.message_object(own, records))
        tree = _tree(root, _tree(records, *leaves))
        needed, session = self._net.send(names.empty_message(own, root), tree, 0.0)
        for name, data in objects.items():
            if name in needed:
                self._net.push_object(metadata.run_id, session, name, data)
        return len(answer.header) + size

    @staticmethod
    def _array(objects: dict[str, bytes], data: memoryview) -> names.ObjectTree:
        chunk_ids = [_add(objects, chunk) for chunk in chunk_frames(split(data))]
        array = _add(objects, array_frame("float32", (len(data) // 4,), chunk_ids))
        record = _add(objects, array_record_frame(array))
        return _tree(record, _tree(array, *(_tree(name) for name in dict.fromkeys(chunk_ids))))

    def _refuse(self, metadata: names.Metadata, code: str) -> None:
        """A code where no signed header can be made."""
        own = names.reply_metadata(metadata)
        message, data = names.error_message(own, code)
        own.__dict__["_message_id"] = object_id(data)
        self._net.send(message, _tree(object_id(data)), 0.0)


def _shape(tree: names.ObjectTree) -> tuple[str, str | None, frozenset[str]]:
    """Ids of ConfigRecord, Array and chunks in the tree of a request."""
    records = [record for branch in tree.children for record in branch.children]
    configs = [record.object_id for record in records if not record.children]
    arrays = [array for record in records for array in record.children]
    if len(configs) != 1 or len(arrays) > 1 or len(records) > FLEET_TREE_OBJECTS:
        raise _invalid("one record and at most one tensor")
    chunks = frozenset(chunk.object_id for array in arrays for chunk in array.children)
    return configs[0], arrays[0].object_id if arrays else None, chunks


def _slot(group: str) -> tuple[int, int]:
    round_, _, attempt = group.partition(".")
    if not (round_.isdigit() and attempt.isdigit() and len(group) <= 20):  # noqa: PLR2004  two numbers
        raise _invalid("a group of round and attempt")
    return int(round_), int(attempt)


def _add(objects: dict[str, bytes], data: bytes) -> str:
    name = object_id(data)
    objects[name] = data
    return name


def _tree(name: str, *children: names.ObjectTree) -> names.ObjectTree:
    return names.ObjectTree(object_id=name, children=children)


def _invalid(need: str) -> FleetError:
    return RequestInvalidError(need=need, found="something else", remedy="update node or broker")
