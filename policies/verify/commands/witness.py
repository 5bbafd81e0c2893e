# SPDX-License-Identifier: Apache-2.0
"""``witness``: the auditor's own witness, which cosigns what extends what it cosigned before.

``--listen`` waits for logs to call (push), ``--pull`` asks one log over TLS with a pinned certificate.
With ``--key``, the auditor's enrolled key, ``--statement`` writes who this witness is, for the broker's
operator to register. The witness key signs it as well: that proves that somebody holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.witness_keys import witness_name
from policies.verify.commands.answers import say
from policies.verify.commands.inputs import check_absent, read_key, read_policy, write_new
from policies.verify.errors import InputError, UnknownWitnessError, UnreachableError
from policies.verify.report import EXIT_ERROR, plain
from policies.verify.system import SystemClock, SystemEntropy
from policies.verify.witnessing.pull import Pinned, pull
from policies.verify.witnessing.push import serve
from policies.verify.witnessing.store import WitnessStore

if TYPE_CHECKING:
    import argparse

    from policies.ports import Timer
    from policies.verify.witnessing.pull import Pulled, Remote

__all__ = ["follow", "run"]

RETRY_MS = 5_000
_PORT_MAX = 65_535


def run(options: argparse.Namespace) -> int:
    """Runs ``witness``."""
    policy = read_policy(options.policy)
    check_absent(options.statement)
    if (options.statement is None) != (options.key is None):
        raise InputError(need="--statement together with --key", found="one of them", remedy="give both")
    if options.pull is not None and options.tls_sha256 is None:
        raise InputError(
            need="--tls-sha256 with --pull", found="none", remedy="ask the operator by another way"
        )
    listen = None if options.listen is None else _address(options.listen)
    clock = SystemClock()
    store = WitnessStore(
        options.dir,
        name=witness_name(options.name),
        log_keys=policy.logs,
        clock=clock,
        entropy=SystemEntropy(),
    )
    try:
        say(f"witness   {store.vkey.text()}", *(f"log       {plain(one)}" for one in store.origins))
        if options.statement is not None:
            _state(options, store)
        if listen is not None:
            serve(store, *listen)
        if options.pull is not None:
            origin = _origin(options.origin, store)
            remote = Pinned(options.pull, options.tls_sha256)
            return follow(store, remote, origin, clock, once=options.once)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        store.close()
    return 0


def follow(store: WitnessStore, remote: Remote, origin: str, timer: Timer, *, once: bool) -> int:
    """Asks again and again; ends with evidence of two histories, or after one question with ``once``.

    A log that never took a cosignature of this witness is asked again: it may be registered any moment. One
    that took some and then knows it no longer has removed it.

    Raises:
        UnreachableError: With ``once``, no answer.
        UnknownWitnessError: The witness was removed; with ``once``, also if it was not registered yet.
    """
    taken = away = False
    while True:
        try:
            found = pull(store, remote, origin, timer)
        except UnreachableError as error:
            if taken and isinstance(error, UnknownWitnessError):
                raise _removed() from error
            if once:
                raise
            say(plain(str(error), limit=1_000))
            away = True
            timer.pause_ms(RETRY_MS)
            continue
        if away:
            say("back again: the log answers")
        taken, away = taken or found.what == "cosigned", False
        _tell(found)
        if found.evidence is not None:
            return EXIT_ERROR
        if once:
            return 0 if found.what != "refused" else EXIT_ERROR
        if found.what != "cosigned":
            timer.pause_ms(RETRY_MS)


def _removed() -> UnknownWitnessError:
    return UnknownWitnessError(
        need="a witness that is registered at this log",
        found="your witness was removed",
        remedy="ask the operator why: iriai-broker auditor list",
    )


def _tell(found: Pulled) -> None:
    if found.what == "cosigned":
        say(f"cosigned  size {found.size}")
    elif found.what == "refused":
        say(f"refused   {plain(found.reason, limit=1_000)}")
    if found.evidence is not None:
        say("EVIDENCE  the log signed two histories; it is kept in the folder: send it to every member")


def _state(options: argparse.Namespace, store: WitnessStore) -> None:
    origin = _origin(options.origin, store)
    sealed = store.statement(read_key(options.key), org=options.name, origin=origin)
    write_new(options.statement, sealed.to_bytes())
    say(f"statement {plain(str(options.statement))}: for the broker's operator to register")


def _origin(asked: str | None, store: WitnessStore) -> str:
    """The log that is asked: the only one of the policy, or the one that is named."""
    if asked in store.origins:
        return asked or ""
    if asked is None and len(store.origins) == 1:
        return store.origins[0]
    raise InputError(
        need="--origin, one of " + plain(" ".join(store.origins)),
        found=plain(asked or "none"),
        remedy="name the log that is meant",
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port[:6]) > _PORT_MAX:
        raise InputError(need="HOST:PORT", found=plain(text), remedy="for example 127.0.0.1:8444")
    return host.strip("[]"), int(port)
