# SPDX-License-Identifier: Apache-2.0
"""A dump is a program of SQL: a stranger's or a changed one is executed nowhere, and an older one does not pass as new."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.backup import (
    BackupDamagedError,
    BackupForeignError,
    Plan,
    checking,
    create,
    open_manifest,
    verify,
)
from broker.backup.manifest import MAIN_DUMP, MANIFEST, PRIVATE_DUMP, seal_manifest
from broker.log.signer import FreezeReason
from policies.identity import SigningKey
from tests import pgserver
from tests.backupworld import World, add, approvals, opened, own

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))
NOWHERE = "postgresql://a@/b?host=/nowhere"
"""A server that nobody may ask here: who does gets another refusal than the one that is expected."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A broker and its backup in ``kept``, as yearly ones are: without confidential values."""
    made = World.on_postgres(tmp_path)
    yield made
    pgserver.shared().give_back()


def test_a_dump_that_a_stranger_signed_reaches_no_server(world: World, tmp_path: Path) -> None:
    create(world.settings, tmp_path / "kept", clock=world.clock)
    stranger = SigningKey.from_seed(b"Z" * 32)
    forged = replace(open_manifest(tmp_path / "kept"), broker_key=stranger.public)
    (tmp_path / "kept" / MANIFEST).write_bytes(seal_manifest(forged, stranger))
    for look in (verify, lambda kept, **more: Plan.of(kept, tmp_path / "again", **more)):
        with pytest.raises(BackupForeignError):
            look(tmp_path / "kept", broker_key=own(world.folder), clock=world.clock)


def test_one_bit_in_a_dump_is_found_before_a_server_is_asked(world: World, tmp_path: Path) -> None:
    create(world.settings, tmp_path / "kept", clock=world.clock)
    key = own(world.folder)
    for name in (MAIN_DUMP, PRIVATE_DUMP):
        path = tmp_path / "kept" / name
        good = path.read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(BackupDamagedError, match=name):
                verify(tmp_path / "kept", broker_key=key, clock=world.clock, server=NOWHERE)
        path.write_bytes(good)


def test_a_dump_that_is_changed_after_its_digest_was_compared_is_not_executed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(world.settings, tmp_path / "kept", clock=world.clock)

    def copies_another(_source: Path, target: Path) -> None:
        target.write_bytes(b"DROP DATABASE pool")

    monkeypatch.setattr(checking.shutil, "copyfile", copies_another)
    with pytest.raises(BackupDamagedError, match="a moment ago"):
        verify(tmp_path / "kept", broker_key=own(world.folder), clock=world.clock, server=NOWHERE)


def test_an_older_dump_is_restored_by_two_people_only_and_its_log_is_frozen(
    world: World, tmp_path: Path
) -> None:
    create(world.settings, tmp_path / "kept", clock=world.clock, private=False)
    add(world.folder, world.clock, 6, 7)
    plan = world.plan(tmp_path / "kept", tmp_path / "again")
    plan.apply(approvals(plan, "alice", "bob"))
    world.give_keys(tmp_path / "again")
    shutil.copy(world.folder / "signer.db", tmp_path / "again/signer.db")
    with opened(tmp_path / "again", world.clock) as services:
        assert services.writer.frozen is not None
        assert FreezeReason.ROLLED_BACK.value in services.writer.frozen.found
        assert services.writer.receipts.body(0)
