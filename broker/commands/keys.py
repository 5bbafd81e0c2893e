# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker key list`` does: the broker's own keys, from its folder and its log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from sqlalchemy import select

from broker.answers import Result, table
from broker.clock import SystemClock
from broker.commands.house import age
from broker.doctor.databases import reading
from broker.keyfiles import load_key
from broker.log.rotations import log_keys
from broker.settings import Settings
from broker.store.tables import log_entry
from broker.tls import pin_of
from policies.encoding import digest
from policies.identity import key_text
from policies.log.entries import EntryType
from policies.ports import from_ms, iso_s

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

__all__ = ["key_list"]

_KINDS: Final = (EntryType.KEY_ADDED.value, EntryType.KEY_ROTATED.value)


def key_list(place: Path) -> Result:
    """Lists every key of the broker: purpose, id, age, end."""
    settings, now_ms = Settings.load(place), SystemClock().now_ms()
    broker = load_key(settings.keys / "broker.key")
    with reading(settings.main_database) as session:
        since = _since(session)
        line = log_keys(session, [load_key(path) for path in settings.log_keys])
    found = [_row("broker", broker.public, since, None)]
    found += [_row("log", one.key.public, since, one.until_ms) for one in line]
    chain = x509.load_pem_x509_certificates(settings.tls_chain.read_bytes())
    found.append(
        {
            "purpose": "tls",
            "id": f"sha256:{pin_of(settings.tls_chain.read_bytes())}",
            "since_ms": _ms(chain[0].not_valid_before_utc),
            "until_ms": _ms(chain[0].not_valid_after_utc),
        }
    )
    rows = [
        (
            one["purpose"],
            one["id"],
            age(now_ms, one["since_ms"]),
            "-" if one["until_ms"] is None else iso_s(one["until_ms"]),
        )
        for one in found
    ]
    return Result(data={"keys": found}, text=table(("PURPOSE", "KEY", "SINCE", "UNTIL"), rows, empty="none"))


def _row(purpose: str, public: bytes, since: dict[str, int], until_ms: int | None) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "id": key_text(public),
        "since_ms": since.get(digest(public)),
        "until_ms": until_ms,
    }


def _since(session: Any) -> dict[str, int]:  # noqa: ANN401  a session
    """When the log began to trust each key, by its digest."""
    query = select(log_entry.c.body, log_entry.c.ts_ms).where(log_entry.c.type.in_(_KINDS))
    found: dict[str, int] = {}
    for row in session.execute(query.order_by(log_entry.c.idx)):
        pub = json.loads(row.body)["pub"]
        found.setdefault(pub.get("kid") or pub.get("new"), row.ts_ms)
    return found


def _ms(moment: dt.datetime) -> int:
    return int((moment - from_ms(0)).total_seconds() * 1000)
