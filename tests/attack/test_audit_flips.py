# SPDX-License-Identifier: Apache-2.0
"""No byte of a bundle can change: not of the file, and not of what is in it when everything around is made to fit again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.log.bundle import files_of, pack, split_tile
from policies.log.errors import BundleError
from policies.log.merkle import MemoryTree, leaf_hash
from policies.verify import verify
from tests.auditsim import PARTIES, MakerSim, PoolSim, repacked


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.fixture(scope="module")
def whole() -> PoolSim:
    return PoolSim().build()


@pytest.fixture(scope="module")
def tiny() -> PoolSim:
    """Genesis, keys, a contract and its signatures: the shortest history with every kind of signature."""
    sim = PoolSim(makers={name: MakerSim(name) for name in PARTIES})
    sim.begin()
    sim.found()
    sim.names["submission kita 1"] = sim.names["signed kita"]
    return sim


def test_every_byte_of_a_small_bundle_is_refused(tiny: PoolSim) -> None:
    bundle = tiny.bundle()
    assert verify(bundle, tiny.policy).exit_code == 0
    for at in range(len(bundle)):
        report = verify(flipped(bundle, at, at % 8), tiny.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"}), at


def test_bytes_of_a_whole_bundle_are_refused(whole: PoolSim) -> None:
    bundle = whole.bundle()
    for at in range(0, len(bundle), 97):
        assert verify(flipped(bundle, at, at % 8), whole.policy).exit_code == 3, at


def test_every_byte_of_the_entries_is_under_the_root(tiny: PoolSim) -> None:
    files = files_of(tiny.contents())
    (name,) = [one for one in files if one.startswith("tile/")]
    root, data, count = tiny.tree.root(), files[name], len(tiny.bodies)
    for at in range(len(data)):
        try:
            bodies = split_tile(flipped(data, at, at % 8), count)
        except BundleError:
            continue
        assert MemoryTree(leaf_hash(one) for one in bodies).root() != root, at


def test_every_byte_of_an_envelope_is_under_its_signature(tiny: PoolSim) -> None:
    files = files_of(tiny.contents())
    (name,) = [one for one in files if one.startswith("envelopes/")]
    data = files[name].split(b"\n")[0]
    rest = files[name][len(data) :]
    for at in range(len(data)):
        changed = repacked(files | {name: flipped(data, at, at % 8) + rest})
        assert verify(changed, tiny.policy).exit_code == 3, at


@pytest.mark.parametrize("folder", ["tile/", "envelopes/", "receipts/", "checkpoint", "contracts/", "policy"])
def test_bytes_inside_are_refused_with_every_transfer_digest_made_to_fit(tiny: PoolSim, folder: str) -> None:
    """Entries, signatures, receipts: what catches these is what they mean."""
    files = files_of(tiny.contents())
    names = [name for name in files if name.startswith(folder)]
    assert names
    for name in names:
        data = files[name]
        step = max(1, len(data) // 60)
        for at in range(0, len(data), step):
            changed = repacked(files | {name: flipped(data, at, at % 8)})
            report = verify(changed, tiny.policy)
            assert report.exit_code in (3, 6), (name, at)


def test_every_file_of_a_whole_history_is_guarded_by_its_meaning(whole: PoolSim) -> None:
    files = files_of(whole.contents())
    for name, data in files.items():
        if name in ("MANIFEST", "BUNDLE"):  # the container's own two files: the next test
            continue
        for step in range(4):
            at = (step * 2_654_435_761 + len(name)) % len(data)
            report = verify(repacked(files | {name: flipped(data, at, step % 8)}), whole.policy)
            assert report.exit_code in (3, 6), (name, at)


def test_the_containers_own_files_are_guarded_too(tiny: PoolSim) -> None:
    files = files_of(tiny.contents())
    for name in ("MANIFEST", "BUNDLE"):
        data = files[name]
        for at in range(0, len(data), max(1, len(data) // 40)):
            made = files | {name: flipped(data, at, at % 8)}
            assert verify(pack(made), tiny.policy).exit_code == 3, (name, at)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_bundle_makes_the_verifier_fail(data: st.DataObject) -> None:
    """Whatever is in the files, the answer is a report."""
    sim = STORY
    files = files_of(sim.contents())
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
    report = verify(repacked(files | {name: content}), sim.policy)
    assert report.exit_code in (0, 3, 6)
    assert (report.exit_code == 0) == (content == files[name])


STORY = PoolSim().build()


@given(st.binary(max_size=400))
def test_no_file_makes_the_verifier_fail(data: bytes) -> None:
    assert verify(data, STORY.policy).exit_code == 3
    assert verify(b"PK\x03\x04" + data, STORY.policy).exit_code == 3
