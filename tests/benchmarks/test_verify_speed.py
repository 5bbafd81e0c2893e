# SPDX-License-Identifier: Apache-2.0
"""What an audit costs for each entry, beside one Ed25519 verification. Ratios are asserted, figures are printed (-s)."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from policies.identity import SigningKey
from policies.log.bundle import TILE, split_tile
from policies.log.merkle import leaf_hash
from policies.log.tiles import entries_path
from policies.verify import verify
from policies.verify.keyring import Keyring
from policies.verify.ledger import NOBODY
from policies.verify.source import Files, Source
from policies.verify.spill import SpillTree
from tests.auditload import Made, write_load

if TYPE_CHECKING:
    from policies.signing import Envelope

ENTRIES = 8_000
CHECKS = 2_000


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    path = tmp_path_factory.mktemp("load") / "bundle.zip"
    return path, write_load(path, entries=ENTRIES)


def verification_s() -> float:
    """CPU seconds of one Ed25519 verification of 700 bytes."""
    key, message = SigningKey.from_seed(bytes(32)), bytes(700)
    public, signature = key._private.public_key(), key.sign(message)
    start = time.process_time()
    for _ in range(CHECKS):
        public.verify(signature, message)
    return (time.process_time() - start) / CHECKS


def hashed_s(path: Path, size: int) -> float:
    """CPU seconds for each entry of sums, digests and the tree alone."""
    start = time.process_time()
    files, tree = Files(Source(path)), SpillTree(size)
    for one in files.container.files():
        files.container.check_file(one)
    for tile in range(-(-size // TILE)):
        width = min(TILE, size - tile * TILE)
        tree.fill(tile, [leaf_hash(one) for one in split_tile(files[entries_path(tile, width)], width)])
    tree.finish()
    tree.root()
    return (time.process_time() - start) / size


def audited_s(given: tuple[Path, Made]) -> float:
    """CPU seconds of the whole audit for each entry."""
    path, made = given
    start = time.process_time()
    assert verify(path, made.policy).exit_code == 0
    return (time.process_time() - start) / made.size


@pytest.mark.slow
def test_an_entry_costs_a_few_signatures(load: tuple[Path, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = load
    one, hashed, whole = verification_s(), hashed_s(path, made.size), audited_s(load)

    def unchecked(self: Keyring, envelope: Envelope, org: int) -> int | None:
        """The key of who says so: what is left is everything but signatures."""
        assert envelope.signatures
        return None if org == NOBODY else self._own[self.orgs[org]][0]

    monkeypatch.setattr(Keyring, "signer", unchecked)
    without = audited_s(load)
    figures = {"hashing only": hashed, "all rules but signatures": without, "all rules": whole}
    for name, seconds in figures.items():
        sys.stdout.write(f"\n{name}: {1 / seconds:,.0f} entries/s on one processor")
    sys.stdout.write(
        f"\nEd25519: {1 / one:,.0f} verifications/s; {path.stat().st_size / made.size:,.0f} bytes/entry\n"
    )
    assert whole < 8 * one
    assert without < 7 * one
    assert hashed < 0.5 * one
