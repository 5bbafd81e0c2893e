# SPDX-License-Identifier: Apache-2.0
"""Canaries: made-up units whose place in the training set a node draws by lot. Standard library only.

A node draws a seed and a salt before it trains in a run, logs the digest of both (``canary.committed``),
trains on those canaries whose coin shows 1, and shows seed and salt once the run is over
(``canary.revealed``). Everything follows from the seed by HKDF-SHA256 (RFC 5869), so whoever has it makes the
same canaries and compares how well a model knows those that were in with those that were not.

- The commitment binds the run. Another seed, salt or coin than the committed ones is refused: `check_reveal`.
- The number per party is public: it follows from the contract (`per_party`), and holds `CANARIES_MIN` over
  the smallest cohort that the contract lets through.
- Canaries are synthetic. They carry no one's data, count in no settlement, and a node takes no more than one
  for every `UNITS_PER_CANARY` of its units.

    secret = CanarySecret(run=run, seed=entropy.token_bytes(32), salt=entropy.token_bytes(16), count=22)
    secret.commitment, secret.flips      # sha256:…, "0110…"
    check_reveal(run=run, body=revealed, commitment=committed, count=22)   # the secret, or an error
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import digest, new_id
from policies.limits import CANARIES_MIN, UNITS_PER_CANARY
from policies.privacy.errors import AuditFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "SALT_BYTES",
    "SEED_BYTES",
    "CanarySecret",
    "check_reveal",
    "per_party",
    "units_needed",
]

Json = Any
SEED_BYTES: Final = 32
SALT_BYTES: Final = 16
_TAG: Final = b"iriai-canary/1"
_ASKING: Final = frozenset({"canary-report", "membership-inference-report"})
_HASH: Final = 32
_BLOCKS: Final = 255  # that one HKDF-Expand gives


def per_party(evidence: Iterable[str], min_parties: int) -> int:
    """How many canaries each party draws under a contract; 0 where its release asks for no such report.

    Args:
        evidence: That the contract's release asks for.
        min_parties: The smallest cohort of the contract: whoever takes part, there are enough canaries.
    """
    return 0 if _ASKING.isdisjoint(evidence) else -(-CANARIES_MIN // max(1, min_parties))


def units_needed(count: int) -> int:
    """How many units of its own a party needs beside so many canaries."""
    return count * UNITS_PER_CANARY


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySecret:
    """What a node keeps to itself until its run is over, and all that follows from it.

    Attributes:
        run: The run.
        seed: 32 bytes; canaries and coins follow from them.
        salt: 16 bytes; nobody guesses the seed from the commitment.
        count: Number of canaries, in the training set or not.
    """

    run: str
    seed: bytes
    salt: bytes
    count: int

    @property
    def commitment(self) -> str:
        """Digest that is logged before the run."""
        return digest(b"\x00".join((_TAG, self.run.encode("ascii"), self.seed + self.salt)))

    @property
    def audit(self) -> str:
        """Id of this party's audit in this run."""
        return new_id("aud", hashlib.sha256(self.commitment.encode("ascii")).digest()[:10])

    @property
    def flips(self) -> str:
        """One coin per canary: ``1`` is in the training set, ``0`` is not."""
        drawn = _expand(self.seed, b"flips", self.count)
        return "".join(str(one & 1) for one in drawn)

    @property
    def trained(self) -> tuple[int, ...]:
        """Numbers of the canaries that enter the training set."""
        return tuple(number for number, coin in enumerate(self.flips) if coin == "1")

    def unit_id(self, number: int) -> bytes:
        """Unit of protection of a canary; never one of the node's own."""
        return _expand(self.seed, b"unit %d" % number, _HASH)

    def stream(self, number: int, size: int) -> bytes:
        """Bytes from which the content of a canary is made."""
        return _expand(self.seed, b"content %d" % number, size)

    @property
    def committed(self) -> dict[str, Json]:
        """Body of ``canary.committed``."""
        return {"commitment": self.commitment, "audit": self.audit}

    @property
    def revealed(self) -> dict[str, Json]:
        """Body of ``canary.revealed``."""
        return {
            "seed": digest(self.seed),
            "audit": self.audit,
            "canary_seed": f"{self.seed.hex()}.{self.salt.hex()}",
            "flips": self.flips,
        }


def check_reveal(*, run: str, body: Mapping[str, Json], commitment: str, count: int) -> CanarySecret:
    """The secret behind a ``canary.revealed``, once it is the committed one.

    1. seed and salt are readable, and ``seed`` is the seed's digest; 2. their commitment is the logged one;
    3. there are as many coins as the contract says; 4. each shows what the seed gives; 5. the id is theirs.

    Raises:
        AuditFailedError: Something else is revealed than was committed to.
    """
    try:
        seed, salt = (bytes.fromhex(part) for part in str(body["canary_seed"]).split("."))
    except ValueError as error:
        raise _altered("seed and salt of the commitment", "nothing that can be read") from error
    flips = body["flips"]
    if (len(seed), len(salt)) != (SEED_BYTES, SALT_BYTES) or body["seed"] != digest(seed):  # 1.
        raise _altered("a seed with the digest beside it", "another")
    secret = CanarySecret(run=run, seed=seed, salt=salt, count=count)
    if secret.commitment != commitment:  # 2.
        raise _altered(f"the seed behind {commitment}", "another seed")
    if not isinstance(flips, str) or len(flips) != count:  # 3.
        raise _altered(f"{count} coins", "another number")
    if flips != secret.flips:  # 4.
        raise _altered("the coins that follow from the seed", "others")
    if body["audit"] != secret.audit:  # 5.
        raise _altered(f"audit {secret.audit}", "another id")
    return secret


def _altered(need: str, found: str) -> AuditFailedError:
    return AuditFailedError(
        need=need, found=found, remedy="the reveal stays out of the report; its node has to explain"
    )


def _expand(seed: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3) of a uniform key, as often as needed, each time under its own label."""
    found = b""
    while len(found) < size:
        info = b"\x00".join((_TAG, label, b"%d" % len(found)))
        block = b""
        for number in range(1, _BLOCKS + 1):
            block = hmac.digest(seed, block + info + bytes((number,)), "sha256")
            found += block
            if len(found) >= size:
                break
    return found[:size]
