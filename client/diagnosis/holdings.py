# SPDX-License-Identifier: Apache-2.0
"""The node's own files: keys, settings, databases, ledgers, contracts. Nothing here asks the broker."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from client.answers import short
from client.budgets import Budgets
from client.budgets.reckoning import require_known, told_spends
from client.diagnosis.findings import Finding, failed
from client.identity import load_identity, read_secret
from client.layers import effective
from client.membership import pinned_broker
from client.outbox import Outbox
from policies.contract.lifecycle import ACTIVE, standing
from policies.errors import IriaiError
from policies.ports import iso_s, to_ms
from policies.privacy.blocks import TRAIN, split_of

if TYPE_CHECKING:
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["budget_left", "contract", "databases", "keys", "ledgers", "opened_outbox", "outbox", "settings"]

_SOON_MS: Final = 30 * 86_400_000
_SECRETS: Final = ("node.key", "fleet.key", "unit.key")
_OTHERS: Final = 0o077


def keys(home: Home) -> str:
    """Whether every key file is this account's alone, and the folder too."""
    load_identity(home)
    for name in _SECRETS:
        read_secret(home.keys / name)
    open_to = [one.name for one in sorted(home.keys.iterdir()) if one.suffix == ".key" and _is_open(one)]
    if open_to or _is_open(home.keys):
        raise failed(
            "mode 0600 of every key file, 0700 of their folder",
            " ".join(open_to) or "an open folder",
            f"find out who read it; if nobody did: chmod -R go= {home.keys}",
        )
    return f"{len(_SECRETS)} key files, mode 0600"


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & _OTHERS)


def settings(home: Home) -> str:
    """Whether everything that is set can be used."""
    rows = effective(home)
    given = [one.name for one in rows if one.source == "environment"]
    threads = next(one.value for one in rows if one.name == "threads")
    words = (
        f"{threads} threads, from {home.settings.name}" if home.settings.exists() else f"{threads} threads"
    )
    return words + (f"; the environment gives {' '.join(given)}" if given else "")


def databases(home: Home) -> str:
    """Whether every database of this folder is whole, and written ahead as it must be."""
    files = [one for one in (home.outbox, home.fleet, *sorted(home.budget.glob("*.db"))) if one.exists()]
    for path in files:
        _check_database(path)
    return f"{len(files)} databases are whole" if files else "none yet"


def _check_database(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            (word,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (journal,) = database.execute("PRAGMA journal_mode").fetchone()
    except sqlite3.Error as error:
        word, journal = str(error), "wal"
    if word != "ok":
        raise failed(
            f"a whole database {path.name}", str(word)[:200], "stop the worker; restore the newest copy of it"
        )
    if path.name == "outbox.db" and journal != "wal":
        raise failed(
            "a write-ahead log of outbox.db", str(journal), "look at its disk: it must not be a network share"
        )


def opened_outbox(home: Home, clock: Clock, entropy: Entropy) -> Outbox:
    """The node's outbox; close it."""
    identity, broker = load_identity(home), pinned_broker(home)
    return Outbox.of(home, identity, origin=broker.origin, clock=clock, entropy=entropy)


def outbox(home: Home, clock: Clock, entropy: Entropy) -> str:
    """Whether the outbox is in order, the log never contradicted itself, and no change of key is open."""
    opened = opened_outbox(home, clock, entropy)
    try:
        opened.check_open()
        opened.check_settled()
        synchronous = opened.synchronous()
        if synchronous < 2:  # noqa: PLR2004  2 is FULL
            raise failed(
                "PRAGMA synchronous FULL", str(synchronous), "report it: a power cut could lose numbers"
            )
        waiting = len(opened.pending())
        seen = opened.shown.seen().size
        return f"{waiting} envelopes wait for a receipt, log seen up to {seen}, synchronous FULL"
    finally:
        opened.close()


def ledgers(home: Home, clock: Clock, entropy: Entropy) -> str:
    """Whether every ledger verifies, and holds what the log was told."""
    budgets = Budgets(home, key=load_identity(home).key, clock=clock)
    try:
        for stem in budgets.lineages():
            budgets.find(stem)
        told = 0
        if home.outbox.exists():
            opened = opened_outbox(home, clock, entropy)
            try:
                require_known(budgets, opened)
                told = len(told_spends(opened))
            finally:
                opened.close()
        count = len(budgets.lineages())
        return f"{count} ledgers verify, and hold all {told} spends that the log was told of"
    finally:
        budgets.close()


def budget_left(home: Home, clock: Clock) -> str | Finding:
    """Which part of each data lineage's cap is left."""
    budgets = Budgets(home, key=load_identity(home).key, clock=clock)
    try:
        shares = dict(_left(budgets, stem) for stem in budgets.lineages())
    finally:
        budgets.close()
    if not shares:
        return "nothing is spent"
    words = ", ".join(f"{name} {100 * share:.0f} % left" for name, share in shares.items())
    if any(share <= 0 for share in shares.values()):
        return Finding(
            found=words, fix="iriai-node budget show: data without budget take part in no further run"
        )
    return words


def _left(budgets: Budgets, stem: str) -> tuple[str, float]:
    """A lineage, and the share of its cap that is left in the fullest block of its training units."""
    store = budgets.find(stem)
    store.figures()  # what other processes appended is read first
    blocks = [store.figures_of(one) for one in store.state.blocks if split_of(one) == TRAIN]
    used = [(one.rho_spent_nano + one.rho_held_nano) / one.rho_max_nano for one in blocks if one.rho_max_nano]
    return store.state.lineage.scope, 1 - max(used, default=0.0)


def contract(shelf: ContractShelf, clock: Clock) -> str | Finding:
    """Whether a contract is in force, and for how long."""
    now_ms = clock.now_ms()
    executed = [shelf.get(one) for one in shelf.digests()]
    executed = [one for one in executed if one.is_executed]
    if not executed:
        return Finding(found="none that everybody signed", fix="iriai-node contract list, then sign one")
    ruling = {one.contract.digest: one for one in executed if _standing(shelf, one, now_ms) == ACTIVE}
    if not ruling:
        shown = ", ".join(f"{short(one.contract.digest)} {_standing(shelf, one, now_ms)}" for one in executed)
        return Finding(
            found=f"none in force: {shown}",
            fix=f"iriai-node contract status {short(executed[0].contract.digest)} says why",
        )
    ends = {name: one.contract.term.expires for name, one in ruling.items()}
    words = ", ".join(f"{short(name)} until {at}" for name, at in ends.items())
    if any(to_ms(at) - now_ms < _SOON_MS for at in ends.values()):
        return Finding(found=words, fix="it ends within 30 days: agree on a successor in time")
    return words


def _standing(shelf: ContractShelf, held: Held, now_ms: int) -> str:
    from client.contract.notices import Notices

    now = iso_s(now_ms)
    try:
        return standing(held.contract, Notices(shelf).life(held, now), now)
    except IriaiError as error:  # its notices are lost: the node refuses until they are fetched
        return error.code
