# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker audit rows``: the tables that an auditor lays beside the log, as files.

- On the broker's host, from one snapshot of the main database; the broker may go on meanwhile.
- Only the tables that ``iriai-verify reconcile`` reads (`policies.verify.reconcile.TABLES`), a file for each.
- The private store only where it is asked for: whoever has its file can read every confidential value.
- A new folder, for its owner alone; whatever fails leaves none.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.answers import Result
from broker.errors import UsageError
from broker.settings import Settings
from broker.store import Store, tables
from policies.verify.reconcile import TABLES
from policies.verify.rows import PRIVATE_TABLES, row_line

if TYPE_CHECKING:
    from pathlib import Path

    from broker.store import Session

__all__ = ["audit_rows"]

_CHUNK = 1_000


def audit_rows(directory: Path, out: Path, *, private: bool) -> Result:
    """Writes the tables of the broker of a folder.

    Raises:
        UsageError: There is something of that name.
        SettingsError, StoreError: It is no broker's folder, or its databases do not open.
        OSError: The disk does not take it.
    """
    settings = Settings.load(directory)
    store = Store.open(settings.main_database, settings.private_database, settings.signer_path)
    try:
        counts = _written(store, out, private=private)
    finally:
        store.close()
    more = () if private else ("private      not written: --private adds it, with every confidential value",)
    return Result(
        data={"folder": str(out), "rows": counts},
        text=(
            f"rows         {sum(counts.values())} of {len(counts)} tables in {out}",
            *more,
            "next: iriai-verify reconcile BUNDLE --policy FILE --rows " + str(out),
        ),
    )


def _written(store: Store, out: Path, *, private: bool) -> dict[str, int]:
    try:
        out.mkdir(mode=0o700)
    except FileExistsError as error:
        raise UsageError(
            need="a new folder", found=f"{out} is there already", remedy="name another"
        ) from error
    counts = {}
    try:
        with store.read() as session:
            for name in TABLES:
                if name not in PRIVATE_TABLES:
                    counts[name] = _write(session, name, out)
        if private:
            with store.read_private() as session:
                counts |= {name: _write(session, name, out) for name in sorted(PRIVATE_TABLES)}
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return counts


def _write(session: Session, name: str, out: Path) -> int:
    """One table, by its primary key; how many rows it has."""
    metadata = tables.private if name in PRIVATE_TABLES else tables.main
    table = metadata.tables[name]
    query = select(table).order_by(*table.primary_key.columns)
    count = 0
    with (out / f"{name}.jsonl").open("x", encoding="ascii") as file:
        for row in session.execute(query, execution_options={"yield_per": _CHUNK}).mappings():
            file.write(row_line(dict(row)))
            count += 1
    return count
