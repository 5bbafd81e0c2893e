# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker log entries``, ``log verify`` and ``log freeze`` do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, table
from broker.backup.looking import check_log
from broker.doctor.databases import reading
from broker.keyfiles import load_key
from broker.settings import Settings
from policies.log.bundle import split_tile
from policies.log.tiles import TILE_WIDTH, entries_path
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.commands import Where
    from broker.remote import OperatorClient

__all__ = ["log_entries", "log_freeze", "log_verify"]


def log_entries(where: Where, *, start: int | None, count: int, kind: str | None) -> Result:
    """Shows entries as they were written; without a start the newest ones."""
    with where.client() as client:
        size = client.get("/log/checkpoint")["size"]
        first = max(0, size - count) if start is None else start
        found = [
            one
            for one in _entries(client, first, min(size, first + count), size)
            if kind in {None, one["type"]}
        ]
    rows = [(one["index"], one["ts"], one["type"], _about(one), _shown(one["pub"])) for one in found]
    head = ("ENTRY", "AT", "TYPE", "ABOUT", "SAYS")
    empty = f"no such entry; the log has {size}"
    return Result(data={"size": size, "entries": found}, text=table(head, rows, empty=empty))


def _entries(client: OperatorClient, start: int, end: int, size: int) -> Iterator[dict[str, Any]]:
    """Parsed entries ``[start, end)`` from the static log, bundle by bundle."""
    for n in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - n * TILE_WIDTH)
        bodies = split_tile(client.published(f"/log/{entries_path(n, width)}"), width)
        for index, body in enumerate(bodies, n * TILE_WIDTH):
            if start <= index < end:
                yield {"index": index, **json.loads(body)}


def _about(one: dict[str, Any]) -> str:
    parts = (one.get("run"), None if one.get("round") is None else f"round {one['round']}")
    return " ".join(str(part) for part in parts if part is not None) or "-"


def _shown(pub: dict[str, Any]) -> str:
    return ", ".join(f"{name} {plain(value)}" for name, value in sorted(pub.items()) if value is not None)[
        :120
    ]


def log_verify(place: Path) -> Result:
    """Hashes the whole log again on the broker's host, and compares it with its newest note.

    Raises:
        BackupDamagedError: Something does not hold; it says what.
    """
    settings = Settings.load(place)
    vkeys = tuple(VerifierKey(settings.origin, load_key(path).public) for path in settings.log_keys)
    with reading(settings.main_database) as session:
        found = check_log(session, vkeys)
    data = {"entries": found.size, "signed": found.signed, "root": f"sha256:{found.root.hex()}"}
    return Result(
        data=data,
        text=(
            f"log          {settings.origin}: {found.size} entries, tiles and envelopes hold",
            f"signed       {found.signed}, root {data['root']}",
            "an auditor verifies more, and elsewhere: iriai-broker audit bundle, then iriai-verify",
        ),
    )


def log_freeze(where: Where, *, reason: str) -> Result:
    """Freezes the log by an operator's order."""
    with where.client() as client:
        done = client.post("/operator/log/freeze", {"reason": reason})
    return Result(
        data=done,
        text=(
            f"frozen       {plain(done['frozen'])}; {done['size']} entries",
            "reads go on. To open it again: stop the broker, take a bundle, iriai-broker log repair, by two",
        ),
    )
