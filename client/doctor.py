# SPDX-License-Identifier: Apache-2.0
"""Numbered checks of a node, each with a code, what was found, and what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.answers import Answer, table
from client.budgets import Budgets
from client.budgets.reckoning import require_known, told_spends
from client.errors import DoctorFailedError
from client.identity import load_identity, read_secret
from client.membership import open_member, pinned_broker, worker_of
from client.outbox import Outbox
from client.settings import load_settings
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["Check", "doctor"]

_FREE_BYTES = 1024**3
_PACKAGES = ("broker", "client", "policies", "sandbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: its code, whether it holds, what was found, what to do."""

    code: str
    ok: bool
    found: str
    remedy: str


def doctor(
    home: Home, *, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None = None
) -> Answer:
    """Runs every check; exit 3 if one failed."""
    checks = [
        _try("keys", "restore keys/ from the backup; chmod 600", lambda: _keys(home)),
        _try("settings", "correct node.toml", lambda: f"{load_settings(home).threads} threads"),
        _try("packages", "install iriai into an environment of its own", packages),
        _try("disk", "free some space", lambda: _disk(home)),
        _try("outbox", "iriai-node receipts verify", lambda: _outbox(home, clock, entropy)),
        _try("budget", "restore the newest copy of the budget folder", lambda: _budget(home, clock, entropy)),
        _try("broker", "iriai-node join URL INVITE", lambda: pinned_broker(home).url),
        _try(
            "witnesses",
            "iriai-node witness status; the nodes of the others must run",
            lambda: _witnesses(home, clock, entropy),
        ),
        _try(
            "reach", "check network, clock and certificate", lambda: _reach(home, clock, entropy, transport)
        ),
    ]
    rows = [
        (number, "ok" if one.ok else "FAILED", one.code, one.found, "" if one.ok else one.remedy)
        for number, one in enumerate(checks, 1)
    ]
    failed = [one.code for one in checks if not one.ok]
    return Answer(
        data={
            "checks": [
                {"code": one.code, "ok": one.ok, "found": one.found, "remedy": one.remedy} for one in checks
            ],
            "failed": failed,
        },
        text=table(("", "", "check", "found", "remedy"), rows),
        exit_code=DoctorFailedError.exit_code if failed else 0,
    )


def _try(code: str, remedy: str, work: Callable[[], str]) -> Check:
    try:
        return Check(code=code, ok=True, found=work(), remedy=remedy)
    except IriaiError as error:
        return Check(code=code, ok=False, found=f"{error.code}: {error.found}", remedy=error.remedy)


def _failed(need: str, found: str, remedy: str) -> DoctorFailedError:
    return DoctorFailedError(need=need, found=found, remedy=remedy)


def _keys(home: Home) -> str:
    load_identity(home)
    for name in ("node.key", "fleet.key", "unit.key"):
        read_secret(home.keys / name)
    return "mode 0600"


def packages() -> str:
    """Whether the four package names belong to iriai.

    Raises:
        DoctorFailedError: An unrelated package of the same name is installed beside it.
    """
    found = importlib.metadata.packages_distributions()
    foreign = {
        name: sorted(set(found[name]) - {"iriai"})
        for name in _PACKAGES
        if name in found and set(found[name]) != {"iriai"}
    }
    if foreign:
        raise _failed(
            "the names broker, client, policies and sandbox for iriai alone",
            ", ".join(f"{name} also of {' '.join(others)}" for name, others in foreign.items()),
            "install iriai into an environment of its own (install.name-collision)",
        )
    return "no name collision"


def _disk(home: Home) -> str:
    free = shutil.disk_usage(home.root).free
    if free < _FREE_BYTES:
        raise _failed("1 GiB of free space", f"{free // 1024**2} MiB", "free some space")
    return f"{free // 1024**3} GiB free, SQLite {sqlite3.sqlite_version}"


def _opened_outbox(home: Home, clock: Clock, entropy: Entropy) -> Outbox:
    identity, broker = load_identity(home), pinned_broker(home)
    return Outbox.of(home, identity, origin=broker.origin, clock=clock, entropy=entropy)


def _outbox(home: Home, clock: Clock, entropy: Entropy) -> str:
    outbox = _opened_outbox(home, clock, entropy)
    try:
        outbox.check_open()
        outbox.check_settled()
        return f"{len(outbox.pending())} envelopes wait for a receipt, log seen up to {outbox.seen().size}"
    finally:
        outbox.close()


def _budget(home: Home, clock: Clock, entropy: Entropy) -> str:
    """Whether every ledger verifies, and holds what the log was told."""
    budgets = Budgets(home, key=load_identity(home).key, clock=clock)
    try:
        for stem in budgets.lineages():
            budgets.find(stem)
        told = 0
        if home.outbox.exists():
            outbox = _opened_outbox(home, clock, entropy)
            try:
                require_known(budgets, outbox)
                told = len(told_spends(outbox))
            finally:
                outbox.close()
        return (
            f"{len(budgets.lineages())} ledgers verify, and hold all {told} spends that the log was told of"
        )
    finally:
        budgets.close()


def _witnesses(home: Home, clock: Clock, entropy: Entropy) -> str:
    """Whether enough witnesses vouch for the log, for each contract that demands some."""
    from client.contract.shelf import ContractShelf
    from client.witnessing.showing import standings

    member, outbox = open_member(home, clock=clock, entropy=entropy), _opened_outbox(home, clock, entropy)
    try:
        shelf = ContractShelf(home, own_key=member.identity.key.public)
        found = [one for one in standings(member, shelf, outbox) if one.k]
    finally:
        outbox.close()
        member.client.close()
    bad = [one for one in found if not one.fresh or one.late]
    down = "" if worker_of(home)["running"] else "; this worker is down, and cosigns nothing"
    if bad:
        late = sum(one.late for one in bad)
        raise _failed(
            "enough witnesses for every contract that demands some",
            "; ".join(one.words for one in bad) + (f"; {late} receipts are late" if late else "") + down,
            "iriai-node run here; iriai-node witness status names the others, whose nodes must run too",
        )
    return "; ".join(one.words for one in found) + down if found else "no contract demands witnesses"


def _reach(home: Home, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None) -> str:
    """A signed request: certificate, key and both clocks in one."""
    member = open_member(home, clock=clock, entropy=entropy, transport=transport)
    with member.client as client:
        answer = client.get("/membership/me")
        drift_s = client.clock_difference_s
    state = answer.get("state", "unknown") if isinstance(answer, dict) else "unknown"
    return f"certificate and signature accepted, {state}, clock difference {drift_s:.0f} s"
