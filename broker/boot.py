# SPDX-License-Identifier: Apache-2.0
"""Making a broker's folder, and opening it: keys, certificate, settings, databases, the log's first entries.

    broker.toml   tls.pem   policy.txt   broker.db   private.db   signer.db   models/   fleet/
    keys/broker.key   keys/log.key   keys/tls.key          mode 0600

`initialise` is safe to repeat: it makes what is missing and changes nothing that is there. Once the log has
its first entry, a missing key is an error and never made anew.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, insert, select

from broker.acts.service import Acts
from broker.auth.people import enrol_operator
from broker.errors import AlreadyInitialisedError, NotInitialisedError, UsageError
from broker.keyfiles import load_key, make_key, read_private, replace_file, write_private
from broker.log import LogTx, Writer
from broker.membership.directory import ACTIVE
from broker.membership.records import key_added
from broker.services import BrokerKeys, Services
from broker.settings import Settings, database_url, settings_file
from broker.store import Session, Store, holds_log
from broker.store.roles import prepare
from broker.store.tables import log_entry, operator
from broker.tls import check_own, make_certificate, pin_of, split_url
from policies.encoding import digest
from policies.identity import SigningKey, fingerprint, key_text, parse_key
from policies.log.checkpoint import VerifierKey
from policies.log.entries import EntryType, Event
from policies.log.policy import Policy, policy_text
from policies.ports import from_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from broker.fleet import Fleet
    from policies.ports import Clock, Entropy

__all__ = [
    "Initialised",
    "initialise",
    "load_keys",
    "load_log_keys",
    "log_key_files",
    "open_services",
    "parse_operators",
    "policy_file",
]

_OPERATOR: Final = re.compile(r"^[a-z][a-z0-9-]{0,40}$")
_KEYS: Final = ("broker.key", "log.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """What `initialise` made or found."""

    settings: Settings
    broker_key: str
    fingerprint: str
    log_vkey: str
    tls_sha256: str
    operators: tuple[str, ...]
    fresh: bool


def tls_chain(directory: Path) -> Path:
    """Where the certificate chain of the public listener lies."""
    return directory / "tls.pem"


def policy_file(directory: Path) -> Path:
    """Where the broker's own copy of an auditor's policy lies; the log's first entry names its digest."""
    return directory / "policy.txt"


def parse_operators(texts: list[str]) -> dict[str, bytes]:
    """Names and keys of ``name=ed25519:…`` texts.

    Raises:
        UsageError: Another form, or the same name or key twice: one person would count as two.
        WeakKeyError: A key that proves nothing.
    """
    found: dict[str, bytes] = {}
    for text in texts:
        name, _, key = text.partition("=")
        raw = parse_key(key)
        if not _OPERATOR.match(name) or name in found or raw in found.values():
            raise UsageError(
                need="--operator name=ed25519:… with different names and different keys",
                found=ascii(text)[1:-1][:60],
                remedy="let each operator run `iriai-broker operator new FILE` and send you the public key",
            )
        found[name] = raw
    return found


def initialise(
    directory: Path,
    *,
    url: str,
    operators: Mapping[str, bytes],
    clock: Clock,
    entropy: Entropy,
    listen_host: str | None = None,
    tls: tuple[Path, Path] | None = None,
    origin: str | None = None,
    predecessor: Mapping[str, object] | None = None,
    database: str | None = None,
    private_database: str | None = None,
    database_owner: str | None = None,
    config: Path | None = None,
) -> Initialised:
    """Makes a broker in a folder, or completes it; ``config`` puts its settings file elsewhere.

    1. the URL and, if given, the operator's own certificate fit; 2. settings that are there say the same;
    3. keys and certificate, where they are missing; 4. settings; 5. databases, for which the owner of the
       tables is needed once if they are of PostgreSQL; 6. the log's first entries and the operators.

    Raises:
        TlsInvalidError: Step 1.
        AlreadyInitialisedError: Step 2, or an operator has another key.
        KeyFileError: Step 3, a key of a log that has entries is gone.
        StoreError: Step 5.
        OSError: The disk does not take it; repeat the command.
    """
    # 1.
    host, port = split_url(url)
    own = check_own(url, tls[0].read_bytes(), read_private(tls[1]), clock=clock) if tls is not None else None
    year = from_ms(clock.now_ms()).astimezone(dt.UTC).year
    wanted = Settings.new(
        config or directory,
        options={
            "dir": str(directory.absolute()) if config is not None else None,
            "public_url": url.rstrip("/"),
            "origin": origin,
            "listen_host": listen_host,
            "database_url": database,
            "private_db_url": private_database,
        },
        defaults={
            "origin": f"{host}:{port}/log/{year}a",
            "listen_host": _listen_on(host),
            "listen_port": port,
        },
    )
    # 2.
    given = {"origin": origin, "database_url": database, "private_db_url": private_database}
    said = ["public_url", *(name for name, value in given.items() if value is not None)]
    settings = _same(wanted, said) if wanted.file.exists() else wanted
    _check_owner(settings, database_owner)
    # 3.
    fresh = not holds_log(settings.main_database)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _KEYS:
        if fresh and not (settings.keys / name).exists():
            make_key(settings.keys / name, entropy)
    if not (settings.keys / "tls.key").exists() or not tls_chain(directory).exists():
        material = own or make_certificate(url, clock=clock, entropy=entropy)
        (settings.keys / "tls.key").unlink(missing_ok=True)  # half of a pair that a crash left
        write_private(settings.keys / "tls.key", material.key_pem)
        replace_file(tls_chain(directory), material.chain_pem)
    broker_key, log_key = (load_key(settings.keys / name) for name in _KEYS)
    keys = load_keys(settings, broker_key=broker_key, log_key=log_key)
    # 4.
    if fresh or not policy_file(directory).exists():  # later texts come with a change of the log's key
        replace_file(policy_file(directory), _policy(keys).encode("ascii"))
    settings.models.mkdir(mode=0o700, exist_ok=True)
    if not settings.file.exists():
        settings.write()
    # 5. and 6.
    if database_owner is not None and settings.database_url is not None:
        prepare(database_owner, broker=settings.database_url)
    with_entries = _begin_log(
        settings, keys, log_key, operators, predecessor=predecessor, clock=clock, entropy=entropy
    )
    return Initialised(
        settings=settings,
        broker_key=key_text(keys.broker.public),
        fingerprint=fingerprint(keys.broker.public),
        log_vkey=keys.log_vkey,
        tls_sha256=keys.tls_sha256,
        operators=with_entries,
        fresh=fresh,
    )


def _listen_on(host: str) -> str:
    """Address to listen on for a public host: itself if it is an address, else all of this machine."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host if host == "localhost" else "0.0.0.0"  # noqa: S104  a public service


def _check_owner(settings: Settings, owner: str | None) -> None:
    if owner is None:
        return
    database_url("--database-owner", owner)
    if settings.database_url is None:
        raise UsageError(
            need="--database URL with --database-owner URL",
            found="a broker on SQLite files",
            remedy="name the database too, or leave both away",
        )


def _same(wanted: Settings, names: Iterable[str]) -> Settings:
    found = Settings.load(wanted.file)
    for name in names:
        here, asked = getattr(found, name), getattr(wanted, name)
        if here != asked:
            raise AlreadyInitialisedError(
                need=f"{name} {here or 'absent'}, as in {found.file}",
                found=asked,
                remedy="use another folder for another broker",
            )
    return found


def load_keys(
    settings: Settings, *, broker_key: SigningKey | None = None, log_key: SigningKey | None = None
) -> BrokerKeys:
    """What identifies the broker of a folder.

    Raises:
        KeyFileError: A key is missing or can be read by others.
        OSError: The certificate is missing.
    """
    broker_key = broker_key or load_key(settings.keys / "broker.key")
    log_key = log_key or load_key(settings.keys / "log.key")
    return BrokerKeys(
        broker=broker_key,
        log_vkey=VerifierKey(settings.origin, log_key.public).text(),
        tls_chain_pem=tls_chain(settings.dir).read_bytes(),
    )


def _policy(keys: BrokerKeys) -> str:
    return policy_text(Policy(logs=(VerifierKey.parse(keys.log_vkey),), broker=keys.broker.public))


def _begin_log(
    settings: Settings,
    keys: BrokerKeys,
    log_key: SigningKey,
    operators: Mapping[str, bytes],
    *,
    predecessor: Mapping[str, object] | None,
    clock: Clock,
    entropy: Entropy,
) -> tuple[str, ...]:
    """The first entries and the operators, where they are missing; names of all operators."""
    store = Store.open(settings.main_database, settings.private_database, settings.signer_path)
    try:
        with store.read() as session:
            known = {row.name: row.key for row in session.execute(select(operator))}
            empty = session.scalar(select(func.count()).select_from(log_entry)) == 0
        _refuse_other_keys(known, operators)
        missing = {name: key for name, key in operators.items() if name not in known}
        if empty or missing:
            writer = Writer.open(
                store,
                origin=settings.origin,
                key=log_key,
                more_keys=load_log_keys(settings)[1:],
                clock=clock,
                entropy=entropy,
                threaded=False,
            )
            first = _genesis(keys, log_key, predecessor) if empty else ()
            now_ms = clock.now_ms()
            writer.submit(lambda session, tx: _first(session, tx, first, missing, now_ms)).result()
            writer.close()
        return tuple(sorted({*known, *missing}))
    finally:
        store.close()


def _refuse_other_keys(known: Mapping[str, str], operators: Mapping[str, bytes]) -> None:
    for name, key in operators.items():
        text = key_text(key)
        other = known.get(name)
        twice = [one for one, held in known.items() if held == text and one != name]
        if (other is not None and other != text) or twice:
            raise AlreadyInitialisedError(
                need=f"operator {name} with a key of their own, as enrolled",
                found="another key" if not twice else f"the key of {twice[0]}",
                remedy="give each operator one name and one key",
            )


def _genesis(
    keys: BrokerKeys, log_key: SigningKey, predecessor: Mapping[str, object] | None
) -> tuple[Event, ...]:
    policy = digest(_policy(keys).encode("ascii"))
    named = {"software": version("iriai"), "policy": policy, "predecessor": predecessor}
    added = {"role": "log", "alg": "ed25519", "kid": digest(log_key.public), "vkey": keys.log_vkey}
    return (
        Event(type=EntryType.LOG_GENESIS, pub=named),
        Event(type=EntryType.KEY_ADDED, pub=added),
        key_added("broker", "ed25519", keys.broker.public, shown=key_text(keys.broker.public)),
    )


def _first(
    session: Session, tx: LogTx, first: tuple[Event, ...], operators: Mapping[str, bytes], now_ms: int
) -> None:
    for event in first:
        tx.add(event)
    for name, key in sorted(operators.items()):
        session.execute(insert(operator).values(name=name, key=key_text(key), state=ACTIVE))
        enrol_operator(session, name, now_ms)
        tx.add(key_added("operator", "ed25519", key, shown=key_text(key)))


def log_key_files(settings: Settings) -> list[Path]:
    """Key files of the log: the first key's, then one for each time that it changed."""
    return settings.log_keys


def load_log_keys(settings: Settings) -> list[SigningKey]:
    """Keys of the log, the first one first; the log's entries say which sign.

    Raises:
        KeyFileError: One is missing or can be read by others.
    """
    return [load_key(path) for path in log_key_files(settings)]


def open_services(
    directory: Path, *, clock: Clock, entropy: Entropy, engine: Fleet, threaded: bool = True
) -> Services:
    """Opens the broker of a folder, or of a settings file; nothing is served yet.

    Raises:
        NotInitialisedError: No broker in it.
        SettingsError, KeyFileError, StoreError: It is not in order.
    """
    if not settings_file(directory).exists():
        raise NotInitialisedError(
            need=f"a broker in {directory}",
            found=f"no {settings_file(directory).name}",
            remedy=f"iriai-broker init --dir {directory} --url https://host:port --operator name=ed25519:…",
        )
    settings = Settings.load(directory)
    log_keys = load_log_keys(settings)
    keys = load_keys(settings, log_key=log_keys[0])
    pin_of(keys.tls_chain_pem)
    store = Store.open(settings.main_database, settings.private_database, settings.signer_path)
    try:
        writer = Writer.open(
            store,
            origin=settings.origin,
            key=log_keys[0],
            more_keys=log_keys[1:],
            clock=clock,
            entropy=entropy,
            threaded=threaded,
        )
        newest, *older = (key.text() for key in writer.vkeys)
        keys = replace(keys, log_vkey=newest, older_log_vkeys=tuple(older))
        services = Services(settings, clock, entropy, writer, engine, keys, store=store)
        services.acts = Acts(services)
        return services  # noqa: TRY300  what fails before closes the store
    except BaseException:
        store.close()
        raise
