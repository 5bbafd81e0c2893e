# SPDX-License-Identifier: Apache-2.0
"""What a broker keeps of secure aggregation on its disk, and for how long; and the form of a setup's answers."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broker.errors import UsageError
from broker.federation.engine import Expect, TensorHandle
from broker.federation.secure.files import Files, Transcripts, Unmasking
from broker.federation.secure.vectors import Vectors, export, sweep
from policies.encoding import digest
from policies.exchange import TensorSpec
from tests.brokersim import HandClock

RUN = "run_pwgd7fi5spwkqgof"
HOUR_MS = 3_600_000


def vector(data: bytes) -> TensorHandle:
    """A masked vector that came in two parts."""
    spec = TensorSpec(digest=digest(data), dtype="uint32", shape=(len(data) // 4,))
    return TensorHandle(spec=spec, parts=[memoryview(data[:8]), memoryview(data[8:])])


def test_a_setup_number_is_never_given_twice(tmp_path: Path):
    assert [Files(tmp_path, RUN).next_number() for _ in range(3)] == [1, 2, 3]
    assert Files(tmp_path, "run_b").next_number() == 1


def test_the_attempt_that_may_be_open_is_known_after_a_restart_and_no_other_one(tmp_path: Path):
    kept = Unmasking(slot=(3, 1), setup=2, online={"kita": "sha256:1"}, confirmed=("kita",))
    Files(tmp_path, RUN).begin_unmasking(kept)
    files = Files(tmp_path, RUN)
    assert files.unmasking((3, 1)) == kept
    assert files.unmasking((3, 2)) is None
    assert stat.S_IMODE((files.folder / "unmasking").stat().st_mode) == 0o600


def test_nonces_of_another_setup_are_not_taken(tmp_path: Path):
    files = Files(tmp_path, RUN)
    files.save_nonces(2, 7, {"kita": b"n"})
    assert files.nonces(2) == {7: {"kita": b"n"}}
    assert files.nonces(3) == {}


def test_a_request_shows_the_newest_sum_of_an_earlier_round_under_the_same_setup(tmp_path: Path):
    files = Files(tmp_path, RUN)
    files.save_sum(1, (1, 1), b"first")
    files.save_sum(1, (2, 1), b"second")
    assert files.sum_before(1, (1, 1)) is None
    assert files.sum_before(1, (2, 1)) == b"first"  # asked again after a restart
    assert files.sum_before(1, (3, 1)) == b"second"
    assert files.sum_before(2, (3, 1)) is None
    files.save_sum(1, (3, 1), b"third")
    assert files.sum_before(1, (2, 1)) is None  # nothing asks for it any more


@pytest.mark.parametrize("name", ["setup", "nonces", "unmasking", "number"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, name: str):
    files = Files(tmp_path, RUN)
    files.save_setup(b"")
    (files.folder / name).write_bytes(b"\x00not ours")
    assert files.unmasking((1, 1)) is None
    assert files.nonces(1) == {}
    assert files.next_number() == 1


def test_a_transcript_is_read_only_as_the_bytes_of_its_name(tmp_path: Path):
    transcripts = Transcripts(tmp_path)
    name = transcripts.save(b"what a sum is redone from")
    assert transcripts.read(name) == b"what a sum is redone from"
    (tmp_path / "transcripts" / name.removeprefix("sha256:")).write_bytes(b"other")
    assert transcripts.read(name) is None
    assert transcripts.read(digest(b"another")) is None


def test_vectors_are_kept_by_their_digest_for_the_hours_of_the_contract(tmp_path: Path):
    clock = HandClock(1_000 * HOUR_MS)
    data = bytes(range(16))
    Vectors(tmp_path, RUN, hours=2, clock=clock).keep(vector(data))
    name = digest(data).removeprefix("sha256:")
    assert export(tmp_path, RUN, tmp_path / "out", clock.ms) == [name]
    assert (tmp_path / "out" / name).read_bytes() == data
    assert sweep(tmp_path, clock.ms + 2 * HOUR_MS - 1_000) == 1
    assert sweep(tmp_path, clock.ms + 2 * HOUR_MS) == 0
    with pytest.raises(UsageError, match="within the contract's retention"):
        export(tmp_path, RUN, tmp_path / "late", clock.ms)


def test_without_hours_no_vector_reaches_the_disk(tmp_path: Path):
    Vectors(tmp_path, RUN, hours=0, clock=HandClock(0)).keep(vector(bytes(16)))
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_half_written_is_deleted_at_start_only(tmp_path: Path):
    folder = tmp_path / "runs" / RUN / "secagg" / "vectors"
    folder.mkdir(parents=True)
    (folder / ".half.tmp").write_bytes(b"x")
    sweep(tmp_path, 0)
    assert [path.name for path in folder.iterdir()] == [".half.tmp"]  # another run may be writing it
    sweep(tmp_path, 0, starting=True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("run", ["../run_pwgd7fi5spwkqgof", "run_aaaaaaaaaaaaaaaa", ""])
def test_vectors_of_no_run_are_not_handed_out(tmp_path: Path, run: str):
    Vectors(tmp_path, RUN, hours=2, clock=HandClock(HOUR_MS)).keep(vector(bytes(16)))
    with pytest.raises(UsageError):
        export(tmp_path, run, tmp_path / "out", HOUR_MS)


def test_an_answer_of_any_length_is_taken_up_to_its_bound_and_of_one_form_only():
    bound = Expect(dtype="uint8", at_most=10)

    def spec(dtype: str, *shape: int) -> TensorSpec:
        return TensorSpec(digest=digest(b""), dtype=dtype, shape=shape)

    assert bound.size_bytes == 10
    assert bound.fits(spec("uint8", 10))
    assert bound.fits(spec("uint8", 1))
    assert not bound.fits(spec("uint8", 11))
    assert not bound.fits(spec("uint8", 2, 5))
    assert not bound.fits(spec("uint32", 2))
    assert not Expect(dtype="uint32", shape=(3,)).fits(spec("uint32", 2))
