# SPDX-License-Identifier: Apache-2.0
"""Backups: made while the broker serves, found damaged by any bit, restored by two people into an empty folder."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.backup import (
    BackupDamagedError,
    BackupFolderError,
    BackupForeignError,
    Plan,
    create,
    open_manifest,
    record,
    verify,
)
from broker.backup.manifest import MAIN, MANIFEST, PRIVATE, seal_manifest
from broker.boot import initialise
from broker.keyfiles import load_key
from broker.log.approvals import approve
from broker.log.errors import LogApprovalError
from broker.log.signer import FreezeReason
from broker.membership.operators import revoke_operator_key
from broker.settings import Settings
from policies.identity import SigningKey
from policies.limits import BACKUP_PRIVATE_DAYS
from tests.backupworld import add, opened
from tests.brokersim import URL, HandClock, SeedEntropy, operator_key
from tests.logsim import console

if TYPE_CHECKING:
    from pathlib import Path


DAY_MS = 86_400_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def folder(tmp_path: Path, clock: HandClock) -> Path:
    """A broker with two operators, five more entries, a model, a checkpoint and what belongs in no backup."""
    made = tmp_path / "broker"
    operators = {name: operator_key(name).public for name in ("alice", "bob")}
    initialise(
        made, url=URL, operators=operators, clock=clock, entropy=SeedEntropy(), origin="pool.example/log/a"
    )
    add(made, clock, 1, 2, 3, 4, 5)
    (made / "models" / f"{'0' * 64}.f32").write_bytes(b"weights")
    (made / "runs/run_a/secagg/vectors").mkdir(parents=True)
    (made / "runs/run_a/secagg/vectors/masked").write_bytes(b"masked")
    (made / "runs/run_a/round-000001.npz").write_bytes(b"checkpoint")
    return made


def size(folder: Path, clock: HandClock) -> int:
    with opened(folder, clock) as services:
        return services.writer.head().size


def own(folder: Path) -> bytes:
    """The broker's public key, as its people know it from another hand than the backup."""
    return load_key(folder / "keys/broker.key").public


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def approvals(plan: Plan, *names: str) -> list[bytes]:
    return [approve(operator_key(name), plan.subject()) for name in names]


def test_a_backup_made_under_an_open_broker_comes_back_as_it_was(tmp_path, folder, clock):
    settings = Settings.load(folder)
    with opened(folder, clock) as services:
        made = create(settings, tmp_path / "kept", clock=clock)
        services.writer.submit(lambda _session, tx: tx.add(console(6))).result()
    found = verify(tmp_path / "kept", broker_key=own(folder), clock=clock, settings=settings)
    assert (found.manifest.size, found.manifest.origin) == (made.size, "pool.example/log/a")
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    assert plan.apply(approvals(plan, "alice", "bob")) == ("alice", "bob")
    shutil.copytree(folder / "keys", tmp_path / "again/keys", dirs_exist_ok=True)
    assert (tmp_path / "again/models" / f"{'0' * 64}.f32").read_bytes() == b"weights"
    assert (tmp_path / "again/runs/run_a/round-000001.npz").read_bytes() == b"checkpoint"
    assert json.loads((tmp_path / "again/restored.json").read_bytes())["backup"] == made.digest
    restored = Settings.load(tmp_path / "again")
    assert (restored.public_url, restored.origin, restored.dir) == (
        settings.public_url,
        settings.origin,
        tmp_path / "again",
    )


def test_a_restored_log_that_is_older_than_the_signers_memory_is_frozen_and_reads(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    add(folder, clock, 6, 7)
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    plan.apply(approvals(plan, "alice", "bob"))
    shutil.copytree(folder / "keys", tmp_path / "again/keys", dirs_exist_ok=True)
    shutil.copy(folder / "signer.db", tmp_path / "again/signer.db")
    with opened(tmp_path / "again", clock) as services:
        assert services.writer.frozen is not None
        assert FreezeReason.ROLLED_BACK.value in services.writer.frozen.found
        assert services.writer.receipts.body(0)


def test_with_the_signers_newest_memory_an_up_to_date_backup_goes_on(tmp_path, folder, clock):
    made = create(Settings.load(folder), tmp_path / "kept", clock=clock)
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    plan.apply(approvals(plan, "alice", "bob"))
    shutil.copytree(folder / "keys", tmp_path / "again/keys", dirs_exist_ok=True)
    shutil.copy(folder / "signer.db", tmp_path / "again/signer.db")
    add(tmp_path / "again", clock, 8)
    assert size(tmp_path / "again", clock) == made.size + 1


def test_no_key_no_signers_memory_and_no_masked_vector_is_in_a_backup(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    names = {path.relative_to(tmp_path / "kept").as_posix() for path in files(tmp_path / "kept")}
    assert {MAIN, PRIVATE, MANIFEST, "broker.toml", "tls.pem", "policy.txt"} <= names
    assert not [name for name in names if "key" in name or "signer" in name or "secagg" in name]
    held = b"".join(path.read_bytes() for path in files(tmp_path / "kept"))
    assert b"PRIVATE KEY" not in held
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path / "kept"))


def test_one_bit_in_any_file_is_found_and_the_file_is_named(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    for path in files(tmp_path / "kept"):
        good = path.read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(BackupDamagedError) as refused:
                verify(tmp_path / "kept", broker_key=own(folder), clock=clock)
            assert path.name in refused.value.need
        path.write_bytes(good)
    assert verify(tmp_path / "kept", broker_key=own(folder), clock=clock).private


@pytest.mark.parametrize("planted", ["missing", "foreign", "link"])
def test_a_file_too_many_too_few_or_elsewhere_is_found(tmp_path, folder, clock, planted):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    path = tmp_path / "kept/broker.toml"
    if planted == "foreign":
        (tmp_path / "kept/models/more").write_bytes(b"x")
    else:
        path.rename(tmp_path / "elsewhere")
    if planted == "link":
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupDamagedError):
        verify(tmp_path / "kept", broker_key=own(folder), clock=clock)


def damaged(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "broker.db")) as connection:
        for name in ("log_entry", "log_envelope"):
            for (trigger,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (name,)
            ).fetchall():
                connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entry SET body = CAST('{}' AS BLOB) WHERE idx = 2",
        "UPDATE log_entry SET leaf_hash = zeroblob(32) WHERE idx = 2",
        "DELETE FROM log_entry WHERE idx = (SELECT max(idx) FROM log_entry)",
        "UPDATE log_head SET size = size - 1",
        "UPDATE log_tile SET data = zeroblob(length(data))",
        "UPDATE log_checkpoint SET root = zeroblob(32), note = replace(note, '1', '2')",
    ],
)
def test_a_log_that_is_damaged_already_is_not_taken_for_a_backup(tmp_path, folder, clock, statement):
    damaged(folder, statement)
    with pytest.raises(BackupDamagedError):
        create(Settings.load(folder), tmp_path / "kept", clock=clock)
    assert not (tmp_path / "kept").exists()
    assert record(Settings.load(folder)).last is None


def test_confidential_values_have_a_short_life_of_their_own(tmp_path, folder, clock):
    settings = Settings.load(folder)
    create(settings, tmp_path / "old", clock=clock)
    clock.ms += (BACKUP_PRIVATE_DAYS + 1) * DAY_MS
    overdue = verify(tmp_path / "old", broker_key=own(folder), clock=clock, settings=settings)
    assert (overdue.private, overdue.overdue) == (True, True)
    create(settings, tmp_path / "new", clock=clock, private=False)
    assert not (tmp_path / "old" / PRIVATE).exists()
    found = verify(tmp_path / "old", broker_key=own(folder), clock=clock, settings=settings)
    assert (found.private, found.overdue) == (False, False)
    assert open_manifest(tmp_path / "new").private_until_ms is None
    (tmp_path / "old" / MAIN).unlink()
    with pytest.raises(BackupDamagedError, match=r"main\.db"):
        verify(tmp_path / "old", broker_key=own(folder), clock=clock)


def test_confidential_values_that_are_gone_too_early_are_a_damage(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    (tmp_path / "kept" / PRIVATE).unlink()
    with pytest.raises(BackupDamagedError, match=r"private\.db"):
        verify(tmp_path / "kept", broker_key=own(folder), clock=clock)


def test_a_file_that_goes_after_the_backup_was_verified_is_a_damage(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    signed = approvals(plan, "alice", "bob")
    for name in [one.path for one in plan.found.manifest.files]:
        (tmp_path / "kept" / name).rename(tmp_path / "aside")
        with pytest.raises(BackupDamagedError, match=name.replace(".", r"\.")):
            plan.apply(signed)
        (tmp_path / "aside").rename(tmp_path / "kept" / name)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["broker", "kept"]
    assert plan.apply(signed) == ("alice", "bob")


def test_confidential_values_that_were_gone_after_their_time_are_no_damage(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    clock.ms += (BACKUP_PRIVATE_DAYS + 1) * DAY_MS
    (tmp_path / "kept" / PRIVATE).rename(tmp_path / "aside")
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    assert not plan.found.private
    (tmp_path / "aside").rename(
        tmp_path / "kept" / PRIVATE
    )  # back after it was verified: not restored either
    plan.apply(approvals(plan, "alice", "bob"))
    assert (tmp_path / "again/broker.db").is_file()
    assert not (tmp_path / "again" / PRIVATE).exists()


def test_what_was_made_and_tested_is_remembered(tmp_path, folder, clock):
    settings = Settings.load(folder)
    assert record(settings).last is None
    create(settings, tmp_path / "kept", clock=clock)
    clock.ms += DAY_MS
    facts = record(settings)
    assert facts.last is not None
    assert (facts.last.path, facts.last.at_ms, facts.tested) == (
        str(tmp_path / "kept"),
        clock.ms - DAY_MS,
        None,
    )
    verify(tmp_path / "kept", broker_key=own(folder), clock=clock)
    assert record(settings).tested is None
    verify(tmp_path / "kept", broker_key=own(folder), clock=clock, settings=settings)
    tested = record(settings).tested
    assert tested is not None
    assert tested.at_ms == clock.ms
    (folder / "backups.json").write_bytes(b'{"backups": 3')
    assert record(settings).problem is not None


@pytest.mark.parametrize("who", [(), ("alice",), ("alice", "alice"), ("alice", "mallory")])
def test_a_restore_takes_two_different_operators(tmp_path, folder, clock, who):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    with pytest.raises(LogApprovalError):
        plan.apply(approvals(plan, *who))
    assert not (tmp_path / "again").exists()


def test_an_approval_is_for_one_backup_and_one_folder(tmp_path, folder, clock):
    settings = Settings.load(folder)
    create(settings, tmp_path / "one", clock=clock)
    clock.ms += 1_000
    create(settings, tmp_path / "two", clock=clock)
    signed = approvals(
        Plan.of(tmp_path / "one", tmp_path / "again", broker_key=own(folder), clock=clock), "alice", "bob"
    )
    for kept, into in (("two", "again"), ("one", "other")):
        with pytest.raises(LogApprovalError):
            Plan.of(tmp_path / kept, tmp_path / into, broker_key=own(folder), clock=clock).apply(signed)


def test_nothing_that_is_there_is_overwritten(tmp_path, folder, clock):
    settings = Settings.load(folder)
    create(settings, tmp_path / "kept", clock=clock)
    with pytest.raises(BackupFolderError):
        create(settings, tmp_path / "kept", clock=clock)
    with pytest.raises(BackupFolderError):
        Plan.of(tmp_path / "kept", folder, broker_key=own(folder), clock=clock)
    (tmp_path / "again").mkdir()
    plan = Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock)
    signed = approvals(plan, "alice", "bob")
    (tmp_path / "again/late").touch()
    with pytest.raises(BackupFolderError):
        plan.apply(signed)
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["late"]
    with pytest.raises(BackupFolderError):
        verify(tmp_path / "again", broker_key=own(folder), clock=clock)


def test_the_backup_of_another_broker_is_refused(tmp_path, folder, clock):
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    initialise(tmp_path / "other", url=URL, operators={}, clock=clock, entropy=SeedEntropy(b"other"))
    with pytest.raises(BackupForeignError):
        verify(tmp_path / "kept", broker_key=own(tmp_path / "other"), clock=clock)


def test_a_backup_that_a_stranger_signed_again_is_refused_before_any_approval(tmp_path, folder, clock):
    """Everything in it holds, and its operators would approve: they are the stranger's own."""
    create(Settings.load(folder), tmp_path / "kept", clock=clock)
    stranger = SigningKey.from_seed(b"Z" * 32)
    forged = replace(open_manifest(tmp_path / "kept"), broker_key=stranger.public)
    (tmp_path / "kept" / MANIFEST).write_bytes(seal_manifest(forged, stranger))
    assert verify(tmp_path / "kept", broker_key=stranger.public, clock=clock).operators
    for look in (verify, lambda kept, **more: Plan.of(kept, tmp_path / "again", **more)):
        with pytest.raises(BackupForeignError):
            look(tmp_path / "kept", broker_key=own(folder), clock=clock)


def test_an_operator_who_left_since_the_backup_approves_no_restore_where_the_folder_is_there(
    tmp_path, folder, clock
):
    settings = Settings.load(folder)
    create(settings, tmp_path / "kept", clock=clock)
    with opened(folder, clock) as services:
        services.writer.submit(
            lambda session, tx: revoke_operator_key(session, tx, name="bob", reason="left")
        ).result()
    plan = Plan.of(
        tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock, present=settings
    )
    with pytest.raises(LogApprovalError):
        plan.apply(approvals(plan, "alice", "bob"))
    (folder / "broker.db").unlink()
    with pytest.raises(BackupFolderError):
        Plan.of(tmp_path / "kept", tmp_path / "again", broker_key=own(folder), clock=clock, present=settings)


def test_a_disk_that_takes_no_more_leaves_no_half_backup(tmp_path, folder, clock, monkeypatch):
    def full(*_args: Any, **_named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("broker.backup.making.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        create(Settings.load(folder), tmp_path / "kept", clock=clock)
    assert not (tmp_path / "kept").exists()
