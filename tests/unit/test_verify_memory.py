# SPDX-License-Identifier: Apache-2.0
"""The verifier on histories of thousands of entries: memory, what it reads and checks, several processes.

Counts and ratios; nothing here is timed.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from policies.log.bundle import unpack
from policies.verify import history, keyring, reading, run, scan, spill, store, verify
from policies.verify.keyring import Keyring
from policies.verify.report import Report
from policies.verify.source import Source
from tests.auditload import Made, write_load
from tests.auditsim import repacked

KEPT = (
    (store, "VALUES_KEPT", 64),
    (store, "TILES_KEPT", 2),
    (history, "_PLACES", 16),
    (keyring, "_PLACES", 16),
    (spill, "_ROOTS", 16),
)
ROUNDS = 6  # of a run: what a run holds at a time is small beside the rest


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    path = tmp_path_factory.mktemp("load") / "short.zip"
    return path, write_load(path, entries=700, rounds=ROUNDS)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    path = tmp_path_factory.mktemp("load") / "long.zip"
    return path, write_load(path, entries=2_800, rounds=ROUNDS)


def audited(given: tuple[Path, Made], jobs: int = 1) -> Report:
    path, made = given
    report = verify(path, made.policy, jobs=jobs)
    assert (report.exit_code, report.findings, report.size) == (0, [], made.size)
    return report


def peak(given: tuple[Path, Made]) -> int:
    """Bytes that an audit holds at most, above what stands there before."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(50)  # what waits for the collector is not held
    tracemalloc.start()
    try:
        audited(given)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*before)


@pytest.mark.slow
def test_four_times_the_entries_take_no_more_memory(
    short: tuple[Path, Made], long: tuple[Path, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is kept at hand has bounds, which the short history would not reach
    for where, name, bound in KEPT:
        monkeypatch.setattr(where, name, bound)
    audited(short)  # modules and tables that stay
    first, second = peak(short), peak(long)
    assert second < 1.35 * first, (first, second)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is something to share, also of a short history."""
    monkeypatch.setattr(reading, "TILES_PER_PART", 2)
    monkeypatch.setattr(run, "_BATCH", 300)


@pytest.mark.usefixtures("small_parts")
def test_several_processes_find_what_one_finds(long: tuple[Path, Made]) -> None:
    alone, shared = audited(long).to_json(), audited(long, jobs=3).to_json()
    assert alone == shared
    assert alone["facts"]["decisions"]["replayed"] > 700


@pytest.mark.usefixtures("small_parts")
def test_findings_come_in_the_same_order_from_several_processes(long: tuple[Path, Made]) -> None:
    path, made = long
    files = unpack(path.read_bytes())
    for folder in ("decisions", "disclosures", "envelopes"):
        for tile in (1, 4, 7):
            name = f"{folder}/{tile:03d}.jsonl"
            files[name] = files[name].split(b"\n", 1)[1]
    changed = repacked(files)
    one, three = (verify(changed, made.policy, jobs=jobs) for jobs in (1, 3))
    assert one.to_json() == three.to_json()
    assert {"AUD-040", "AUD-059", "AUD-082"} <= set(one.counts)


def test_each_byte_of_a_bundle_is_read_a_few_times_at_most(
    long: tuple[Path, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = long
    read = Counter[str]()
    real = Source.read

    def counted(self: Source, offset: int, length: int) -> bytes:
        data = real(self, offset, length)
        read["bytes"] += len(data)
        return data

    monkeypatch.setattr(Source, "read", counted)
    audited(long)
    assert read["bytes"] < 6 * path.stat().st_size


def test_each_body_is_parsed_strictly_once_and_each_signature_checked_once(
    long: tuple[Path, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    check, sign = scan.check_entry, Keyring.signer

    def checked(data: bytes) -> Any:
        calls["entries"] += 1
        return check(data)

    def signer(self: Keyring, *given: Any) -> int | None:
        calls["envelopes"] += 1
        return sign(self, *given)

    monkeypatch.setattr(scan, "check_entry", checked)
    monkeypatch.setattr(Keyring, "signer", signer)
    report = audited(long)
    assert calls["entries"] == report.size
    assert 0.5 < calls["envelopes"] / calls["entries"] < 0.6  # as many as come with an envelope


def test_a_file_that_changes_under_the_audit_is_a_finding(
    short: tuple[Path, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = short
    copied = path.with_name("copied.zip")
    copied.write_bytes(path.read_bytes())
    real = run.check_budgets

    def meanwhile(history: Any, report: Report) -> None:
        real(history, report)
        copied.write_bytes(path.read_bytes())  # the same bytes, yet who knows what was read

    monkeypatch.setattr(run, "check_budgets", meanwhile)
    report = verify(copied, made.policy)
    assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"})


def test_nothing_is_left_in_the_temporary_folder(
    short: tuple[Path, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    audited(short)
    audited(short, jobs=2)
    assert list(tmp_path.iterdir()) == []
