# SPDX-License-Identifier: Apache-2.0
"""How fast the contribution log takes entries, proves them and is audited; all on this machine's disk.

========================  ==================================================================================
sqlite_batch_per_s        entries per second when 256 units of work wait at a time, each in its own savepoint
postgres_batch_per_s      the same on PostgreSQL; null without a server, and ``postgres_reason`` says why
single_per_s              one caller that waits for each receipt: one batch, three flushes to disk for each
concurrent_per_s          64 callers, each waiting for its own receipt
proof_ms                  an inclusion proof in a log of 10^5 and of 10^6 entries, made and verified
verify_entries_per_s      ``iriai-verify verify`` with all rules, start included, over 10^5 entries
bytes_per_entry           size of that bundle
========================  ==================================================================================

- Every unit takes the broker's whole path: identity of the event, schema, salts, savepoint, both databases,
  tiles, reading back and hashing again, signature, signer's memory, receipt.
- Without ``--database-url``, a server is started in a scratch folder, with its default durability, if its
  programs are here.
- The bundle holds events that the broker makes by itself (operators' actions, incidents) in turn; one with
  members' envelopes is slower by one signature check for each.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.log import Writer, export
from broker.log.tree import GrowingTree
from broker.store import Store
from broker.store.migrations import migrate
from broker.store.postgres import writing_engine
from broker.store.roles import prepare
from policies.identity import SigningKey
from policies.log.entries import EntryType, Event
from policies.log.merkle import verify_inclusion
from policies.log.policy import Policy, policy_text
from policies.log.vkeys import VerifierKey
from sandbox.errors import SandboxError
from sandbox.postgres import server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from broker.log import LogTx
    from policies.log.proofs import Receipt

__all__ = ["lines", "run", "typed"]

ORIGIN: Final = "bench.example/log/a"
BATCH: Final = 256
CALLERS: Final = 64
_PROOFS: Final = 2_000
_STRIDE: Final = 7_919  # a prime: proofs all over the tree
_KEY: Final = SigningKey.from_seed(b"L" * 32)
_BROKER: Final = SigningKey.from_seed(b"B" * 32)


def run(
    *,
    batches: int = 40,
    singles: int = 200,
    entries: int = 100_000,
    large: int = 1_000_000,
    urls: tuple[str, str] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """All figures of the module.

    Args:
        batches: Waves of 256 units.
        singles: Units of the caller that waits.
        entries: Of the bundle that is verified, and of the smaller tree.
        large: Leaves of the larger tree.
        urls: Main and private database of PostgreSQL, migrated and empty; started here without them.
        told: Hears what is measured next.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="iriai-bench-") as scratch:
        folder = Path(scratch)
        told("SQLite")
        with _opened(folder / "s", None) as (store, writer):
            found["sqlite_batch_per_s"] = _batched(writer, batches)
            del store
        told("PostgreSQL")
        found["postgres_batch_per_s"] = None
        try:
            with ExitStack() as held:
                pair = urls or held.enter_context(_server())
                _, writer = held.enter_context(_opened(folder / "q", pair))
                found["postgres_batch_per_s"] = _batched(writer, batches)
        except FileNotFoundError as error:
            found["postgres_reason"] = str(error)
        told("callers")
        with _opened(folder / "c", None) as (_, writer):
            found["single_per_s"] = _alone(writer, singles)
            found["concurrent_per_s"] = _together(writer, CALLERS * max(1, batches * 4 // 10) * 10)
        told("proofs")
        found["proof_ms"] = {str(size): _proof_ms(size) for size in (entries, large)}
        told(f"a bundle of {entries} entries")
        found |= _verified(folder / "v", entries)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The figures for people."""
    rates = [f"{name:<22} {_shown(value)}" for name, value in found.items() if name != "proof_ms"]
    return [*rates, *(f"proof at {size:<13} {value:.4f} ms" for size, value in found["proof_ms"].items())]


def _shown(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _genesis(policy: str) -> list[Event]:
    vkey = VerifierKey(ORIGIN, _KEY.public).text()
    roles = (("log", _KEY, vkey), ("broker", _BROKER, None))
    named = {"software": "0.1.0", "policy": _digest(policy), "predecessor": None}
    return [
        Event(type=EntryType.LOG_GENESIS, pub=named),
        *(
            Event(
                type=EntryType.KEY_ADDED,
                pub={
                    "role": role,
                    "alg": "ed25519",
                    "kid": f"sha256:{hashlib.sha256(key.public).hexdigest()}",
                    "vkey": shown,
                },
                private={"key": f"ed25519:{key.public.hex()}"},
            )
            for role, key, shown in roles
        ),
    ]


def _action(number: int, action: str = "bench.action") -> Event:
    pub = {
        "operator": "op",
        "action": action,
        "subject": _digest(f"subject {number}"),
        "result": "done",
        "request": _digest(f"request {number}"),
    }
    return Event(type=EntryType.CONSOLE_ACTION, pub=pub)


def _adding(events: Sequence[Event]) -> Callable[[Any, LogTx], list[int]]:
    return lambda _session, log: [log.add(event) for event in events]


def _unit(number: int) -> Callable[[Any, LogTx], int]:
    event = _action(number)
    return lambda _session, log: log.add(event)


@contextmanager
def _opened(folder: Path, urls: tuple[str, str] | None) -> Iterator[tuple[Store, Writer]]:
    folder.mkdir()
    main, private = urls or (folder / "broker.db", folder / "private.db")
    store = Store.open(main, private, folder / "signer.db")
    writer = Writer.open(store, origin=ORIGIN, key=_KEY, clock=SystemClock(), entropy=SystemEntropy())
    try:
        writer.submit(_adding(_genesis(_policy()))).result()
        yield store, writer
    finally:
        writer.close()
        store.close()


def _policy() -> str:
    return policy_text(Policy(logs=(VerifierKey(ORIGIN, _KEY.public),), broker=_BROKER.public))


def _batched(writer: Writer, batches: int) -> float:
    """Waves of `BATCH` units that wait together; the next wave is queued while one is written."""
    waves = [[_unit(wave * BATCH + number) for number in range(BATCH)] for wave in range(batches)]
    before: list[Future[tuple[int, tuple[Receipt, ...]]]] = []
    start = time.perf_counter()
    for wave in waves:
        sent = [writer.submit(unit) for unit in wave]
        for future in before:
            future.result()
        before = sent
    for future in before:
        future.result()
    return batches * BATCH / (time.perf_counter() - start)


def _alone(writer: Writer, singles: int) -> float:
    units = [_unit(10_000_000 + number) for number in range(singles)]
    start = time.perf_counter()
    for unit in units:
        writer.submit(unit).result()
    return singles / (time.perf_counter() - start)


def _together(writer: Writer, count: int) -> float:
    units = [_unit(20_000_000 + number) for number in range(count)]

    def call(first: int) -> None:
        for unit in units[first::CALLERS]:
            writer.submit(unit).result()

    callers = [threading.Thread(target=call, args=(first,)) for first in range(CALLERS)]
    start = time.perf_counter()
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return count / (time.perf_counter() - start)


def _proof_ms(size: int) -> float:
    tree = GrowingTree()
    tree.extend(hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(size))
    root, asked = tree.root(), [number * _STRIDE % size for number in range(_PROOFS)]
    start = time.perf_counter()
    for index in asked:
        verify_inclusion(tree.leaf(index), index, size, tree.inclusion(index), root)
    return (time.perf_counter() - start) / _PROOFS * 1000


def typed(number: int, index: int, *, last: bool) -> Event:
    """What a broker writes by itself, in turn; nothing that stays open is begun last."""
    if last:
        return _action(number)
    incident = {"kind": "bench", "evidence": _digest(f"evidence {number // 4}")}
    kinds: list[Callable[[], Event]] = [
        lambda: Event(type=EntryType.INCIDENT_DECLARED, pub=incident),
        lambda: _action(number, "incident.close"),
        lambda: Event(type=EntryType.INCIDENT_CLOSED, pub=incident, refs=(index - 2,)),
        lambda: _action(number),
    ]
    return kinds[number % len(kinds)]()


def _verified(folder: Path, entries: int) -> dict[str, float]:
    with _opened(folder, None) as (store, writer):
        size = writer.head().size
        whole = (entries - size) // 4 * 4
        for first in range(size, entries, 4 * BATCH):
            wave = range(first, min(first + 4 * BATCH, entries))
            events = [typed(index - size, index, last=index - size >= whole) for index in wave]
            writer.submit(_adding(events)).result()
        path = folder / "bundle.zip"
        export(store, writer, path, policy=_policy(), software="0.1.0")
    policy = folder / "policy.txt"
    policy.write_text(_policy())
    line = [sys.executable, "-m", "policies.verify", "verify", str(path), "--policy", str(policy), "--json"]
    start = time.perf_counter()
    done = subprocess.run(line, check=False, capture_output=True, text=True)  # noqa: S603  our own arguments
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SandboxError(
            need="a bundle that verifies", found=done.stdout[:400] or done.stderr[:400], remedy="report this"
        )
    return {"verify_entries_per_s": entries / seconds, "bytes_per_entry": path.stat().st_size / entries}


@contextmanager
def _server() -> Iterator[tuple[str, str]]:
    """A server of our own, and its two databases, migrated.

    Raises:
        FileNotFoundError: Its programs are not here, or nobody may run them.
    """
    with server() as databases:
        prepare(databases.owner, broker=databases.main, auditor="reader")
        engine = writing_engine(databases.private)
        migrate(engine, "private")
        engine.dispose()
        yield databases.main, databases.private
