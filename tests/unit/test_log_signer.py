# SPDX-License-Identifier: Apache-2.0
"""The signer alone: what it remembers, what it swaps, what it refuses, and who may open it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.log import Freeze, FreezeReason, LogFrozenError, SignedHead, Signer
from broker.log.signer import LogKey
from policies.identity import SigningKey
from policies.log.checkpoint import open_checkpoint, parse_note
from policies.log.errors import QuorumError
from policies.log.merkle import EMPTY_ROOT, Frontier, leaf_hash
from policies.log.vkeys import VerifierKey
from tests.logsim import ORIGIN, START_MS, LogSim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAVES = [leaf_hash(bytes([one])) for one in range(8)]
OLD, NEW = (SigningKey.from_seed(seed * 32) for seed in (b"o", b"n"))


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path) as made:
        made.open()
        yield made


@pytest.fixture
def signer(sim: LogSim) -> Signer:
    made = another(sim)
    assert made.begin(entries=0) is None
    return made


def another(sim: LogSim, key: SigningKey = OLD) -> Signer:
    return Signer(sim.store.signer, origin=ORIGIN, key=key, clock=sim.clock)


def extended(signer: Signer, size: int) -> SignedHead:
    last = signer.last()
    found = signer.extend(last, LEAVES[last.size : size], Frontier().append(*LEAVES[:size]))
    assert isinstance(found, SignedHead)
    return found


def test_it_begins_with_the_empty_log_and_remembers_what_it_signed(sim: LogSim, signer: Signer) -> None:
    assert (signer.last().size, signer.last().root, signer.last().note) == (0, EMPTY_ROOT, "")
    signed = extended(signer, 3)
    assert open_checkpoint(signed.note, signer.vkeys).size == 3
    again = another(sim)
    assert again.begin(entries=3) is None
    assert again.last() == signed == again.look()


def test_entries_without_a_memory_freeze_the_log(sim: LogSim) -> None:
    unknown = Signer(sim.store.signer, origin="other.example/log", key=OLD, clock=sim.clock)
    freeze = unknown.begin(entries=4)
    assert isinstance(freeze, Freeze)
    assert freeze.reason is FreezeReason.AMNESIA
    with pytest.raises(LogFrozenError):
        unknown.last()


def test_leaves_that_do_not_lead_to_the_head_are_never_signed(signer: Signer) -> None:
    before = extended(signer, 2)
    freeze = signer.extend(before, LEAVES[3:5], Frontier().append(*LEAVES[:4]))
    assert isinstance(freeze, Freeze)
    assert (freeze.reason, signer.last()) == (FreezeReason.CORRUPT, before)


def test_the_same_head_is_not_signed_twice(signer: Signer) -> None:
    before = extended(signer, 2)
    assert signer.extend(before, (), before.frontier) is before


def test_who_comes_second_signs_nothing(sim: LogSim, signer: Signer) -> None:
    other, last = another(sim), signer.last()
    mine = Frontier().append(*LEAVES[:2])
    assert isinstance(other.extend(last, LEAVES[:1], Frontier().append(*LEAVES[:1])), SignedHead)
    assert signer.extend(last, LEAVES[:2], mine) is None
    newest = signer.look()
    assert isinstance(newest, SignedHead)
    assert newest.size == 1


def test_nothing_is_signed_after_somebody_froze_it(sim: LogSim, signer: Signer) -> None:
    last = extended(signer, 2)
    another(sim).freeze(FreezeReason.FORK, "two roots", "note\nof\n\nours\n")
    assert signer.extend(last, LEAVES[2:3], Frontier().append(*LEAVES[:3])) is None
    found = signer.look()
    assert isinstance(found, Freeze)
    assert (found.reason, found.evidence, found.note) == (
        FreezeReason.FORK,
        "two roots",
        "note\nof\n\nours\n",
    )
    kept = another(sim).freeze(FreezeReason.CORRUPT, "later")
    assert kept == found  # the first reason stays


def test_it_opens_again_only_for_all_that_it_signed(signer: Signer) -> None:
    early, last = extended(signer, 2), extended(signer, 5)
    signer.freeze(FreezeReason.ROLLED_BACK, "2 entries")
    assert not signer.thaw(last, early)  # smaller
    assert not signer.thaw(early, last)  # not what it remembers
    assert signer.frozen() is not None
    assert signer.thaw(last, last)
    assert (signer.frozen(), signer.last()) == (None, last)
    assert extended(signer, 6).size == 6


class TestTwoKeys:
    """One key takes the other's place."""

    def test_both_sign_until_the_old_one_may_no_more(self, sim: LogSim, signer: Signer) -> None:
        signer.use([LogKey(NEW, None), LogKey(OLD, START_MS + 1000)])
        both = extended(signer, 1).note
        assert len(parse_note(both).signatures) == 2
        for key in (OLD, NEW):
            assert open_checkpoint(both, [VerifierKey(ORIGIN, key.public)]).size == 1
        sim.clock.ms += 1000
        alone = extended(signer, 2).note
        assert [key.public_key for key in signer.vkeys] == [NEW.public]
        assert [key.public_key for key in signer.known_vkeys] == [NEW.public, OLD.public]
        with pytest.raises(QuorumError):
            open_checkpoint(alone, [VerifierKey(ORIGIN, OLD.public)])
