# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import combinations

import pytest
from scipy.stats import chi2

from policies.secagg.errors import ShareBadError
from policies.secagg.shamir import SHARE_BYTES, combine, split
from tests.ringterms import CountedEntropy, key

P = 2**521 - 1
SECRET = key("secret")


def test_every_set_of_t_holders_gets_the_secret_and_no_smaller_one_does() -> None:
    shares = split(SECRET, n=5, t=4, entropy=CountedEntropy())
    assert [len(one) for one in shares] == [SHARE_BYTES] * 5
    for size in (4, 5):
        for holders in combinations(range(1, 6), size):
            assert combine({one: shares[one - 1] for one in holders}) == SECRET
    for holders in combinations(range(1, 6), 3):
        with pytest.raises(ShareBadError):
            combine({one: shares[one - 1] for one in holders})


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\1"])
def test_secrets_at_the_ends_of_their_range_come_back(secret: bytes) -> None:
    shares = split(secret, n=50, t=34, entropy=CountedEntropy(1))
    assert combine({one: shares[one - 1] for one in range(17, 51)}) == secret


def test_shares_of_two_secrets_do_not_mix() -> None:
    shares = dict(enumerate(split(SECRET, n=4, t=3, entropy=CountedEntropy(2)), 1))
    other = split(SECRET, n=4, t=3, entropy=CountedEntropy(3))
    for wrong in ({**shares, 2: other[1]}, {**shares, 1: shares[2], 2: shares[1]}):
        with pytest.raises(ShareBadError, match="a larger number"):
            combine({one: wrong[one] for one in (1, 2, 3)})
        with pytest.raises(ShareBadError, match="a larger number"):
            combine(wrong)


def test_a_forged_share_can_shift_a_secret_which_only_a_commitment_finds() -> None:
    shares = dict(enumerate(split(SECRET, n=4, t=3, entropy=CountedEntropy(2)), 1))
    forged = (int.from_bytes(shares[2], "big") + 1).to_bytes(SHARE_BYTES, "big")
    found = combine({1: shares[1], 2: forged, 3: shares[3]})
    assert int.from_bytes(SECRET, "big") - int.from_bytes(found, "big") == 3


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {0: bytes(66)},
        {1: bytes(65)},
        {1: bytes(67)},
        {1: P.to_bytes(66, "big")},
        {1: b"\xff" * 66},
        {1: bytes(66), 2: b""},
    ],
)
def test_what_is_no_share_is_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(ShareBadError):
        combine(shares)


@pytest.mark.parametrize(
    ("secret", "n", "t"), [(bytes(31), 3, 2), (bytes(33), 3, 2), (SECRET, 3, 4), (SECRET, 3, 0)]
)
def test_a_secret_or_threshold_that_does_not_fit_is_refused(secret: bytes, n: int, t: int) -> None:
    with pytest.raises(ShareBadError):
        split(secret, n=n, t=t, entropy=CountedEntropy())


def test_a_refusal_shows_neither_share_nor_secret() -> None:
    shares = split(SECRET, n=4, t=3, entropy=CountedEntropy(3))
    with pytest.raises(ShareBadError) as refused:
        combine({1: shares[0], 2: shares[1][:-1]})
    with pytest.raises(ShareBadError) as larger:
        combine({1: shares[0], 2: shares[1]})
    for text in (repr(refused.value), str(larger.value)):
        assert not any(
            one.hex()[:16] in text or str(int.from_bytes(one, "big"))[:12] in text for one in shares
        )


def test_t_minus_one_shares_are_uniform_whatever_the_secret() -> None:
    """Bytes of two of three shares that open, over many dealings of one secret; false alarm below 1e-6."""
    counts = {1: [0] * 256, 2: [0] * 256}
    entropy, dealings = CountedEntropy(4), 400
    for _ in range(dealings):
        for holder, share in enumerate(split(bytes(32), n=3, t=3, entropy=entropy)[:2], 1):
            for byte in share[2:]:  # the top two bytes hold nine bits
                counts[holder][byte] += 1
    expected = dealings * 64 / 256
    limit = chi2.isf(5e-7 / 2, 255)
    for found in counts.values():
        assert sum((one - expected) ** 2 for one in found) / expected < limit


def test_the_only_pattern_beyond_the_field_is_drawn_again() -> None:
    class Stuck(CountedEntropy):
        def token_bytes(self, size: int) -> bytes:
            drawn = super().token_bytes(size)
            return b"\xff" * size if self._draws == 1 else drawn

    shares = split(SECRET, n=3, t=2, entropy=Stuck(5))
    assert combine({1: shares[0], 3: shares[2]}) == SECRET
