# SPDX-License-Identifier: Apache-2.0
"""Up to where a bundle that was just taken reaches, and who vouches for its end; in words, and no proof.

    found = look(path)
    found.words(now_ms, remedy)      lines for whoever took it

It reads the bundle's own checkpoint and the broker's copy of the policy, and trusts both: an audit decides by
the auditor's file. What cannot be read is said by no line here; the audit says it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.errors import IriaiError
from policies.limits import WITNESS_MAX_AGE_MIN
from policies.log.checkpoint import parse_checkpoint, parse_note
from policies.log.container import Container
from policies.log.errors import QuorumError
from policies.log.policy import open_witnessed, parse_policy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BundleHead", "look"]

_MAX_AGE_MS: Final = WITNESS_MAX_AGE_MIN * 60_000
_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHead:
    """The end of a bundle.

    Attributes:
        size: Entries in it.
        k: Witnesses that the policy in it asks for; 0 for none.
        vouched_ms: When the k-th newest of them cosigned; None without the quorum.
    """

    size: int
    k: int = 0
    vouched_ms: int | None = None

    def is_old(self, now_ms: int) -> bool:
        """Whether too few witnesses vouched for it lately: newer entries may wait for them."""
        return bool(self.k) and (self.vouched_ms is None or now_ms - self.vouched_ms > _MAX_AGE_MS)

    def words(self, now_ms: int, remedy: str) -> tuple[str, ...]:
        """Size, age and quorum; where it is old, what that means, and what to do."""
        said = f"reaches      {self.size} entries; "
        if not self.k:
            return (said + "no witness is asked for",)
        if self.vouched_ms is None:
            return (said + f"NOT cosigned by the {self.k} witnesses that are needed", f"next: {remedy}")
        age_s = max(0, now_ms - self.vouched_ms) // _MS
        said += f"cosigned by the {self.k} witnesses that are needed, {age_s} s ago"
        if not self.is_old(now_ms):
            return (said,)
        late = f"WARNING      no quorum for {age_s // 60} minutes; it ends before the newest entries"
        return (said, late, f"next: {remedy}")

    def to_json(self, now_ms: int) -> dict[str, int | bool | None]:
        """For programs."""
        age_s = None if self.vouched_ms is None else max(0, now_ms - self.vouched_ms) // _MS
        quorum = None if not self.k else self.vouched_ms is not None
        return {"size": self.size, "quorum": quorum, "age_s": age_s, "old": self.is_old(now_ms)}


def look(path: Path) -> BundleHead | None:
    """The end of a bundle; None if the file does not show one."""
    try:
        with path.open("rb") as file:
            number = file.fileno()
            box = Container(os.fstat(number).st_size, lambda at, length: os.pread(number, length, at))
            texts = [_text(box, number, name) for name in ("checkpoint", "policy")]
        return _head(*texts)
    except (OSError, ValueError, KeyError, IriaiError):
        return None


def _text(box: Container, number: int, name: str) -> str:
    found = box.find(name)
    if found is None:
        raise KeyError(name)
    return os.pread(number, found.size, found.start).decode("utf-8")


def _head(note: str, text: str) -> BundleHead:
    policy, size = parse_policy(text), parse_checkpoint(parse_note(note).text).size
    if not policy.k:
        return BundleHead(size=size)
    try:
        _, opened = open_witnessed(note, policy)
    except QuorumError:
        return BundleHead(size=size, k=policy.k)
    times = sorted(
        max(opened.times[key.name] for key in policy.keys_of(voter) if key.name in opened.times)
        for voter in policy.voters_of(opened.verified)
    )
    return BundleHead(size=size, k=policy.k, vouched_ms=times[-policy.k] * _MS)
