# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker log``: status, repair and succession by two operators, a new key for the log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from broker import commands
from broker.boot import open_services, policy_file
from broker.commands import log as log_commands
from broker.errors import UsageError
from broker.federation.errors import AlreadyRunningError
from broker.federation.occupying import occupy
from broker.fleet import NoFleet
from broker.keyfiles import make_key, write_private
from broker.log import LogFrozenError, export
from broker.log.errors import LogApprovalError, LogKeyError, LogRepairError
from broker.log.signer import FreezeReason
from broker.settings import Settings
from policies.encoding import digest
from policies.identity import key_text
from policies.limits import LOG_KEY_OVERLAP_DAYS
from policies.log.checkpoint import open_checkpoint, parse_note
from policies.log.entries import EntryType, check_entry
from policies.log.vkeys import VerifierKey
from tests.brokersim import HandClock, SeedEntropy, operator_key
from tests.logsim import console, rotate_log_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.services import Services

URL = "https://broker.example:8443"
ORIGIN, NEXT = "broker.example/log/a", "broker.example/log/b"
DAY_MS = 86_400_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A broker's folder with two operators and a few entries; ``tmp_path`` has their key files."""
    for name in ("alice", "bob"):
        write_private(tmp_path / f"{name}.key", operator_key(name).to_pem())
    operators = [f"{name}={key_text(operator_key(name).public)}" for name in ("alice", "bob")]
    commands.init(tmp_path / "b", URL, operators, listen_host=None, origin=ORIGIN, tls=None)
    add(tmp_path / "b", 1, 2, 3)
    return tmp_path / "b"


@contextmanager
def opened(folder: Path, clock: Any = None) -> Iterator[Services]:
    from broker.clock import SystemClock

    services = open_services(
        folder, clock=clock or SystemClock(), entropy=SeedEntropy(), engine=NoFleet(), threaded=False
    )
    try:
        yield services
    finally:
        services.close()


def add(folder: Path, *numbers: int) -> None:
    with opened(folder) as services:
        for number in numbers:
            services.writer.submit(lambda _session, tx, number=number: tx.add(console(number))).result()


def entries(folder: Path) -> list[Any]:
    with opened(folder) as services:
        receipts = services.writer.receipts
        return [check_entry(receipts.body(index)) for index in range(receipts.head().size)]


def bundle(folder: Path) -> Path:
    path = folder.parent / "kept.zip"
    with opened(folder) as services:
        text = policy_file(folder).read_text()
        export(services.store, services.writer, path, policy=text, software="0.1.0")
    return path


def audited(folder: Path) -> int:
    """Exit code of the auditor's program over a fresh bundle, under the broker's own policy."""
    line = ["verify", str(bundle(folder)), "--policy", str(policy_file(folder)), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "policies.verify", *line],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 3}, done.stderr
    return done.returncode


def signed(folder: Path, document: str | None, *names: str) -> list[Path]:
    """Approval files of these operators, made by the command."""
    assert document is not None
    shown = folder.parent / "document.json"
    shown.write_text(document + "\n")
    found = []
    for name in names:
        made = log_commands.log_approve(shown, folder.parent / f"{name}.key")
        found.append(folder.parent / f"{name}.approval")
        found[-1].write_text(made.plain_output or "")
    return found


def frozen(folder: Path) -> Path:
    """The folder after its database was restored; gives a bundle from before."""
    shutil.copytree(folder, folder.parent / "backup")
    add(folder, 4, 5)
    kept = bundle(folder)
    shutil.copy(folder.parent / "backup/broker.db", folder / "broker.db")
    return kept


def test_status_of_an_open_log_and_of_a_frozen_one(folder: Path) -> None:
    found = log_commands.log_status(folder)
    assert (found.exit_code, found.data["state"], found.data["origin"]) == (0, "open", ORIGIN)
    assert found.data["entries"] == found.data["signed_size"] == 8
    frozen(folder)
    with opened(folder) as services:
        assert services.writer.frozen is not None
    found = log_commands.log_status(folder)
    assert (found.exit_code, found.data["state"], found.data["reason"]) == (7, "frozen", "rolled-back")
    assert (found.data["entries"], found.data["signed_size"]) == (8, 10)


class TestRepair:
    """A restored database, a bundle, two people."""

    def test_it_takes_two_operators_and_then_goes_on(self, folder: Path) -> None:
        kept = frozen(folder)
        with opened(folder):
            pass
        asked = log_commands.log_repair(folder, kept, [])
        assert (asked.exit_code, asked.data["from"], asked.data["to"]) == (7, 8, 10)
        assert asked.data["restored"] == {"console.action": 2}
        assert any("cannot be" in line for line in asked.text)
        with pytest.raises(LogApprovalError):
            log_commands.log_repair(folder, kept, signed(folder, asked.plain_output, "alice"))
        done = log_commands.log_repair(folder, kept, signed(folder, asked.plain_output, "alice", "bob"))
        assert (done.exit_code, done.data["approved_by"], done.data["size"]) == (0, ["alice", "bob"], 12)
        who = [(one.pub["operator"], one.pub["action"]) for one in entries(folder)[-2:]]
        assert who == [("alice", "log.repair"), ("bob", "log.repair")]
        with pytest.raises(LogRepairError, match="a frozen log"):
            log_commands.log_repair(folder, kept, [])

    def test_operators_of_a_lost_database_are_known_from_the_log(self, folder: Path) -> None:
        kept = bundle(folder)
        (folder / "broker.db").unlink()
        with opened(folder) as services:
            assert services.writer.frozen is not None
        make_key(folder.parent / "eve.key", SeedEntropy())
        asked = log_commands.log_repair(folder, kept, [])
        with pytest.raises(LogApprovalError, match="a key of an operator"):
            log_commands.log_repair(folder, kept, signed(folder, asked.plain_output, "alice", "eve"))
        done = log_commands.log_repair(folder, kept, signed(folder, asked.plain_output, "alice", "bob"))
        assert [name.startswith("key-") for name in done.data["approved_by"]] == [True, True]


class TestSuccession:
    """A log ends, in good order or frozen, and another one names it."""

    def succeed(self, folder: Path, **changes: Any) -> tuple[Any, Any]:
        options: dict[str, Any] = {"cause": None, "databases": None} | changes
        asked = log_commands.log_succeed(folder, NEXT, approvals=[], **options)
        approvals = signed(folder, asked.plain_output, "alice", "bob")
        return asked, log_commands.log_succeed(folder, NEXT, approvals=approvals, **options)

    def test_an_open_log_ends_in_good_order(self, folder: Path) -> None:
        before = log_commands.log_status(folder).data
        asked, done = self.succeed(folder, cause="key-compromised")
        assert asked.exit_code == 7
        named = done.data["predecessor"]
        assert (named["origin"], named["size"], named["cause"]) == (ORIGIN, 11, "key-compromised")
        after = log_commands.log_status(folder).data
        assert (after["origin"], after["state"], after["keys"]) == (NEXT, "open", [done.data["log_vkey"]])
        assert after["keys"] != before["keys"]  # a key of its own
        first, *rest = entries(folder)
        assert (first.type, first.pub["predecessor"]) == (EntryType.LOG_GENESIS, named)
        assert sum(one.type == EntryType.KEY_ADDED and one.pub["role"] == "operator" for one in rest) == 2
        old = log_commands.log_status(self.old(folder))
        assert (old.data["reason"], old.data["signed_size"]) == ("succeeded", 11)
        assert entries(self.old(folder))[-1].pub == {"reason": "key-compromised", "successor": NEXT}
        assert not (folder / "succession.json").exists()
        add(folder, 50)
        assert [audited(folder), audited(self.old(folder))] == [0, 0]

    def old(self, folder: Path) -> Path:
        """The old log as its files lie aside, as a folder of its own."""
        aside = folder.parent / "old"
        if not aside.exists():
            slug = ORIGIN.replace("/", "_")
            shutil.copytree(folder, aside)
            for path in [*aside.glob(f"{slug}.*"), *aside.glob(f"keys/{slug}.*")]:
                path.replace(path.with_name(path.name.removeprefix(f"{slug}.")))
            text = (aside / "broker.toml").read_text().replace(NEXT, ORIGIN)
            (aside / "broker.toml").write_text(text)
        return aside

    def test_a_frozen_log_is_named_as_it_was_signed_last(self, folder: Path) -> None:
        frozen(folder)
        with opened(folder):
            pass
        _, done = self.succeed(folder)
        assert done.data["predecessor"]["size"] == 10
        assert done.data["predecessor"]["cause"] == "rolled-back"

    def test_a_log_that_forgot_its_end_is_named_by_the_note_that_proved_it(self, folder: Path) -> None:
        shutil.copytree(folder, folder.parent / "backup")
        add(folder, 4, 5)
        with opened(folder) as services:
            note = services.writer.head().note
        for name in ("broker.db", "private.db", "signer.db"):
            shutil.copy(folder.parent / "backup" / name, folder / name)
        with opened(folder) as services:
            assert services.writer.amnesia(note)
        _, done = self.succeed(folder)
        named = done.data["predecessor"]
        assert (named["size"], named["cause"]) == (10, FreezeReason.AMNESIA.value)
        assert named["note"] == digest(note.encode())

    def test_it_takes_two_operators_and_another_name(self, folder: Path) -> None:
        asked = log_commands.log_succeed(folder, NEXT, cause=None, approvals=[], databases=None)
        one = signed(folder, asked.plain_output, "alice")
        for approvals in (one, [*one, *one]):
            with pytest.raises(LogApprovalError):
                log_commands.log_succeed(folder, NEXT, cause=None, approvals=approvals, databases=None)
        for name in (ORIGIN, "no name", ""):
            with pytest.raises(LogRepairError):
                log_commands.log_succeed(folder, name, cause=None, approvals=[], databases=None)
        with pytest.raises(LogRepairError):
            log_commands.log_succeed(folder, NEXT, cause="No Code!", approvals=[], databases=None)
        assert log_commands.log_status(folder).data["state"] == "open"

    @pytest.mark.parametrize("after", ["_put_aside", "initialise"])
    def test_one_that_was_interrupted_goes_on_when_it_is_repeated(
        self, folder: Path, after: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = log_commands.log_succeed(folder, NEXT, cause=None, approvals=[], databases=None)
        approvals = signed(folder, asked.plain_output, "alice", "bob")
        whole = getattr(log_commands, after)

        def dies(*args: Any, **kwargs: Any) -> None:
            whole(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(log_commands, after, dies)
        with pytest.raises(KeyboardInterrupt):
            log_commands.log_succeed(folder, NEXT, cause=None, approvals=approvals, databases=None)
        monkeypatch.setattr(log_commands, after, whole)
        with pytest.raises(UsageError):
            log_commands.log_succeed(folder, NEXT + "x", cause=None, approvals=[], databases=None)
        done = log_commands.log_succeed(folder, NEXT, cause=None, approvals=[], databases=None)
        assert done.data["predecessor"]["size"] == 11
        assert [one.type for one in entries(folder)].count(EntryType.LOG_GENESIS) == 1


class TestRotation:
    """Another key for the same log."""

    def notes(self, folder: Path, clock: Any, number: int) -> str:
        with opened(folder, clock) as services:
            services.writer.submit(lambda _session, tx: tx.add(console(number))).result()
            return services.writer.head().note

    def test_both_keys_sign_for_thirty_days_and_then_the_new_one_alone(self, folder: Path) -> None:
        from broker.clock import SystemClock

        old = VerifierKey.parse(log_commands.log_status(folder).data["keys"][0])
        before = policy_file(folder).read_text()
        done = rotate_log_key(folder)
        new = VerifierKey.parse(done["log_vkey"])
        rotated, activated = entries(folder)[-2:]
        assert rotated.pub == {"old": digest(old.public_key), "new": digest(new.public_key), "role": "log"}
        text = policy_file(folder).read_text()
        assert [old.text() in text, new.text() in text] == [True, True]
        assert activated.pub["digest"] == digest(text.encode())
        assert activated.pub["previous"] == digest(before.encode())
        assert audited(folder) == 0
        now, edge = SystemClock().now_ms(), LOG_KEY_OVERLAP_DAYS * DAY_MS
        for at, number, keys in (
            (now, 50, {old, new}),
            (now + edge - DAY_MS, 51, {old, new}),
            (now + edge + DAY_MS, 52, {new}),
        ):
            note = self.notes(folder, HandClock(at), number)
            assert {hash4 for _, hash4, _ in parse_note(note).signatures} == {key.hash4 for key in keys}
            for key in keys:
                open_checkpoint(note, [key])

    def test_it_can_be_done_again(self, folder: Path) -> None:
        first = rotate_log_key(folder)
        second = rotate_log_key(folder)
        assert second["old_vkey"] == first["log_vkey"]
        with opened(folder) as services:
            assert [key.text() for key in services.writer.vkeys][:2] == [
                second["log_vkey"],
                first["log_vkey"],
            ]
            assert services.keys.log_vkey == second["log_vkey"]
            assert services.witnessing.keys.text == policy_file(folder).read_text()

    def test_a_note_of_the_old_key_still_counts_as_evidence(self, folder: Path) -> None:
        with opened(folder) as services:
            note = services.writer.head().note
        rotate_log_key(folder)
        with opened(folder, HandClock(4_000_000_000_000)) as services:
            assert not services.writer.amnesia(note)

    def test_a_missing_key_file_opens_nothing(self, folder: Path) -> None:
        rotate_log_key(folder)
        (folder / "keys/log-2.key").unlink()
        with pytest.raises(LogKeyError), opened(folder):
            pass

    def test_a_key_file_without_an_entry_signs_nothing_and_is_taken_up_by_repeating(
        self, folder: Path
    ) -> None:
        made = make_key(folder / "keys/log-2.key", SeedEntropy())  # a crash came after it
        with opened(folder) as services:
            assert len(services.writer.vkeys) == 1
        done = rotate_log_key(folder)
        assert VerifierKey.parse(done["log_vkey"]).public_key == made.public

    def test_a_frozen_log_gets_no_new_key(self, folder: Path) -> None:
        frozen(folder)
        with pytest.raises(LogFrozenError):
            log_commands.log_rotate_key(folder)


def test_the_command_line_reaches_all_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from broker.cli import app

    for line, code in (
        (["log", "status", "--dir", str(folder), "--json"], 0),
        (["log", "succeed", NEXT, "--dir", str(folder), "--json"], 7),
        (["log", "repair", "--dir", str(folder), "--from-bundle", str(bundle(folder)), "--json"], 3),
        (["log", "rotate-key", "--dir", str(folder), "--json"], 7),
        (["key", "rotate", "--dir", str(folder), "--json"], 7),
    ):
        with pytest.raises(SystemExit) as ended:
            app(line)
        assert ended.value.code == code
        said = json.loads(capsys.readouterr().out)
        assert said["status"] == ("error" if code == 3 else "ok")
    assert Settings.load(folder).origin == ORIGIN


@pytest.mark.parametrize("command", ["repair", "succeed", "rotate-key"])
def test_beside_a_broker_that_serves_nothing_of_the_log_is_changed(folder: Path, command: str) -> None:
    before = digest((folder / "broker.db").read_bytes())
    todo = {
        "repair": lambda: log_commands.log_repair(folder, folder / "kept.zip", []),
        "succeed": lambda: log_commands.log_succeed(
            folder, NEXT, cause="moved", approvals=[], databases=None
        ),
        "rotate-key": lambda: log_commands.log_rotate_key(folder),
    }[command]
    with occupy(Settings.load(folder).fleet), pytest.raises(AlreadyRunningError) as refused:
        todo()
    assert "stop the broker first" in refused.value.remedy
    with occupy(Settings.load(folder).fleet), pytest.raises(AlreadyRunningError) as twice:
        occupy(Settings.load(folder).fleet)
    assert twice.value.found == f"another iriai-broker serves {folder} already, process {os.getpid()}"
    assert digest((folder / "broker.db").read_bytes()) == before
    assert len(list((folder / "keys").glob("log*.key"))) == 1
