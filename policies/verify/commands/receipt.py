# SPDX-License-Identifier: Apache-2.0
"""``receipt``: what one ``.tlog-proof`` proves under the auditor's policy.

1. it is a receipt in its one spelling; 2. a log key of the policy signed its checkpoint; 3. with
   ``--entry``: those
bytes stand at its index in the signed tree; 4. cosignatures of the policy's witnesses hold, and how many
votes they are.

Its grade is ``witnessed`` where the quorum of the policy cosigned, else ``signed``. Exit 0: everything
holds; 3: something does not; 6: no log key signed, or the grade is below ``--grade``; 7: nothing is wrong,
but without ``--entry`` nothing says of which entry it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.limits import LOG_BODY_MAX
from policies.log.checkpoint import KeyKind, open_checkpoint, open_note
from policies.log.errors import QuorumError
from policies.log.merkle import leaf_hash
from policies.log.proofs import parse_receipt
from policies.ports import iso_s
from policies.verify.commands.answers import answer, say
from policies.verify.commands.inputs import read_bounded, read_policy, read_text
from policies.verify.report import EXIT_CLEAN, EXIT_REVIEW, plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from policies.log.policy import Policy
    from policies.log.vkeys import VerifierKey

__all__ = ["run"]

Json = Any


def run(options: argparse.Namespace) -> int:
    """Runs ``receipt``."""
    policy = read_policy(options.policy)
    receipt = parse_receipt(read_text(options.file))  # 1.
    keys = [key for key in policy.logs if key.kind is KeyKind.LOG]
    leaf = None if options.entry is None else leaf_hash(_entry(options))
    checkpoint = open_checkpoint(receipt.note, keys) if leaf is None else receipt.verify(leaf, keys)  # 2. 3.
    times = _cosigned(receipt.note, policy)  # 4.
    votes = policy.voters_of(times)
    grade = "witnessed" if policy.n and policy.satisfied(times) else "signed"
    if (options.grade, grade) == ("witnessed", "signed"):
        raise QuorumError(
            need=f"cosignatures of {policy.k or 'at least 1'} of {policy.n} voters",
            found=f"{len(votes)}: {' '.join(votes) or 'nobody'}",
            remedy="ask its holder for the witnessed receipt, which its node fetches by itself",
        )
    told = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "index": receipt.index,
        "leaf": None if leaf is None else leaf.hex(),
        "included": None if leaf is None else True,
        "grade": grade,
        "votes": list(votes),
        "voters": policy.n,
        "needed": policy.k,
        "cosigned": {key.name: iso_s(time_s * 1000) for key, time_s in times.items()},
    }
    say(*_lines(told))
    if options.json:
        answer(told)
    return EXIT_REVIEW if leaf is None else EXIT_CLEAN


def _entry(options: argparse.Namespace) -> bytes:
    return read_bounded(options.entry, LOG_BODY_MAX)


def _cosigned(note: str, policy: Policy) -> Mapping[VerifierKey, int]:
    """When each witness of the policy cosigned.

    Raises:
        NoteError: A cosignature of a known witness does not hold.
    """
    try:
        opened = open_note(note, policy.witnesses.values())
    except QuorumError:
        return {}
    return {key: opened.times[key.name] for key in opened.verified}


def _lines(told: Mapping[str, Json]) -> list[str]:
    included = (
        f"the entry stands at index {told['index']} of this tree"
        if told["included"]
        else f"NOT CHECKED: of which entry it is (index {told['index']}); give its bytes with --entry"
    )
    return [
        f"log       {plain(told['origin'])}",
        f"size      {told['size']}",
        f"root      {told['root']}",
        f"included  {included}",
        *(f"cosigned  {plain(name)} at {time}" for name, time in sorted(told["cosigned"].items())),
        f"GRADE     {told['grade']}, {len(told['votes'])} of {told['voters']} votes, needed {told['needed']}",
    ]
