# SPDX-License-Identifier: Apache-2.0
"""A broker on PostgreSQL with two operators and something in every folder, for tests of its backups."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from broker.backup import Plan, Targets, open_manifest
from broker.backup.making import held_of
from broker.backup.manifest import MANIFEST, seal_manifest
from broker.boot import initialise, open_services
from broker.fleet import NoFleet
from broker.keyfiles import load_key
from broker.log.approvals import approve
from broker.settings import Settings
from tests import pgserver
from tests.brokersim import URL, HandClock, SeedEntropy, operator_key
from tests.logsim import console
from tests.pgserver import BROKER, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.services import Services

_MADE = iter(range(1_000))


def trials() -> str:
    """Where trials are made, with the role that may make databases."""
    return pgserver.shared().url("postgres", "postgres")


def trial_databases() -> list[str]:
    """Those that a trial left behind."""
    found = pgserver.shared().superuser.execute(
        "SELECT datname FROM pg_database WHERE datname LIKE 'iriai_trial%'"
    )
    return [name for (name,) in found.fetchall()]


@contextmanager
def opened(folder: Path, clock: HandClock) -> Iterator[Services]:
    """The broker of a folder, not serving."""
    services = open_services(folder, clock=clock, entropy=SeedEntropy(), engine=NoFleet(), threaded=False)
    try:
        yield services
    finally:
        services.close()


def add(folder: Path, clock: HandClock, *numbers: int) -> None:
    """Adds entries to its log."""
    with opened(folder, clock) as services:
        for number in numbers:
            services.writer.submit(lambda _session, tx, number=number: tx.add(console(number))).result()


def own(folder: Path) -> bytes:
    """The broker's public key, as its people know it from another hand than the backup."""
    return load_key(folder / "keys/broker.key").public


def approvals(plan: Plan, *names: str) -> list[bytes]:
    """What these operators sign."""
    return [approve(operator_key(name), plan.subject()) for name in names]


@dataclass(frozen=True)
class World:
    """The broker, its settings and the time."""

    folder: Path
    clock: HandClock
    settings: Settings

    @classmethod
    def on_postgres(cls, place: Path) -> World:
        """A broker with five entries more than the first ones, a model and a checkpoint."""
        folder, clock = place / "broker", HandClock()
        main, private = pgserver.shared().databases()
        initialise(
            folder,
            url=URL,
            operators={name: operator_key(name).public for name in ("alice", "bob")},
            clock=clock,
            entropy=SeedEntropy(),
            origin="pool.example/log/a",
            database=main,
            private_database=private,
        )
        add(folder, clock, 1, 2, 3, 4, 5)
        (folder / "models" / f"{'0' * 64}.f32").write_bytes(b"weights")
        (folder / "runs/run_a").mkdir(parents=True)
        (folder / "runs/run_a/round-000001.npz").write_bytes(b"checkpoint")
        return cls(folder, clock, Settings.load(folder))

    def plan(self, kept: Path, into: Path, targets: Targets | None = None) -> Plan:
        """A restore into two new databases, unless others are named."""
        return Plan.of(
            kept,
            into,
            broker_key=own(self.folder),
            clock=self.clock,
            targets=self.empty() if targets is None else targets,
        )

    def empty(self) -> Targets:
        """Two empty databases, as an operator's guide makes them."""
        server, number = pgserver.shared(), next(_MADE)
        owner = server.empty(f"again_{number}")
        server.empty(f"again_private_{number}", BROKER)
        return Targets(
            main=owner.replace(OWNER, BROKER),
            private=server.url(f"again_private_{number}"),
            owner=owner,
            server=trials(),
        )

    def give_keys(self, into: Path) -> None:
        """Puts the keys back by hand."""
        shutil.copytree(self.folder / "keys", into / "keys", dirs_exist_ok=True)

    def sealed_again(self, kept: Path) -> None:
        """What the broker itself would sign of the files as they are now."""
        manifest = open_manifest(kept)
        files = tuple(held_of(kept, kept / one.path) for one in manifest.files)
        key = load_key(self.folder / "keys/broker.key")
        (kept / MANIFEST).write_bytes(seal_manifest(replace(manifest, files=files), key))
