# SPDX-License-Identifier: Apache-2.0
"""What a broker keeps of secure aggregation on its disk, and for how long; and the form of a setup's answers."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broker.errors import UsageError
from broker.federation.engine import Expect, TensorHandle
from broker.federation.secure.files import Files, Transcripts, Unmasking
from broker.federation.secure.setups import Setups
from broker.federation.secure.vectors import Vectors, export, sweep
from policies.encoding import digest
from policies.exchange import TensorSpec
from policies.limits import SECAGG_SHOWN
from tests.brokersim import HandClock
from tests.federationsim import Notes
from tests.secaggsim import terms_of_size

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


def test_the_newest_sums_are_kept_whatever_their_setup(tmp_path: Path):
    files = Files(tmp_path, RUN)
    for number in range(1, SECAGG_SHOWN + 4):
        files.save_sum((number, 1), b"%d" % number)
    assert files.sums() == [(number, 1) for number in range(3, SECAGG_SHOWN + 4)]
    assert (files.sum_of((3, 1)), files.sum_of((2, 1))) == (b"3", None)
    files.drop_sum((3, 1))
    assert files.sums()[0] == (4, 1)


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
    (tmp_path / "broker.toml").touch()
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
    (tmp_path / "broker.toml").touch()
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


def setups_of(files: Files) -> tuple[Setups, Notes]:
    notes = Notes()
    return Setups("run_1", terms_of_size(4), talk=None, files=files, journal=notes), notes  # type: ignore[arg-type]


def test_who_lied_is_left_out_after_a_restart_too(tmp_path: Path):
    before, _ = setups_of(Files(tmp_path, RUN))
    assert before.liars == {}
    before.blame({"m02": "secagg.share-bad"})
    before.blame({"m03": "secagg.views-differ"})
    after, _ = setups_of(Files(tmp_path, RUN))
    assert after.liars == {"m02": "secagg.share-bad", "m03": "secagg.views-differ"}


def test_suspects_are_those_in_every_sum_that_failed_and_are_known_after_a_restart(tmp_path: Path):
    before, notes = setups_of(Files(tmp_path, RUN))
    assert before.suspects == ()
    before.failed(["m01", "m02", "m03", "m04"])
    before.failed(["m02", "m03", "m04"])
    assert notes.of("secagg.sum-failed")[-1]["suspects"] == ("m02", "m03", "m04")
    after, _ = setups_of(Files(tmp_path, RUN))
    after.failed(["m01", "m03", "m04"])
    assert after.suspects == ("m03", "m04")
    after.failed(["m01", "m02"])  # two members do it, and never both of them are to be found
    assert after.suspects == ("m01", "m02")


def test_files_of_another_form_accuse_nobody(tmp_path: Path):
    files = Files(tmp_path, RUN)
    files.folder.mkdir(parents=True)
    for text in ("[", "3", "null"):
        for name in ("liars", "doubts"):
            (files.folder / name).write_text(text)
        found, _ = setups_of(files)
        assert (found.liars, found.suspects) == ({}, ())
