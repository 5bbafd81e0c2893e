# SPDX-License-Identifier: Apache-2.0
"""Tables that were edited past the log, against the auditor who lays them beside a bundle.

One run of a real broker gives the bundle and the databases; each lie edits a copy of them.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.commands.audit_rows import audit_rows
from policies.encoding import canonical
from policies.log.entries import check_entry
from policies.log.policy import parse_policy
from policies.verify import Report, verify
from policies.verify.cli import main
from policies.verify.errors import InputError
from policies.verify.reconcile import TABLES, reconcile
from policies.verify.rows import Rows, open_database, open_rows, row_line
from tests.federationsim import running
from tests.watchedsim import WatchedSim

Edit = Callable[[Path], None]
PLANTED: dict[str, tuple[str, Edit, frozenset[str]]] = {}
NAMES = ("broker.db", "private.db", "signer.db", "broker.toml")


@functools.cache
def history() -> tuple[Path, bytes, str]:
    """A folder with the databases after a run, the bundle, and a policy."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-reconcile-"))
    with running() as (pool, go):
        go(pool.run())
        assert pool.check_audit().exit_code in {0, 7}
        bundle = (pool.folder / "bundle.zip").read_bytes()
        for name in NAMES[:3]:
            with (
                closing(sqlite3.connect(pool.folder / "broker" / name)) as old,
                closing(sqlite3.connect(folder / name)) as new,
            ):
                old.backup(new)
        shutil.copy(pool.folder / "broker" / NAMES[3], folder / NAMES[3])
        return folder, bundle, pool.services.policy


@pytest.fixture(scope="module", autouse=True)
def _swept() -> Iterator[None]:
    yield
    shutil.rmtree(history()[0], ignore_errors=True)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The databases, to be edited."""
    folder = tmp_path / "broker"
    shutil.copytree(history()[0], folder)
    return folder


def reconciled(rows: Rows) -> Report:
    _, bundle, policy = history()
    kept: list[Any] = []
    report = verify(bundle, parse_policy(policy), then=kept.append)
    report.counts.clear()
    report.findings.clear()
    reconcile(kept[0], rows, report)
    return report


def of(folder: Path) -> Report:
    with open_database(f"sqlite:{folder}") as rows:
        return reconciled(rows)


def planted(rule: str, *also: str) -> Callable[[Edit], Edit]:
    def register(edit: Edit) -> Edit:
        PLANTED[edit.__name__] = (rule, edit, frozenset(also))
        return edit

    return register


def sql(folder: Path, *statements: str, name: str = "broker.db") -> None:
    """Edits a database as whoever has its file can: without foreign keys, past the triggers."""
    with closing(sqlite3.connect(folder / name)) as db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f'DROP TRIGGER "{trigger}"')
        for statement in statements:
            assert db.execute(statement).rowcount != 0, statement
        db.commit()


# --- a row too many ---


@planted("AUD-110")
def a_release_that_was_never_logged(folder: Path) -> None:
    sql(
        folder,
        "INSERT INTO release SELECT 'sha256:' || hex(zeroblob(32)), 'open', contract, NULL, 1 FROM run",
    )


@planted("AUD-110")
def a_run_that_was_never_logged(folder: Path) -> None:
    sql(
        folder,
        "INSERT INTO run SELECT 'run_bbbbbbbbbbbbbbbb', contract, recipe_digest, recipe_id, state, round, steps,"
        " model_digest, opened_ms, outcome, stop_ms, start, error FROM run",
    )


@planted("AUD-110", "AUD-111")
def a_step_that_was_never_spent(folder: Path) -> None:
    sql(folder, "UPDATE ledger_mirror SET attempt = 9 WHERE rowid = (SELECT min(rowid) FROM ledger_mirror)")


@planted("AUD-110")
def a_vote_that_nobody_cast(folder: Path) -> None:
    sql(folder, "UPDATE vote SET verdict = 'veto' WHERE party = 'kita'")


@planted("AUD-110", "AUD-111")
def an_operator_by_another_key(folder: Path) -> None:
    sql(folder, "UPDATE operator SET key = 'ed25519:' || substr(key, 9, 62) || '00' WHERE name = 'alice'")


# --- an entry too many ---


@planted("AUD-111")
def a_decision_that_is_gone(folder: Path) -> None:
    sql(folder, "DELETE FROM decision WHERE rowid = (SELECT min(rowid) FROM decision)")


@planted("AUD-111")
def a_round_that_is_gone(folder: Path) -> None:
    sql(folder, "DELETE FROM round WHERE round = 2")


@planted("AUD-111")
def an_entry_that_is_gone_from_the_log(folder: Path) -> None:
    sql(folder, "DELETE FROM log_entry WHERE idx = 20")


@planted("AUD-111")
def a_confidential_value_that_is_gone_and_was_not_erased(folder: Path) -> None:
    sql(folder, "DELETE FROM log_private WHERE field = 'at'", name="private.db")


# --- another value ---


@planted("AUD-112")
def a_round_with_another_count(folder: Path) -> None:
    sql(folder, "UPDATE round SET accepted = accepted - 1 WHERE round = 1")


@planted("AUD-112")
def a_round_with_another_model(folder: Path) -> None:
    sql(folder, "UPDATE round SET model = base WHERE round = 1")


@planted("AUD-112")
def a_contract_with_other_words(folder: Path) -> None:
    sql(folder, "UPDATE contract_document SET bytes = CAST(bytes || ' ' AS BLOB)")


@planted("AUD-112")
def a_member_that_is_out_for_the_tables_only(folder: Path) -> None:
    sql(folder, "UPDATE organisation SET state = 'revoked' WHERE legal_name = 'Nord GmbH'")


@planted("AUD-112")
def a_run_that_ended_otherwise(folder: Path) -> None:
    sql(folder, "UPDATE run SET outcome = 'failed'")


@planted("AUD-112")
def steps_that_were_counted_twice(folder: Path) -> None:
    sql(folder, "UPDATE ledger_mirror SET steps = steps + 1 WHERE party = 'kita'")


@planted("AUD-112")
def an_entry_under_another_run(folder: Path) -> None:
    sql(folder, "UPDATE log_entry SET type = 'vote.cast' WHERE idx = 20")


@planted("AUD-112")
def a_confidential_value_that_was_changed(folder: Path) -> None:
    sql(folder, "UPDATE log_private SET value = CAST('1' AS BLOB) WHERE field = 'seq'", name="private.db")


# --- the log itself ---


@planted("AUD-113")
def an_entry_that_was_edited(folder: Path) -> None:
    sql(
        folder, "UPDATE log_entry SET body = CAST(replace(body, '\"v\":1', '\"v\":2') AS BLOB) WHERE idx = 20"
    )


@planted("AUD-113")
def an_envelope_that_was_replaced(folder: Path) -> None:
    sql(folder, "UPDATE log_envelope SET dsse = (SELECT max(dsse) FROM log_envelope) WHERE seq = 0")


@planted("AUD-113")
def a_checkpoint_of_another_history(folder: Path) -> None:
    sql(
        folder,
        "UPDATE log_checkpoint SET root = zeroblob(32) WHERE size = (SELECT min(size) FROM log_checkpoint)",
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_table_that_was_edited_past_the_log_is_found_by_its_rule(name: str, copied: Path) -> None:
    rule, edit, also = PLANTED[name]
    edit(copied)
    report = of(copied)
    assert rule in report.counts, report.lines()
    assert set(report.counts) <= {rule} | also, report.lines()
    assert report.exit_code == 3


def private_rows(sim: WatchedSim, folder: Path, *, erased: bool) -> Report:
    """A watched history beside a private store that keeps what was erased, or not."""
    kept = sim.disclosures if erased else sim.contents().disclosures
    lines = [
        row_line(
            {
                "event_id": check_entry(sim.bodies[one.index]).id,
                "field": one.field,
                "salt": one.salt,
                "value": canonical(one.value),
            }
        )
        for one in kept
    ]
    (folder / "log_private.jsonl").write_text("".join(lines), encoding="ascii")
    found: list[Any] = []
    verify(sim.bundle(), sim.policy, then=found.append)
    report = Report()
    with open_rows(folder) as rows:
        reconcile(found[0], rows, report)
    return report


def test_an_erased_value_that_is_still_in_the_private_store_is_found(tmp_path: Path) -> None:
    sim = WatchedSim().build()
    assert private_rows(sim, tmp_path, erased=False).findings == []
    report = private_rows(sim, tmp_path, erased=True)
    assert set(report.counts) == {"AUD-114"}
    assert report.findings[0].index == sim.names["verdict hanbit 2"]


def test_the_tables_of_an_honest_broker_are_the_log_in_both_forms(copied: Path, tmp_path: Path) -> None:
    report = of(copied)
    assert report.findings == [], report.lines()
    assert not any("was not given" in one for one in report.unchecked)
    told = report.facts["recomputed"][-1]
    assert re.fullmatch(
        rf"AUD-110 to 114: \d{{3,}} rows of {len(TABLES)} tables beside the log: all agree", told
    )
    done = audit_rows(copied, tmp_path / "rows", private=True)
    assert set(done.data["rows"]) == set(TABLES)
    with open_rows(tmp_path / "rows") as rows:
        report = reconciled(rows)
    assert report.findings == [], report.lines()
    assert not any("was not given" in one for one in report.unchecked)


def test_tables_of_another_log_are_one_slip_and_not_a_finding_per_row(copied: Path) -> None:
    sim, kept = WatchedSim().build(), []
    report = verify(sim.bundle(), sim.policy, then=kept.append)
    with open_database(f"sqlite:{copied}") as rows, pytest.raises(InputError) as refused:
        reconcile(kept[0], rows, report)
    assert kept[0].checkpoint.origin in refused.value.need
    assert parse_policy(history()[2]).logs[0].name in refused.value.found


def test_rows_leave_the_private_store_out_and_the_report_says_so(copied: Path, tmp_path: Path) -> None:
    audit_rows(copied, tmp_path / "rows", private=False)
    assert not (tmp_path / "rows" / "log_private.jsonl").exists()
    (tmp_path / "rows" / "vote.jsonl").unlink()
    with open_rows(tmp_path / "rows") as rows:
        report = reconciled(rows)
    assert report.findings == []
    assert "AUD-114: log_private was not given" in report.unchecked
    assert "AUD-110 to 112: vote was not given" in report.unchecked


def test_the_command_reconciles_and_answers_as_verify_does(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bundle, policy = history()
    (tmp_path / "b.zip").write_bytes(bundle)
    (tmp_path / "policy").write_text(policy, encoding="utf-8")
    words = ["reconcile", str(tmp_path / "b.zip"), "--policy", str(tmp_path / "policy"), "--json"]
    assert main([*words, "--db", f"sqlite:{copied}"]) in {0, 7}
    a_round_with_another_count(copied)
    capsys.readouterr()
    assert main([*words, "--db", f"sqlite:{copied / 'broker.db'}"]) == 3
    assert json.loads(capsys.readouterr().out)["data"]["counts"]["AUD-112"] == 1
    assert main([*words, "--db", f"sqlite:{tmp_path / 'none'}"]) == 2
    assert main([*words, "--rows", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    "line", ["{", "[]\n", '{"digest":{"b65":""}}\n', '{"digest":1.5}\n', '{"other":1}\n', '{"digest":"x"}']
)
def test_files_that_hold_no_rows_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "decision.jsonl").write_text(line, encoding="utf-8")
    with open_rows(tmp_path) as rows, pytest.raises(InputError):
        reconciled(rows)


def test_rows_of_another_form_are_findings_and_no_crash(tmp_path: Path) -> None:
    for name, order in TABLES.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({order: 7}) + "\n", encoding="utf-8")
    with open_rows(tmp_path) as rows:
        report = reconciled(rows)
    assert {"AUD-111", "AUD-112"} <= set(report.counts)
    assert report.exit_code == 3


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.db").write_bytes(b"no database" * 100)
    for where in (
        f"sqlite:{tmp_path}",
        "postgresql://somewhere",
        f"sqlite:{tmp_path / 'broker.db'},/nowhere",
    ):
        with pytest.raises(InputError), open_database(where) as rows:
            reconciled(rows)
