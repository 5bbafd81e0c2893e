# SPDX-License-Identifier: Apache-2.0
"""How people come into a federation that stays: one-time logins to the console, one-time codes of node pages.

    doors(federation, first=True)    after `up`: people are made, a page is started at each site
    doors(federation, first=False)   `iriai-sandbox open`: fresh logins and codes; ended pages start anew

A login is a link that works once, within 72 hours; making another ends the ones before it and the sessions
of that person. It is printed and kept nowhere. The broker's certificate is its own: a browser has to be told
that this is meant.

==========  ==========================================================================================
alice       operator, with the key file that commands use: a person and a key are one name
bob         operator likewise: what alice proposes he approves
carol       auditor with a key file and a grant for all: the log, the audit's screens and the bundle, and
            nothing to change
==========  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from sandbox.people import AUDITOR, console_of, enrol_auditor, login_of
from sandbox.processes import command, is_running, script, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sandbox.federation import Federation, Site

__all__ = ["ENDED", "ENDS", "PAGE", "doors", "lines"]

PAGE: Final = "-page"  # behind the name of a site, in the list of processes
ENDED: Final = (
    "these people start anew: their earlier links, sessions, passwords and passkeys ended; "
    "who is signed in already need not run this"
)
ENDS: Final = (
    "this ends the sessions, passwords, passkeys and unused links of everybody at this console, and prints a "
    "new link for each of them; who is signed in already need not run this"
)
_PAGE_S: Final = 30.0


def doors(federation: Federation, *, first: bool, pids: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What each person types into a browser.

    Args:
        federation: Whose broker runs.
        first: Whether people are still to be made.
        pids: Processes that were written down before, by name.

    Returns:
        ``console``, ``operator``, ``approver``, ``operators``, ``auditor`` and ``nodes``, each person with a
        name, a role and a one-time ``login``, each node with a one-time ``page``.

    Raises:
        CommandError: A command failed; its own words are repeated.
        StartError: A page did not come up.
    """
    running = {} if pids is None else pids
    pages = {site.name: _page(federation, site, running.get(site.name + PAGE)) for site in federation.sites}
    alice, bob = (login_of(federation, name, role="operator", first=first) for name in federation.operators)
    auditor = login_of(federation, AUDITOR, role="auditor", first=first)
    if first:
        auditor["key"] = enrol_auditor(federation)
    return {
        "console": console_of(federation),
        "operator": alice,
        "approver": bob,
        "operators": [alice, bob],
        "auditor": auditor,
        "nodes": [
            {
                "name": site.name,
                "party": site.maker.legal_name,
                "dir": str(site.folder),
                "page": pages[site.name](),
            }
            for site in federation.sites
        ],
    }


def _page(federation: Federation, site: Site, pid: int | None) -> Callable[[], str]:
    """Starts a site's page, if it does not run, and gives what waits for its address."""
    if pid is None or not is_running(pid):
        return _started(federation, site)
    words = ("page", "--again", "--dir", str(site.folder))
    return lambda: str(command("iriai-node", *words)["page"])


def _started(federation: Federation, site: Site) -> Callable[[], str]:
    log = federation.folder / "logs" / f"{site.name}{PAGE}.log"
    seen = log.stat().st_size if log.exists() else 0
    argv = [script("iriai-node"), "page", "--dir", str(site.folder), "--json"]
    service = start(site.name + PAGE, argv, log=log)
    federation.services[site.name + PAGE] = service
    federation.write_down()
    found: list[str] = []

    def said() -> bool:
        found[:] = _pages(log, seen)
        return bool(found)

    def address() -> str:
        wait_for(f"the page of {site.name}", said, timeout_s=_PAGE_S, service=service)
        return found[-1]

    return address


def _pages(log: Path, seen: int) -> list[str]:
    """Addresses in what a page printed."""
    found = []
    for line in log.read_bytes()[seen:].decode("utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.append(str(json.loads(line)["data"]["page"]))
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """What to open, for a person; each address works once."""
    people = [*found["operators"], found["auditor"]]
    return [
        f"console      {found['console']}  (its certificate is its own: tell the browser to go on)",
        *(
            f"  {one['role']:<10} {one['name']:<7} {one['login']}"
            + (f"  code {one['code']}" if "code" in one else "")
            for one in people
        ),
        *(
            f"             {one['name']} needs the link and, on the page that it opens, the code: two people "
            "give them, because an auditor's login takes two"
            for one in people
            if "code" in one
        ),
        *(f"node page    {one['name']:<8}{one['page']}" for one in found["nodes"]),
        "each address works once; iriai-sandbox open prints fresh ones, and ends all sessions and passwords",
    ]
