# SPDX-License-Identifier: Apache-2.0
"""Numbered checks of a node, each with a code, what was found, what to do, and where that is written.

In this order: machine (``packages``, ``versions``, ``disk``, ``gpu``), own files (``keys``, ``settings``,
``database``, ``outbox``, ``budget``, ``budget-left``, ``contract``), the way to the broker (``broker``,
``name``, ``way-out``, ``certificate``, ``reach``, ``clock``, ``last-seen``, ``witnesses``).

- A check is ``ok``, a ``warning`` (to be looked at, and nothing is broken), ``failed``, or ``skipped`` where
  one before it says why nobody could look. Only ``failed`` makes the exit code 3.
- Nothing is repaired and nothing is sent but one signed question to the broker.
- Every connection has a bound, so that all of it ends within 5 seconds whatever the network does.

    for one in checks(home, clock=clock, entropy=entropy): print(one.number, one.code, one.state, one.found)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.answers import Answer, table
from client.contract.shelf import ContractShelf
from client.diagnosis import holdings, machine
from client.diagnosis.broker_way import Way
from client.diagnosis.findings import FAILED, OK, SKIPPED, Check, Finding, Look, examine, failed
from client.diagnosis.machine import packages
from client.diagnosis.names import SystemNames
from client.errors import DoctorFailedError
from client.identity import load_identity
from client.membership import open_member, worker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from client.diagnosis.names import Names
    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["Check", "as_facts", "checks", "doctor", "packages"]

_GUIDE: Final = "docs/how-to/node.md"
_INSTALL: Final = f"{_GUIDE}#1-install"
_KEYS: Final = f"{_GUIDE}#2-make-the-nodes-keys"
_JOIN: Final = f"{_GUIDE}#3-join"
_SIGN: Final = f"{_GUIDE}#4-read-and-sign-the-contract"
_RUN: Final = f"{_GUIDE}#6-run"
_RECEIPTS: Final = f"{_GUIDE}#receipts"
_WITNESS: Final = f"{_GUIDE}#your-node-is-a-witness"
_BUDGET: Final = f"{_GUIDE}#while-runs-go-on-the-budget"
_SETTINGS: Final = "docs/reference/settings.md#nodetoml"


def checks(
    home: Home,
    *,
    clock: Clock,
    entropy: Entropy,
    transport: httpx.BaseTransport | None = None,
    names: Names | None = None,
) -> tuple[Check, ...]:
    """Runs every check; never raises for what it finds.

    Args:
        home: The node's folder.
        clock: Of this machine.
        entropy: Of nonces.
        transport: Of httpx, for a broker in the same process.
        names: Name server and network; those of this machine if left out.
    """
    way = Way(home=home, clock=clock, entropy=entropy, transport=transport, names=names or SystemNames())
    looks = (*_machine(home), *_files(home, clock, entropy), *_network(way))
    return tuple(examine(look, number) for number, look in enumerate(looks, 1))


def _look(code: str, fix: str, docs: str, at: Callable[[], str | Finding]) -> Look:
    return Look(code=code, fix=fix, docs=docs, at=at)


def _machine(home: Home) -> Iterator[Look]:
    yield _look("packages", "install iriai into an environment of its own", _INSTALL, packages)
    yield _look("versions", "install with -c constraints.txt", _INSTALL, machine.versions)
    yield _look("disk", "free some space", _KEYS, lambda: machine.disk(home))
    yield _look("gpu", "nothing: a node trains without one", _INSTALL, machine.gpu)


def _files(home: Home, clock: Clock, entropy: Entropy) -> Iterator[Look]:
    def contract() -> str | Finding:
        return holdings.contract(ContractShelf(home, own_key=load_identity(home).key.public), clock)

    yield _look("keys", "restore keys/ from the backup; chmod 600", _KEYS, lambda: holdings.keys(home))
    yield _look("settings", "correct node.toml", _SETTINGS, lambda: holdings.settings(home))
    yield _look("database", "restore the newest copy", _KEYS, lambda: holdings.databases(home))
    yield _look(
        "outbox", "iriai-node receipt verify", _RECEIPTS, lambda: holdings.outbox(home, clock, entropy)
    )
    yield _look(
        "budget",
        "restore the newest copy of the budget folder",
        _BUDGET,
        lambda: holdings.ledgers(home, clock, entropy),
    )
    yield _look("budget-left", "iriai-node budget show", _BUDGET, lambda: holdings.budget_left(home, clock))
    yield _look("contract", "iriai-node contract list", _SIGN, contract)


def _network(way: Way) -> Iterator[Look]:
    yield _look("broker", "iriai-node join URL INVITE", _JOIN, way.pinned)
    yield _look("name", "correct the name server of this machine", _JOIN, way.name)
    yield _look("way-out", "let this machine reach the broker's port", _JOIN, way.out)
    yield _look("certificate", "telephone the operator before you go on", _JOIN, way.certificate)
    yield _look("reach", "check network, clock and certificate", _JOIN, way.reach)
    yield _look("clock", "set this machine's clock (NTP)", _JOIN, way.clocks)
    yield _look("last-seen", "iriai-node run", _RUN, way.last_seen)
    yield _look(
        "witnesses",
        "iriai-node witness status; the nodes of the others must run",
        _WITNESS,
        lambda: _witnesses(way.home, way.clock, way.entropy),
    )


def doctor(
    home: Home, *, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None = None
) -> Answer:
    """Runs every check and shows what it found; exit 3 if one failed."""
    found = checks(home, clock=clock, entropy=entropy, transport=transport)
    rows = [
        (one.number, one.state.upper() if one.state == FAILED else one.state, one.code, one.found)
        for one in found
    ]
    mend = [
        line
        for one in found
        if one.state not in {OK, SKIPPED}
        for line in (f"{one.number}. {one.code}: {one.remedy}", f"   {one.docs}")
    ]
    bad = [one.code for one in found if not one.ok]
    return Answer(
        data={"checks": [as_facts(one) for one in found], "failed": bad},
        text=(*table(("", "", "check", "found"), rows), *(("", "what to do", *mend) if mend else ())),
        exit_code=DoctorFailedError.exit_code if bad else 0,
    )


def as_facts(one: Check) -> dict[str, object]:
    """A check as JSON has it."""
    return {
        "number": one.number,
        "code": one.code,
        "state": one.state,
        "ok": one.ok,
        "found": one.found,
        "remedy": one.remedy,
        "docs": one.docs,
    }


def _witnesses(home: Home, clock: Clock, entropy: Entropy) -> str:
    """Whether enough witnesses vouch for the log, for each contract that demands some."""
    from client.witnessing.showing import standings

    member = open_member(home, clock=clock, entropy=entropy)
    opened = holdings.opened_outbox(home, clock, entropy)
    try:
        shelf = ContractShelf(home, own_key=member.identity.key.public)
        found = [one for one in standings(member, shelf, opened) if one.k]
    finally:
        opened.close()
        member.client.close()
    bad = [one for one in found if not one.fresh or one.late]
    down = "" if worker_of(home)["running"] else "; this worker is down, and cosigns nothing"
    if bad:
        late = sum(one.late for one in bad)
        raise failed(
            "enough witnesses for every contract that demands some",
            "; ".join(one.words for one in bad) + (f"; {late} receipts are late" if late else "") + down,
            "iriai-node run here; iriai-node witness status names the others, whose nodes must run too",
        )
    return "; ".join(one.words for one in found) + down if found else "no contract demands witnesses"
