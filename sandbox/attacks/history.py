# SPDX-License-Identifier: Apache-2.0
"""A broker that changes its log behind everybody's back, or signs two histories with its own key.

Both attackers are the broker's operator, with all its files and keys: no password is guessed, no file stolen.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.boot import load_log_keys
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.log import Writer
from broker.membership.directory import Operator
from broker.membership.records import console_action
from broker.settings import Settings
from broker.store import Store
from policies.encoding import digest
from policies.log.bundle import manifest_of, pack, unpack
from policies.log.merkle import leaf_hash
from sandbox.attacks import auditor
from sandbox.attacks.attack import Attack, Finding, control, defence
from sandbox.attacks.ground import note_of, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.attacks.ground import Ground

__all__ = ["FORK", "REWRITE"]

_DATABASES: Final = ("signer.db", "private.db", "broker.db")
_GUEST: Final = {"legal_name": "Guest Robotics AB", "country": "SE", "group": "guest"}
_TRUE, _FALSE = b'"operator":"alice"', b'"operator":"clara"'


def _rewrite(ground: Ground) -> Iterator[Finding]:
    federation, alice = ground.federation, ground.operator_key(0)
    ground.honest()
    asked = ground.wire.ask(alice, "POST", "/operator/invites", _GUEST)
    yield control("before, the log takes what an operator does", held=asked.accepted, found=asked.words)
    policy, true = ground.policy(), ground.bundle("rewrite-before")
    honest = auditor.verify(true, policy)
    yield control("and a bundle of it is complete", held=honest.exit_code == 0, found=honest.words)
    federation.services["broker"].stop()
    lie = _edit(federation.broker_dir / "broker.db", below=size_of(note_of(true)))
    federation.serve()
    asked = ground.wire.ask(alice, "POST", "/operator/invites", _GUEST)
    yield defence(
        f"started over entry {lie.index} with another name in it, the broker takes nothing more",
        by="the broker's own start, which hashes every entry again and compares with what was signed",
        code=asked.code,
        wanted=("log.frozen", "log.rolled-back"),
        found=asked.words,
    )
    status = ground.log_status()
    found = f"{status['state']}: {status['reason']}"
    yield Finding(what="the log is frozen", held=status["state"] == "frozen", found=found)
    false = true.with_name("rewrite-after.zip")
    false.write_bytes(_with_the_lie(true, lie))
    judged = auditor.verify(false, policy)
    yield defence(
        "a bundle with the changed row, every digest around it made to fit, is refused",
        by=auditor.BY,
        code=judged.rule,
        wanted=("AUD-020",),
        found=judged.words,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lie:
    """One entry of the log, as it was and as it is made to be; both are equally long."""

    index: int
    old: bytes
    new: bytes


def _edit(path: Path, *, below: int) -> _Lie:
    """Puts another name into the newest entry below a size, and the hash of that into its leaf."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS log_entry_no_{verb}")
        sql = "SELECT idx, body FROM log_entry WHERE idx < ? ORDER BY idx DESC"
        rows = ((idx, bytes(body)) for idx, body in connection.execute(sql, (below,)).fetchall())
        index, old = next((idx, body) for idx, body in rows if _TRUE in body)
        lie = _Lie(index=index, old=old, new=old.replace(_TRUE, _FALSE))
        sql = "UPDATE log_entry SET body = ?, leaf_hash = ? WHERE idx = ?"
        connection.execute(sql, (lie.new, leaf_hash(lie.new), index))
    return lie


def _with_the_lie(true: Path, lie: _Lie) -> bytes:
    """The bundle with the changed entry: its hash and what guards the transfer are made to fit."""
    hashes = leaf_hash(lie.old), leaf_hash(lie.new)
    files = {
        name: data.replace(lie.old, lie.new).replace(*hashes) if name.startswith("tile/") else data
        for name, data in unpack(true.read_bytes()).items()
    }
    return pack(files | {"MANIFEST": manifest_of(files)})


def _fork(ground: Ground) -> Iterator[Finding]:
    """The operator's second copy goes on by itself: the same key signs another entry at the same place."""
    folder = ground.folder / "fork"
    copied = _copied(ground, folder)
    asked = ground.wire.ask(ground.operator_key(0), "POST", "/operator/invites", _GUEST)
    yield control("the log that members see goes on", held=asked.accepted, found=asked.words)
    true_note, false_note = folder / "members.note", folder / "others.note"
    false_note.write_text(_goes_on(ground, copied), "utf-8")
    policy = ground.policy()
    bundle = ground.bundle("fork-bundle", "--signed")
    true_note.write_text(note_of(bundle), "utf-8")
    evidence = folder / "equivocation.proof"
    honest = auditor.compare([true_note], policy, out=evidence, bundle=bundle)
    yield control(
        "the checkpoint of one history agrees with it", held=honest.exit_code == 0, found=honest.words
    )
    found = auditor.compare([false_note], policy, out=evidence, bundle=bundle)
    yield defence(
        "the other checkpoint, under the same key, contradicts it",
        by="whoever compares two checkpoints: a member's node, a witness, " + auditor.BY,
        code=found.rule,
        wanted=("AUD-100",),
        found=found.words,
    )
    size = evidence.stat().st_size if evidence.exists() else 0
    yield Finding(what="one file is evidence", held=size > 0, found=f"{evidence.name}, {size} bytes")
    alone = auditor.compare([evidence, true_note], policy, out=folder / "again.proof")
    yield defence(
        "it convinces somebody who has nothing else but the log's key",
        by="anybody with the log's public key",
        code=alone.rule,
        wanted=("AUD-100",),
        found=alone.words,
    )


def _copied(ground: Ground, folder: Path) -> Path:
    """A copy of the broker's databases; the signer's first: it signed no more than the log has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _DATABASES:
        source, target = ground.federation.broker_dir / name, folder / name
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    return folder


def _goes_on(ground: Ground, folder: Path) -> str:
    """The note of the copy, once the log's own key has signed one more entry there."""
    settings = Settings.load(ground.federation.broker_dir)
    keys, clock = load_log_keys(settings), SystemClock()
    bob = Operator(name="bob", key=b"", active=True)
    entry = console_action(bob, "invite.create", subject=None, request=digest(b"of another history"))
    store = Store.open(*(folder / name for name in ("broker.db", "private.db", "signer.db")))
    try:
        writer = Writer.open(
            store,
            origin=settings.origin,
            key=keys[0],
            more_keys=keys[1:],
            clock=clock,
            entropy=SystemEntropy(),
            threaded=False,
        )
        writer.submit(lambda _session, log: log.add(entry)).result()
        note = str(writer.head().note)
        writer.close()
    finally:
        store.close()
    return note


REWRITE: Final = Attack(
    threat="T5",
    words="the broker changes one row of its log on its own disk",
    tried="The operator stops the broker, writes another name into one entry in the database, makes the "
    "entry's own hash fit, and starts again.",
    gain="Who did what is not what the log says; the next signature would make it true.",
    left="A database that goes back together with the signer's memory is found by a member or witness that "
    "saw more, not by the broker itself. Two operators repair a frozen log from a bundle that was kept.",
    act=_rewrite,
)
FORK: Final = Attack(
    threat="T60",
    words="the broker signs two histories and shows each to somebody else",
    tried="The operator copies the databases, lets both copies go on, and signs two different entries at the "
    "same place with the log's own key.",
    gain="Members and auditor each see a consistent log, and not the same one.",
    left="Two views that nobody ever compares stay apart; no quorum of witnesses cosigns both.",
    act=_fork,
)
