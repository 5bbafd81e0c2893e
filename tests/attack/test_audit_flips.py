# SPDX-License-Identifier: Apache-2.0
"""No byte of a bundle can change: not of the file, and not of what is in it when everything around is made to fit.

Two things of a bundle are not the verifier's to judge. A cosignature line whose key is not of the auditor's policy
is nobody's, so a line can be spoiled into one; that is a cosignature that was not shown, and never one more. A time
stamp is for ``openssl ts -verify``, whose command is named (AUD-093).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.log.bundle import files_of, pack, split_tile
from policies.log.checkpoint import open_note
from policies.log.errors import BundleError
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import Policy
from policies.verify import verify
from tests.auditsim import PARTIES, MakerSim, PoolSim, repacked
from tests.watchedsim import WatchedSim


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


class Kept:
    """A history with its bundle's files in format 2: hash tiles, witnesses, a time stamp."""

    def __init__(self, sim: WatchedSim) -> None:
        self.sim, self.policy = sim, sim.policy
        contents = sim.contents(version=2, timestamps={len(sim.bodies): b"a token of a time stamp"})
        self.files = files_of(contents)
        self.bundle = pack(self.files)


def small(sim: PoolSim) -> None:
    """Genesis, keys, a contract and its signatures: the shortest history with every kind of signature."""
    sim.begin()
    sim.found()
    sim.names["submission kita 1"] = sim.names["signed kita"]


@pytest.fixture(scope="module")
def whole() -> Kept:
    return Kept(WatchedSim().build())


@pytest.fixture(scope="module")
def tiny() -> Kept:
    sim = WatchedSim()
    small(sim)
    return Kept(sim)


def cosigners(policy: Policy, files: dict[str, bytes]) -> Iterator[set[str]]:
    """Who cosigned the bundle's checkpoint, then each published one."""
    listed = [json.loads(line)["note"] for line in files["checkpoints.log"].splitlines()]
    for note in (files["checkpoint"].decode(), *listed):
        yield {key.name for key in open_note(note, policy.keys).verified}


def check_guarded(kept: Kept, name: str, at: int, bit: int) -> None:
    """A flipped bit is found, or is a cosignature less and nothing else."""
    made = kept.files | {name: flipped(kept.files[name], at, bit)}
    report = verify(repacked(made), kept.policy)
    if name.startswith("timestamps/"):
        assert set(report.counts) == {"AUD-093"}
    elif report.exit_code not in (3, 6):
        assert name in ("checkpoint", "checkpoints.log"), (name, at)
        before, after = list(cosigners(kept.policy, kept.files)), list(cosigners(kept.policy, made))
        assert len(before) == len(after)
        assert all(now <= then for now, then in zip(after, before, strict=True)), (name, at)
        assert after != before, (name, at)


def test_every_byte_of_a_small_bundle_is_refused(tiny: Kept) -> None:
    assert verify(tiny.bundle, tiny.policy).exit_code == 0
    for at in range(len(tiny.bundle)):
        report = verify(flipped(tiny.bundle, at, at % 8), tiny.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"}), at


def test_bytes_of_a_whole_bundle_are_refused(whole: Kept) -> None:
    for at in range(0, len(whole.bundle), 97):
        assert verify(flipped(whole.bundle, at, at % 8), whole.policy).exit_code == 3, at


def test_bytes_of_a_bundle_of_the_first_format_are_refused() -> None:
    sim = PoolSim(makers={name: MakerSim(name) for name in PARTIES})
    small(sim)
    bundle = sim.bundle()
    assert verify(bundle, sim.policy).exit_code == 0
    for at in range(0, len(bundle), 11):
        report = verify(flipped(bundle, at, at % 8), sim.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"}), at


def test_every_byte_of_the_entries_is_under_the_root(tiny: Kept) -> None:
    (name,) = [one for one in tiny.files if one.startswith("tile/entries/")]
    root, data, count = tiny.sim.tree.root(), tiny.files[name], len(tiny.sim.bodies)
    for at in range(len(data)):
        try:
            bodies = split_tile(flipped(data, at, at % 8), count)
        except BundleError:
            continue
        assert MemoryTree(leaf_hash(one) for one in bodies).root() != root, at


def test_every_hash_of_the_tiles_is_the_one_of_its_entry(tiny: Kept) -> None:
    (name,) = [one for one in tiny.files if one.startswith("tile/0/")]
    data = tiny.files[name]
    for at in range(0, len(data), 7):  # 7 and 32 have no common divisor: every place within a hash
        changed = repacked(tiny.files | {name: flipped(data, at, at % 8)})
        report = verify(changed, tiny.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-021", "AUD-093"}), at


def test_every_byte_of_an_envelope_is_under_its_signature(tiny: Kept) -> None:
    (name,) = [one for one in tiny.files if one.startswith("envelopes/")]
    data = tiny.files[name].split(b"\n")[0]
    rest = tiny.files[name][len(data) :]
    for at in range(len(data)):
        changed = repacked(tiny.files | {name: flipped(data, at, at % 8) + rest})
        assert verify(changed, tiny.policy).exit_code == 3, at


@pytest.mark.parametrize(
    "folder",
    [
        "tile/entries/",
        "envelopes/",
        "receipts/",
        "checkpoint",
        "contracts/",
        "policy",
        "witnesses/",
        "timestamps/",
    ],
)
def test_bytes_inside_are_refused_with_every_transfer_digest_made_to_fit(tiny: Kept, folder: str) -> None:
    """Entries, signatures, receipts: what catches these is what they mean."""
    names = [name for name in tiny.files if name.startswith(folder)][:2]
    assert names
    for name in names:
        size = len(tiny.files[name])
        for at in range(0, size, max(1, size // 60)):
            check_guarded(tiny, name, at, at % 8)


def test_every_file_of_a_whole_history_is_guarded_by_its_meaning(whole: Kept) -> None:
    for name, data in whole.files.items():
        if name in ("MANIFEST", "BUNDLE"):  # the container's own two files: the next test
            continue
        for step in range(2):
            check_guarded(whole, name, (step * 2_654_435_761 + len(name)) % len(data), step % 8)


def test_no_file_of_a_whole_history_can_be_left_out(whole: Kept) -> None:
    """What may be missing proves something to who has it, and nothing by being away: receipts, stamps."""
    for name in whole.files.keys() - {"MANIFEST"}:  # which is written behind the others in any case
        made = {one: data for one, data in whole.files.items() if one != name}
        report = verify(repacked(made), whole.policy)
        spare = name.startswith(("receipts/", "timestamps/"))
        granted = name.startswith("disclosures/")  # of which a grant opens some: a case for a person
        assert report.exit_code == (0 if spare else 7 if granted else 3), (name, report.lines())


def test_the_containers_own_files_are_guarded_too(tiny: Kept) -> None:
    for name in ("MANIFEST", "BUNDLE"):
        data = tiny.files[name]
        for at in range(0, len(data), max(1, len(data) // 40)):
            made = tiny.files | {name: flipped(data, at, at % 8)}
            assert verify(pack(made), tiny.policy).exit_code == 3, (name, at)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_bundle_makes_the_verifier_fail(data: st.DataObject) -> None:
    """Whatever is in the files, the answer is a report."""
    files = STORY.files
    name = data.draw(st.sampled_from([one for one in files if one != "MANIFEST"]))
    content = data.draw(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"", b"\n", b"null", b"[]", b"{}\n", b'{"index":0}\n', b"\x00", b"\xff\xfe", b"1"]
            ),
            st.integers(0, len(files[name])).map(lambda at: files[name][:at]),
            st.integers(0, len(files[name])).map(lambda at: files[name][at:] + files[name][:at]),
            st.just(files[name] * 2),
        )
    )
    report = verify(repacked(files | {name: content}), STORY.policy)
    assert report.exit_code in (0, 3, 6)
    assert (report.exit_code == 0) == (content == files[name] or name.startswith("timestamps/"))


STORY = Kept(WatchedSim().build())


@given(st.binary(max_size=400))
def test_no_file_makes_the_verifier_fail(data: bytes) -> None:
    assert verify(data, STORY.policy).exit_code == 3
    assert verify(b"PK\x03\x04" + data, STORY.policy).exit_code == 3
