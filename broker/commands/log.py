# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker log`` does, on the broker's host: how the log is, two ways out of a freeze, a new key.

A repair, a succession and a new key are told twice: without approvals, the command checks everything, changes
nothing and prints the document that two operators sign; with both approvals it does exactly that. The broker
is stopped meanwhile. A succession that was interrupted goes on when the command is repeated.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from broker.answers import Result, plain
from broker.auth.people import find_person
from broker.boot import initialise, load_keys, load_log_keys, log_key_files, policy_file
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.errors import UsageError
from broker.federation.occupying import while_stopped
from broker.keyfiles import load_key, make_key, replace_file
from broker.log.approvals import approve, approvers
from broker.log.repair import Repair
from broker.log.rotations import log_keys
from broker.log.signer import Freeze, Signer
from broker.log.succession import Succession
from broker.membership.directory import ACTIVE, Operator
from broker.membership.records import console_action
from broker.settings import Settings
from broker.store import Store, tables
from broker.witnessing import Witnessing
from policies.encoding import canonical, digest
from policies.identity import key_id, parse_key
from policies.limits import LOG_KEY_OVERLAP_DAYS
from policies.log.entries import EntryType, Event
from policies.log.errors import LogError, ProofError
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from broker.log import LogTx, Writer
    from broker.store import Session
    from policies.identity import SigningKey

__all__ = ["log_approve", "log_repair", "log_rotate_key", "log_status", "log_succeed"]

_SUCCESSION: Final = "succession.json"
_NEEDS_PEOPLE: Final = 7
_SIDE_FILES: Final = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class _House:
    """A broker's folder with its databases open, and no writer."""

    settings: Settings
    store: Store
    keys: tuple[SigningKey, ...]
    signer: Signer

    def operators(self) -> dict[bytes, str]:
        """Names of active operators by their keys."""
        table = tables.operator
        with self.store.read() as session:
            rows = session.execute(select(table.c.name, table.c.key).where(table.c.state == ACTIVE)).all()
            people = {row.name: find_person(session, row.name) for row in rows}
        gone = {name for name, person in people.items() if person is not None and not person.active}
        return {parse_key(row.key): row.name for row in rows if row.name not in gone}

    def writer(self) -> Writer:
        """The writer of this log; close it before the house."""
        from broker.log import Writer

        return Writer.open(
            self.store,
            origin=self.settings.origin,
            key=self.keys[0],
            more_keys=self.keys[1:],
            clock=SystemClock(),
            entropy=SystemEntropy(),
            threaded=False,
        )


@contextmanager
def _opened(directory: Path) -> Iterator[_House]:
    settings = Settings.load(directory)
    keys = tuple(load_log_keys(settings))
    store = Store.open(settings.main_database, settings.private_database, settings.signer_path)
    try:
        signer = Signer(store.signer, origin=settings.origin, key=keys[0], clock=SystemClock())
        # of damaged entries only the first key
        with store.read() as session, suppress(ValueError, KeyError, TypeError, LogError):
            signer.use(log_keys(session, keys))
        yield _House(settings=settings, store=store, keys=keys, signer=signer)
    finally:
        store.close()


def log_status(directory: Path) -> Result:
    """How the log is, read from the files; nothing is signed or changed."""
    with _opened(directory) as house:
        table = tables.log_entry
        with house.store.read() as session:
            stored = session.scalar(select(func.count()).select_from(table)) or 0
            tiles = session.scalar(select(func.count()).select_from(tables.log_tile)) or 0
        look = house.signer.look()
        last = house.signer.last() if not isinstance(look, Freeze) else _last_or_none(house.signer)
        data: dict[str, Any] = {
            "origin": house.settings.origin,
            "state": "frozen" if isinstance(look, Freeze) else "open",
            "reason": look.reason.value if isinstance(look, Freeze) else None,
            "evidence": look.evidence if isinstance(look, Freeze) else None,
            "entries": stored,
            "tiles": tiles,
            "signed_size": None if last is None else last.size,
            "signed_root": None if last is None else f"sha256:{last.root.hex()}",
            "keys": [key.text() for key in house.signer.vkeys],
        }
    text = [
        f"log          {data['origin']} {data['state']}",
        f"entries      {stored} in {tiles} tiles; signed {data['signed_size']}",
        *(f"key          {one}" for one in data["keys"]),
    ]
    if data["reason"] is not None:
        text += [
            f"frozen       {data['reason']}: {plain(data['evidence'])}",
            "next: iriai-broker log repair --from-bundle FILE, or iriai-broker log succeed NEW_ORIGIN",
        ]
    return Result(data=data, text=tuple(text), exit_code=0 if data["reason"] is None else _NEEDS_PEOPLE)


def _last_or_none(signer: Signer) -> Any:  # noqa: ANN401  SignedHead or None
    try:
        return signer.last()
    except LogError:
        return None


def log_approve(document: Path, key: Path) -> Result:
    """Signs what a repair or a succession asks two operators for."""
    approval = approve(load_key(key), document.read_bytes().removesuffix(b"\n")).decode("ascii")
    said = json.loads(document.read_bytes())
    return Result(
        data={"approval": json.loads(approval)},
        text=tuple(f"{name:<12} {plain(value)}" for name, value in sorted(said.items())),
        plain_output=approval,
    )


@while_stopped
def log_repair(directory: Path, bundle: Path, approvals: Sequence[Path]) -> Result:
    """Puts back what was signed and is missing; without approvals says what it would do."""
    with _opened(directory) as house:
        origin, store = house.settings.origin, house.store
        repair = Repair.plan(store, house.signer, origin, bundle)
        subject = repair.subject()
        facts = {
            "from": repair.start,
            "to": repair.size,
            "restored": dict(sorted(repair.lost.items())),
            "undisclosed": repair.undisclosed,
            "reason": repair.reason.value,
        }
        told = (
            f"log          {origin} frozen: {repair.reason.value}",
            f"entries      {repair.start} are stored, {repair.size - repair.start} come back, all as signed",
            *(f"  {count:>6} x {name}" for name, count in sorted(repair.lost.items())),
            *([f"confidential {repair.undisclosed} values are not in the bundle"] * bool(repair.undisclosed)),
            *(_LOST if repair.lost else ()),
        )
        if not approvals:
            return _asked(subject, facts, told)
        table_of = house.operators()

        def name_of(key: bytes) -> str | None:
            if key in table_of:
                return table_of[key]
            return f"key-{key_id(key)}" if digest(key) in repair.operators else None

        names = approvers(subject, _read(approvals), name_of)
        repair.apply(store, house.signer)
        writer = house.writer()
        try:
            if writer.frozen is not None:
                raise writer.frozen
            _record(writer, names, "log.repair", subject)
            size = writer.head().size
        finally:
            writer.close()
    return Result(
        data={**facts, "approved_by": list(names), "size": size, "state": "open"},
        text=(*told, f"approved by  {', '.join(names)}", f"open again   with {size} entries"),
    )


_LOST: Final = (
    "Entries hold digests: the business rows that they speak of (members, contracts, runs, models) cannot be",
    "made again. Where they are not in the database, enrol, propose or send them anew; the log says which.",
)


@while_stopped
def log_succeed(
    directory: Path,
    successor: str,
    *,
    cause: str | None,
    approvals: Sequence[Path],
    databases: tuple[str, str | None] | None,
) -> Result:
    """Ends the log and begins another one; without approvals says what it would do."""
    settings = Settings.load(directory, environ={})  # as the file says: it is written again below
    waiting = settings.dir / _SUCCESSION
    if not waiting.exists():
        asked = _end(directory, successor, cause, approvals, databases)
        if asked is not None:
            return asked
    plan: dict[str, Any] = json.loads(waiting.read_text("ascii"))
    if plan["successor"] != successor:
        raise UsageError(
            need=f"the successor {plan['successor']}, as approved",
            found=successor,
            remedy="repeat that command",
        )
    if settings.origin != successor:
        _put_aside(Settings.load(directory), plan["predecessor"]["origin"])
        main, private = plan["databases"] or (None, None)
        changed = replace(settings, origin=successor, database_url=main, private_db_url=private)
        changed.write()
    made = initialise(
        settings.dir,
        config=settings.config,
        url=settings.public_url,
        operators={name: parse_key(key) for name, key in plan["operators"].items()},
        clock=SystemClock(),
        entropy=SystemEntropy(),
        predecessor=plan["predecessor"],
    )
    waiting.unlink()
    before = plan["predecessor"]
    return Result(
        data={"origin": successor, "log_vkey": made.log_vkey, "predecessor": before},
        text=(
            f"log          {successor} goes on",
            f"before       {before['origin']} with {before['size']} entries ({before['cause']})",
            f"operators    {', '.join(made.operators)}",
            "next: members join again (iriai-broker invite create) and compare the new key;",
            "      contracts name the old log, and are proposed anew",
        ),
        plain_output=made.log_vkey,
    )


def _end(
    directory: Path,
    successor: str,
    cause: str | None,
    approvals: Sequence[Path],
    databases: tuple[str, str | None] | None,
) -> Result | None:
    """Ends the old log and writes down what is left to do; gives what to sign if it is not signed."""
    with _opened(directory) as house:
        settings, operators = house.settings, house.operators()
        if settings.database_url is not None and databases is None:
            raise UsageError(
                need="--database-url of an empty database for the new log (and --private-db-url)",
                found="none",
                remedy="make one as iriai-broker db upgrade says; the old one stays as it is",
            )
        writer = house.writer()
        try:
            plan = Succession.plan(
                house.signer, settings.origin, successor, cause=cause, witnessed=_witnessed(house, writer)
            )
            subject = plan.subject()
            facts = {"origin": settings.origin, "successor": successor, "cause": plan.cause}
            told = (f"log          {settings.origin} ends ({plan.cause}); {successor} goes on",)
            if not approvals:
                return _asked(subject, facts, told)
            names = approvers(subject, _read(approvals), operators.get)
            if plan.note is None and house.signer.frozen() is None:
                _record(writer, names, "log.succeed", subject)
            note = plan.end(writer, house.signer)
        finally:
            writer.close()
    left = {
        "v": 1,
        "successor": successor,
        "predecessor": plan.predecessor(note),
        "approved_by": list(names),
        "operators": {name: f"ed25519:{key.hex()}" for key, name in operators.items()},
        "databases": None if databases is None else list(databases),
    }
    replace_file(settings.dir / _SUCCESSION, canonical(left))
    return None


def _witnessed(house: _House, writer: Writer) -> str | None:
    """The newest note with the quorum of this broker's policy."""
    try:
        witnessing = Witnessing(
            writer=writer,
            store=house.store,
            clock=SystemClock(),
            log_vkeys=[key.text() for key in house.signer.known_vkeys],
            broker_key=load_keys(house.settings).broker.public,
        )
        witnessing.load()
    except (LogError, ProofError):
        return None
    return None if witnessing.newest is None else witnessing.newest.head.note


def _put_aside(settings: Settings, origin: str) -> None:
    """Renames the old log's files and key; what is not there was renamed before."""
    slug = origin.replace("/", "_").replace(":", "_")
    for database in (settings.main_database, settings.private_database):
        if isinstance(database, str):
            continue
        for side in _SIDE_FILES:
            _rename(database.with_name(database.name + side), slug)
    for path in log_key_files(settings):
        _rename(path, slug)
    _rename(policy_file(settings.dir), slug)


def _rename(path: Path, slug: str) -> None:
    aside = path.with_name(f"{slug}.{path.name}")
    if path.exists() and not aside.exists():
        path.rename(aside)


@while_stopped
def log_rotate_key(directory: Path, approvals: Sequence[Path] = ()) -> Result:
    """Gives the log a new key, once two operators approved it; the old one signs beside it for a while.

    Without approvals the key file is made, which signs nothing yet, and the document is printed that names
    it.
    """
    with _opened(directory) as house:
        settings = house.settings
        path = settings.keys / f"log-{len(house.keys) + 1}.key"
        writer = house.writer()
        try:
            if writer.frozen is not None:
                raise writer.frozen
            old = writer.vkeys[0]
            unused = next((key for key in house.keys if key.public not in _used(house.signer)), None)
            new = unused or make_key(path, SystemEntropy())  # of the first call, or a crash left one
            vkey = VerifierKey(settings.origin, new.public)
            subject = _rotation(settings.origin, old, vkey)
            if not approvals:
                told = f"log          {settings.origin} gets the key {vkey.text()}"
                return _asked(subject, {"old_vkey": old.text(), "new_vkey": vkey.text()}, (told,))
            names = approvers(subject, _read(approvals), house.operators().get)
            before = _policy_text(house, writer.vkeys)
            _record(writer, names, "key.rotate", subject)
            writer.submit(lambda _session, tx: tx.add(_rotated(old, vkey))).result()
            writer.use_key(new)
            text = _policy_text(house, writer.vkeys)
            writer.submit(lambda _session, tx: tx.add(_activated(text, before))).result()
        finally:
            writer.close()
    replace_file(settings.policy, text.encode("ascii"))
    return Result(
        data={
            "log_vkey": vkey.text(),
            "old_vkey": old.text(),
            "policy": digest(text.encode("ascii")),
            "approved_by": list(names),
        },
        text=(
            f"approved by  {', '.join(names)}",
            f"old key      {old.text()} signs for {LOG_KEY_OVERLAP_DAYS} more days",
            "next: restart the broker; nodes take the new key up by themselves, auditors list both",
        ),
        plain_output=vkey.text(),
    )


def _rotation(origin: str, old: VerifierKey, new: VerifierKey) -> bytes:
    """What two operators sign: after one change of the key it is about nothing any more."""
    return canonical({"action": "log.rotate-key", "log": origin, "old": old.text(), "new": new.text()})


def _used(signer: Signer) -> set[bytes]:
    return {key.public_key for key in signer.known_vkeys}


def _rotated(old: VerifierKey, new: VerifierKey) -> Event:
    return Event(
        type=EntryType.KEY_ROTATED,
        pub={"old": digest(old.public_key), "new": digest(new.public_key), "role": "log"},
        private={"vkey": new.text()},
    )


def _activated(text: str, before: str) -> Event:
    named = {"digest": digest(text.encode("ascii")), "previous": digest(before.encode("ascii"))}
    return Event(type=EntryType.POLICY_ACTIVATED, pub={"kind": "trust", **named})


def _policy_text(house: _House, keys: Sequence[VerifierKey]) -> str:
    from broker.witnessing.keys import WitnessKeys

    found = WitnessKeys(log_keys=tuple(keys), broker_key=load_keys(house.settings).broker.public)
    with house.store.read() as session:
        found.load(session)
    return found.text


def _record(writer: Writer, names: Sequence[str], action: str, subject: bytes) -> None:
    """One entry for each of the two people."""
    named = digest(subject)

    def work(_session: Session, tx: LogTx) -> None:
        for name in names:
            operator = Operator(name=name, key=b"", active=True)
            tx.add(
                console_action(operator, action, subject=named, request=digest(f"{named} {name}".encode()))
            )

    writer.submit(work).result()


def _asked(subject: bytes, facts: dict[str, Any], told: Sequence[str]) -> Result:
    return Result(
        data={**facts, "document": json.loads(subject), "approved_by": []},
        text=(
            *told,
            "nothing was changed. Two operators sign this document: iriai-broker log approve FILE --key KEY;",
            "then repeat the command with --approval FILE, twice:",
        ),
        plain_output=subject.decode("ascii"),
        exit_code=_NEEDS_PEOPLE,
    )


def _read(paths: Sequence[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]
