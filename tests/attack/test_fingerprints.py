# SPDX-License-Identifier: Apache-2.0
"""Fingerprints between two members: the reader finds its own duplicates; the broker that relays them finds nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest

from client.data.errors import FingerprintsError
from client.data.fingerprints import SIZES, compare_fingerprints, make_fingerprints
from client.data.marks import marks_of, split_marks
from client.data.store import Store
from policies.errors import SignatureInvalidError, WeakKeyError
from policies.identity import SigningKey
from policies.recipe import FIELD_NAMES
from policies.signing import Envelope
from tests.nodesim import SeedEntropy
from tests.qualitysim import KEY, RIGHTS, arm, changed, imported

A, B, BROKER = (SigningKey.from_seed(bytes([one]) * 32) for one in b"ABX")
OTHER = "sha256:" + "d" * 64
FIELDS = FIELD_NAMES


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sites; B has two of A's six recordings, one of them cut shorter."""
    tmp = tmp_path_factory.mktemp("sites")
    (tmp / "a").mkdir()
    (tmp / "b").mkdir()
    mine = [arm(i, frames=80) for i in range(6)]
    cut = arm(3, frames=80)
    shorter = type(cut)(
        columns={key: one[:60] for key, one in cut.columns.items()},
        labels={},
        stamps_ns=cut.stamps_ns[:60],
        clock=cut.clock,
        content=cut.content,
        missing_rows=0,
    )
    theirs = [arm(50, frames=80), arm(1, frames=80), arm(51, frames=80), shorter]
    a, _ = imported(tmp / "a", mine, dataset="kita/pick")
    b, _ = imported(tmp / "b", theirs, dataset="minami/pick", node_key=b"\7" * 32)
    return a, b


def made(
    sites: tuple[Path, Path], *, seed: bytes = b"s", contract: str = RIGHTS, peer: bytes = B.public
) -> bytes:
    return make_fingerprints(
        sites[0], "kita/pick", contract=contract, fields=FIELDS, key=A, peer=peer, entropy=SeedEntropy(seed)
    )


def marks(data: bytes) -> set[str]:
    return set(json.loads(Envelope.from_bytes(data).payload)["marks"])


def test_the_reader_learns_exactly_which_of_its_own_episodes_the_sender_has(sites: tuple[Path, Path]) -> None:
    found = compare_fingerprints(
        made(sites), sites[1], "minami/pick", contract=RIGHTS, fields=FIELDS, key=B, peer=A.public
    )
    own = [one.meta.episode_id for one in Store(sites[1]).episodes("minami/pick")]
    assert set(found) == {own[1], own[3]}


def test_no_copy_no_answer(sites: tuple[Path, Path], tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i, frames=80) for i in range(60, 63)], dataset="minami/pick")
    assert (
        compare_fingerprints(
            made(sites), root, "minami/pick", contract=RIGHTS, fields=FIELDS, key=B, peer=A.public
        )
        == ()
    )


def test_the_broker_with_both_files_and_all_data_but_no_key_matches_nothing(sites: tuple[Path, Path]) -> None:
    forth = made(sites)
    back = make_fingerprints(
        sites[1],
        "minami/pick",
        contract=RIGHTS,
        fields=FIELDS,
        key=B,
        peer=A.public,
        entropy=SeedEntropy(b"t"),
    )
    assert not marks(forth) & marks(back)
    # a dictionary of every frame that both have, under everything the broker knows
    nonce = bytes.fromhex(json.loads(Envelope.from_bytes(forth).payload)["nonce"])
    known = [
        b"",
        nonce,
        A.public,
        B.public,
        A.public + B.public,
        BROKER.agree(A.public),
        BROKER.agree(B.public),
    ]
    found = set()
    for seed in range(6):
        columns = arm(seed, frames=80).columns
        for field in ("joint_pos", "joint_vel"):
            for mark in split_marks(marks_of({field: columns[f"observation.{field}"]})):
                text = f"{field}\0{mark}".encode()
                found |= {hmac.digest(key, text, "sha256")[:8].hex() for key in known}
                found |= {hashlib.sha256(key + text).hexdigest()[:16] for key in known}
    assert len(found) > 1000
    assert not found & marks(forth)


def test_equal_data_for_another_pair_contract_or_time_gives_other_bytes(sites: tuple[Path, Path]) -> None:
    options = {"contract": RIGHTS, "fields": FIELDS, "key": A, "peer": B.public, "entropy": _Nonce(b"1")}
    base = marks(make_fingerprints(sites[0], "kita/pick", **options))
    for change in (
        {"peer": BROKER.public, "entropy": _Nonce(b"2")},
        {"contract": OTHER, "entropy": _Nonce(b"2")},
        {"entropy": SeedEntropy(b"another nonce")},
    ):
        assert not marks(make_fingerprints(sites[0], "kita/pick", **{**options, **change})) & base


def test_a_third_member_who_gets_the_file_finds_nothing_and_may_not_even_look(
    sites: tuple[Path, Path],
) -> None:
    with pytest.raises(FingerprintsError):
        compare_fingerprints(
            made(sites), sites[0], "kita/pick", contract=RIGHTS, fields=FIELDS, key=BROKER, peer=A.public
        )


def test_how_many_episodes_there_are_does_not_show(sites: tuple[Path, Path], tmp_path: Path) -> None:
    one, _ = imported(tmp_path, [arm(1, frames=80)], dataset="kita/pick")
    small = make_fingerprints(
        one, "kita/pick", contract=RIGHTS, fields=FIELDS, key=A, peer=B.public, entropy=SeedEntropy(b"s")
    )
    assert len(small) == len(made(sites))
    assert len(marks(small)) == SIZES[0]


def test_the_noise_is_not_of_the_pairs_making_so_the_reader_cannot_count_either(
    sites: tuple[Path, Path],
) -> None:
    """Both know the pair key; noise from that key would let the reader strike it out and count the rest."""
    first = make_fingerprints(
        sites[0], "kita/pick", contract=RIGHTS, fields=FIELDS, key=A, peer=B.public, entropy=_Nonce(b"1")
    )
    second = make_fingerprints(
        sites[0], "kita/pick", contract=RIGHTS, fields=FIELDS, key=A, peer=B.public, entropy=_Nonce(b"2")
    )
    kept = marks(first) & marks(second)
    assert 0 < len(kept) <= 6 * 2 * 16


class _Nonce:
    """One nonce for all, and noise that differs."""

    def __init__(self, seed: bytes) -> None:
        self._noise = SeedEntropy(seed)

    def token_bytes(self, size: int) -> bytes:
        return b"\0" * size if size == 16 else self._noise.token_bytes(size)


def test_a_forged_turned_or_bent_file_is_refused(sites: tuple[Path, Path]) -> None:
    good = made(sites)
    options = {"contract": RIGHTS, "fields": FIELDS, "key": B, "peer": A.public}
    document = json.loads(Envelope.from_bytes(good).payload)
    from policies.encoding import canonical

    def sealed(**change: object) -> bytes:
        kind = "application/vnd.iriai.fingerprints.v1+json"
        return Envelope.seal(canonical({**document, **change}), kind, A).to_bytes()

    with pytest.raises(SignatureInvalidError):
        compare_fingerprints(good, sites[1], "minami/pick", **{**options, "peer": BROKER.public})
    for bad in (
        sealed(contract=OTHER),
        sealed(sender=document["reader"], reader=document["sender"]),
        sealed(marks=document["marks"][:-1]),
        sealed(marks=[*document["marks"][:-1], "zz" * 8]),
        sealed(marks="x"),
        sealed(nonce="00"),
        sealed(nonce=7),
        sealed(more=1),
        b"{}",
        b"x" * (33 * 1024**2),
    ):
        with pytest.raises(FingerprintsError):
            compare_fingerprints(bad, sites[1], "minami/pick", **options)


def test_a_key_that_gives_everybody_the_same_secret_is_refused(sites: tuple[Path, Path]) -> None:
    with pytest.raises(WeakKeyError):
        made(sites, peer=bytes(32))


def test_both_make_the_same_secret_and_nobody_else_does() -> None:
    assert A.agree(B.public) == B.agree(A.public)
    assert A.agree(B.public) != A.agree(BROKER.public)


def test_a_field_of_few_values_has_no_mark_that_could_be_guessed(tmp_path: Path) -> None:
    """Modes and switches of two sites are alike by nature; so is a joint with a handful of values."""
    frames = arm(1, frames=80)
    toggled = np.repeat(np.arange(80)[:, None] % 2, 6, axis=1)
    quiet = changed(changed(frames, "observation.joint_pos", toggled), "observation.joint_vel", toggled * 0)
    root, _ = imported(tmp_path, [quiet], dataset="kita/pick", node_key=KEY)
    data = make_fingerprints(
        root, "kita/pick", contract=RIGHTS, fields=FIELDS, key=A, peer=B.public, entropy=_Nonce(b"1")
    )
    again = make_fingerprints(
        root, "kita/pick", contract=RIGHTS, fields=FIELDS, key=A, peer=B.public, entropy=_Nonce(b"2")
    )
    assert not marks(data) & marks(again)
