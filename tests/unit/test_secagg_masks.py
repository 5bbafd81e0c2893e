# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from scipy.stats import chi2

from policies.limits import SECAGG_CHUNK
from policies.secagg import group_mac
from policies.secagg.errors import ContextMismatchError, SumWrongError, UpdateUnfitError
from policies.secagg.keystream import Keystream
from policies.secagg.masks import MaskKeys, mask, mask_lane, sum_of_lanes, unmask, unmask_lane
from policies.secagg.recompute import recompute
from policies.secagg.ring import quantise
from policies.secagg.sums import RingSum
from tests.ringterms import key, keys_of, remaining, ring_terms

SIZES = [1, 2, SECAGG_CHUNK - 1, SECAGG_CHUNK, SECAGG_CHUNK + 1, 2 * SECAGG_CHUNK + 5]
MAC = key("mac")


def update_of(dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, dimension).astype(np.float32)


def test_the_keystream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A, F.5.5, whose counter block begins at f0f1…ff: the same cipher, another first block."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

    nist = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    wanted = bytes.fromhex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5")
    assert Cipher(AES(nist), CTR(counter)).encryptor().update(plain) == wanted
    blocks = Cipher(AES(nist), ECB()).encryptor()  # noqa: S305  one block at a time: what counter mode is made of
    buffer = Keystream.buffer(4)
    stream = Keystream(nist, buffer)
    stream.fill(48)
    assert buffer[:48] == b"".join(blocks.update(at.to_bytes(16, "big")) for at in (2, 3, 4))


def test_a_keystream_goes_on_across_pieces() -> None:
    whole, parts = Keystream.buffer(4), Keystream.buffer(4)
    Keystream(MAC, whole).fill(160)
    stream, found = Keystream(MAC, parts), b""
    for size in (64, 32, 64):
        stream.fill(size)
        found += parts[:size]
    assert found == whole[:160]


@pytest.mark.parametrize("dimension", SIZES)
def test_the_fused_pass_gives_what_separate_passes_give(dimension: int) -> None:
    terms = ring_terms(3, dimension, norm_max="1.3", weights=(1_000_000, 700_001, 3))
    for at, party in enumerate(terms.parties):
        update = update_of(dimension, at)
        keys = keys_of(at, range(3))
        plain = quantise(update, weight=terms.weight(party), terms=terms)
        wanted = plain.copy()
        for sign, one in keys.signed():
            wanted += np.uint32(sign % 2**32) * _words(one, dimension)
        found = mask(update, keys, terms=terms, party=party, mac_key=MAC)
        assert found.vector.dtype == np.dtype("<u4")
        assert np.array_equal(found.vector, wanted)
        assert found.digest == "sha256:" + hashlib.sha256(wanted.tobytes()).hexdigest()
        assert found.tag == group_mac.tag(MAC, [plain])
        assert mask(update, keys, terms=terms, party=party).tag == 0


def _words(one: bytes, dimension: int) -> np.ndarray:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    first = (2).to_bytes(16, "big")
    return np.frombuffer(Cipher(AES(one), CTR(first)).encryptor().update(bytes(4 * dimension)), "<u4")


@pytest.mark.parametrize("dimension", SIZES)
def test_a_sum_redone_without_numpy_has_the_same_digest(dimension: int) -> None:
    terms = ring_terms(5, dimension)
    vectors, total = [], RingSum(dimension)
    for at in (0, 1, 4):
        found = mask(update_of(dimension, at), keys_of(at, range(5)), terms=terms, party=terms.parties[at])
        vectors.append(found.vector.tobytes())
        total.add([vectors[-1]])
    remove = remaining([0, 1, 4], range(5))
    redone = recompute(vectors, remove, dimension=dimension)
    unmask(total.values, remove)
    assert redone == total.digest()
    assert total.count == 3
    assert recompute(vectors, remove[1:], dimension=dimension) != redone
    assert recompute([], [], dimension=dimension) == RingSum(dimension).digest()


def test_redoing_a_sum_refuses_vectors_of_another_length() -> None:
    with pytest.raises(SumWrongError, match="vectors of 40 bytes"):
        recompute([bytes(40), bytes(44)], [], dimension=10)


def test_what_one_member_sends_is_uniform_even_for_whom_knows_all_but_one_of_its_masks() -> None:
    """An update of zeros under one mask; false alarm below 1e-6."""
    terms = ring_terms(3, SECAGG_CHUNK)
    found = mask(np.zeros(SECAGG_CHUNK, np.float32), keys_of(1, range(3)), terms=terms, party="m01").vector
    unmask(found, keys_of(1, range(3)).signed()[1:])
    counts = np.bincount(found.view(np.uint8), minlength=256)
    expected = 4 * SECAGG_CHUNK / 256
    assert ((counts - expected) ** 2).sum() / expected < chi2.isf(5e-7, 255)


def test_masking_takes_the_memory_of_one_vector_and_about_a_piece() -> None:
    terms = ring_terms(10, 20 * SECAGG_CHUNK)
    update, keys = update_of(terms.dimension), keys_of(3, range(10))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        mask(update, keys, terms=terms, party="m03", mac_key=MAC)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak - 4 * terms.dimension < 3 * 1024**2


def test_keys_do_not_show() -> None:
    keys = keys_of(0, range(3))
    assert str(key("own", 0))[2:10] not in repr(keys)
    assert repr(keys) == "MaskKeys()"


def test_lanes_add_up_to_the_survivors_their_weights_and_tags() -> None:
    tags, weights = [3, 2**64 - 1, 5, 7], [1_000_000, 500_000, 250_000, 1]
    lanes = [mask_lane([1, weights[at], tags[at]], keys_of(at, range(4))) for at in range(4)]
    assert len({lane[:8] for lane in lanes}) == 4
    for survivors in ([0, 1, 2, 3], [0, 1, 3], [2, 0]):
        total = sum_of_lanes([lanes[at] for at in survivors])
        found = unmask_lane(total, remaining(survivors, range(4)))
        assert found == (
            len(survivors),
            sum(weights[at] for at in survivors),
            sum(tags[at] for at in survivors) % 2**64,
        )
    with pytest.raises(ContextMismatchError):
        sum_of_lanes([lanes[0], lanes[1][:-1]])


@pytest.mark.parametrize("dimension", [1, SECAGG_CHUNK + 7])
def test_tags_of_members_add_up_to_the_tag_of_their_sum(dimension: int) -> None:
    terms = ring_terms(6, dimension)
    plain = [quantise(update_of(dimension, at), weight=terms.weight("m00"), terms=terms) for at in range(6)]
    z = sum(plain, np.zeros(dimension, np.uint32))
    tags = [group_mac.tag(MAC, [one]) for one in plain]
    group_mac.check(MAC, z, sum(tags))
    for place in {0, dimension // 2, dimension - 1}:
        wrong = z.copy()
        wrong[place] += 1
        with pytest.raises(SumWrongError):
            group_mac.check(MAC, wrong, sum(tags))
    with pytest.raises(SumWrongError):
        group_mac.check(key("other"), z, sum(tags))


def test_a_wrong_vector_adds_nothing() -> None:
    total = RingSum(6)
    total.add([bytes(8), (5).to_bytes(4, "little") * 4])
    for wrong in ([bytes(20)], [bytes(28)], [bytes(10), bytes(14)], []):
        with pytest.raises(UpdateUnfitError):
            total.add(wrong)
    assert total.values.tolist() == [0, 0, 5, 5, 5, 5]
    assert total.count == 1


def test_not_finite_values_are_refused_in_whatever_piece_they_stand() -> None:
    terms = ring_terms(3, SECAGG_CHUNK + 9)
    for value in (np.nan, np.inf, -np.inf):
        update = update_of(terms.dimension)
        update[-1] = value
        with pytest.raises(UpdateUnfitError, match="finite"):
            mask(update, MaskKeys(own=key(1), pairs=()), terms=terms, party="m00")
