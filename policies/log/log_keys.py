# SPDX-License-Identifier: Apache-2.0
"""A log's next key, proven under the key before it: who pinned the old one needs nobody's word for the new.

`proven_key` checks, in this order:
1. the new key is a log's own, under the same name;
2. the entry is a ``key.rotated`` of the role ``log`` of that log, from the key that is given up to exactly
   this one;
3. the key that is given up is one that the caller believes;
4. the entry is in the tree of a checkpoint that the key that is given up has signed. A signature by the new
   key counts for nothing here.

That the checkpoint is of the history that the caller knows is the caller's to see to.

    key = proven_key(vkey, entry=entry, proof=proof, believed=(pinned,))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.errors import EncodingError
from policies.log.entries import EntryType, check_entry
from policies.log.errors import LogError, LogKeyUnprovenError
from policies.log.merkle import leaf_hash
from policies.log.proofs import parse_receipt
from policies.log.vkeys import KeyKind, VerifierKey

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["proven_key"]


def proven_key(vkey: str, *, entry: str, proof: str, believed: Sequence[VerifierKey]) -> VerifierKey:
    """The new key, once it is proven; see the module for the steps.

    Args:
        vkey: Text of the new key.
        entry: Text of the bytes of ``key.rotated``.
        proof: Text of its receipt (tlog-proof).
        believed: The log's keys that the caller believes, at least one.

    Raises:
        LogKeyUnprovenError: It is not.
    """
    try:
        key = VerifierKey.parse(vkey)  # 1.
        if key.kind is not KeyKind.LOG or key.name != believed[0].name:
            raise _unproven(f"a key of the log {believed[0].name}", "one of something else")
        told = check_entry(entry.encode("utf-8"))  # 2.
        if told.type is not EntryType.KEY_ROTATED or told.pub["role"] != "log" or told.log != key.name:
            raise _unproven("an entry key.rotated about the log's key", f"{told.type.value}")
        if told.pub["new"] != digest(key.public_key):
            raise _unproven(f"an entry about {digest(key.public_key)}", str(told.pub["new"]))
        old = next((one for one in believed if digest(one.public_key) == told.pub["old"]), None)  # 3.
        if old is None:
            raise _unproven("a key that follows one that is believed", str(told.pub["old"]))
        parse_receipt(proof).verify(leaf_hash(told.body), [old])  # 4.
    except LogKeyUnprovenError:
        raise
    except (LogError, EncodingError) as error:
        raise _unproven(error.need, error.found) from error
    return key


def _unproven(need: str, found: str) -> LogKeyUnprovenError:
    return LogKeyUnprovenError(
        need=need,
        found=found,
        remedy="compare the log's key with the operator and the other members by telephone; keep the old one",
    )
