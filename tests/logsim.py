# SPDX-License-Identifier: Apache-2.0
"""A broker's log with members that sign, on a clock moved by hand and seeded bytes; shared by several folders of tests."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from broker.log import Writer
from broker.log.failpoints import nobody
from broker.store import Store
from policies.identity import SigningKey
from policies.log.checkpoint import VerifierKey
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import ChainState, Seen, open_envelope, seal_envelope
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from broker.log.failpoints import Reached
    from policies.signing import Envelope

ORIGIN = "pool.example/log/test"
START_MS = 1_790_000_000_000


class SimClock:
    """`policies.ports.Clock` that stands still until a test moves it."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


class SimEntropy:
    """`policies.ports.Entropy` from a seed: the same bytes in every process."""

    def __init__(self, seed: bytes = b"test") -> None:
        self.seed = seed
        self.drawn = 0

    def token_bytes(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += hashlib.sha256(self.seed + self.drawn.to_bytes(8, "big")).digest()
            self.drawn += 1
        return out[:size]


def digest_from(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass
class MemberSim:
    """A node that signs envelopes of one chain."""

    name: str
    seen: Seen
    state: ChainState = field(init=False)

    def __post_init__(self) -> None:
        seed = hashlib.sha256(self.name.encode()).digest()
        self.key = SigningKey.from_seed(seed)
        self.alias_key = hashlib.sha256(b"alias" + seed).digest()
        self.state = ChainState(chain=seed[:8].hex())

    def seal(self, kind: EntryType, body: dict[str, object], *, rnd: int = 1, **changes: object) -> Envelope:
        fields: dict[str, object] = {
            "log": ORIGIN,
            "kind": kind,
            "chain": self.state.chain,
            "seq": self.state.next_seq,
            "prev": self.state.prev,
            "seen": self.seen,
            "time_ms": START_MS,
            "nonce": hashlib.sha256(f"{self.name}/{self.state.next_seq}".encode()).digest()[:16],
            "scope": digest_from("contract"),
            "run": "run_aaaaaaaaaaaaaaaa",
            "round": rnd,
            "ack": None,
            "body": body,
        }
        return seal_envelope(self.key, **(fields | changes))  # type: ignore[arg-type]

    def event(self, envelope: Envelope) -> Event:
        payload = open_envelope(envelope, self.key.public)
        actor = alias(self.alias_key, payload["scope"], payload["run"], payload["round"])
        return from_envelope(envelope, payload, actor=actor)

    def submission(self, *, rnd: int = 1, **changes: object) -> Event:
        """The next ``submission.received`` of the chain; `advance` when it is in the log."""
        body = {"update": digest_from(f"{self.name}{rnd}"), "plan": None, "steps": 1, "attempt": 1}
        return self.event(self.seal(EntryType.SUBMISSION_RECEIVED, body, rnd=rnd, **changes))

    def advance(self, event: Event) -> None:
        assert event.envelope is not None
        self.state = self.state.accept(open_envelope(event.envelope, self.key.public))


def genesis() -> Event:
    return Event(
        type=EntryType.LOG_GENESIS,
        pub={"software": "0.1.0", "policy": digest_from("policy"), "predecessor": None},
    )


def console(number: int, **changes: object) -> Event:
    """A small broker event; another number gives another id."""
    pub: dict[str, object] = {
        "operator": "op",
        "action": "test",
        "subject": None,
        "result": "done",
        "request": digest_from(f"request {number}"),
    }
    return Event(type=EntryType.CONSOLE_ACTION, pub=pub | changes)


@functools.cache
def _empty() -> tuple[Path, Path, Path]:
    """Migrated databases without rows, made once in a process: the migration takes longer than most tests."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-logsim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths = folder / "broker.db", folder / "private.db", folder / "signer.db"
    Store.open(*paths).close()
    return paths


def store_of(folder: Path, database: str) -> Store:
    """An empty store in a folder, on a database of the fixture ``database``."""
    urls, files = log_urls(database), [folder / one.name for one in _empty()]
    for path, empty, url in zip(files, _empty(), (*urls.values(), *[None] * (3 - len(urls))), strict=True):
        if url is None:
            shutil.copy(empty, path)
    return Store.open(urls.get("main", files[0]), urls.get("private", files[1]), files[2])


@dataclass
class LogSim:
    """A broker's log in a folder, closed and opened again as a test likes."""

    folder: Path
    clock: SimClock = field(default_factory=SimClock)
    entropy: SimEntropy = field(default_factory=SimEntropy)
    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(b"L" * 32))
    threaded: bool = False
    writer: Writer | None = None
    main: str | None = None  # URL of a database of PostgreSQL; a file without it
    private: str | None = None

    def paths(self) -> tuple[Path, Path, Path]:
        return self.folder / "broker.db", self.folder / "private.db", self.folder / "signer.db"

    def open(self, *, reached: Reached = nobody) -> Writer:
        urls = (self.main, self.private, None)
        for path, empty, url in zip(self.paths(), _empty(), urls, strict=True):
            if url is None and not path.exists():
                shutil.copy(empty, path)
        main, private, signer = self.paths()
        self.store = Store.open(self.main or main, self.private or private, signer)
        self.writer = Writer.open(
            self.store,
            origin=ORIGIN,
            key=self.key,
            clock=self.clock,
            entropy=self.entropy,
            threaded=self.threaded,
            reached=reached,
        )
        return self.writer

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.store.close()
            self.writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, *, entries: int = 1) -> Writer:
        """Open, with a genesis and ``entries`` - 1 further entries."""
        writer = self.open()
        self.add(genesis(), *(console(number) for number in range(1, entries)))
        return writer

    def add(self, *events: Event) -> list[int]:
        indices, _ = self.writer.submit(lambda _session, log: [log.add(event) for event in events]).result()
        return indices

    def member(self, name: str) -> MemberSim:
        head = self.writer.head()
        return MemberSim(name, Seen(head.size, head.root))

    @property
    def vkey(self) -> VerifierKey:
        return VerifierKey(ORIGIN, self.key.public)


def rotate_log_key(folder: Path) -> dict[str, Any]:
    """A new key for the log of a broker's folder, as alice and bob approve it; what the command says."""
    from broker.commands import log as log_commands
    from broker.log.approvals import approve
    from tests.brokersim import operator_key

    asked = log_commands.log_rotate_key(folder)
    approvals = []
    for name in ("alice", "bob"):
        approvals.append(folder.parent / f"{name}.rotation")
        approvals[-1].write_bytes(approve(operator_key(name), (asked.plain_output or "").encode("ascii")))
    return log_commands.log_rotate_key(folder, approvals).data
