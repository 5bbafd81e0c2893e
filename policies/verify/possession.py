# SPDX-License-Identifier: Apache-2.0
"""AUD-013, the part about keys that nobody may hold: each witness in force was shown to hold its key.

1. Its statement in ``witnesses/`` is signed by the witness key as well (`policies.log.witness_keys`); or it
   cosigned a checkpoint of the bundle, which only its holder can. That says nothing of whose the key is: the
   report tells which witnesses have no more to show (statements of earlier versions).
2. Each has a statement: it is its owner who names a key, and who changes it. Who signed it
   `policies.verify.statements` looks at. A member's view may lack those of others.

That two keys are of two people, no signature shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.encoding import parse
from policies.errors import IriaiError
from policies.log.checkpoint import parse_note
from policies.log.cosignature import open_line
from policies.log.entries import EntryType
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import shows_possession
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.verify.checkpoints import Cosigned
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_possession"]

_MORE = 3  # of those that the report names


def check_possession(history: History, note: str, cosigned: Sequence[Cosigned], report: Report) -> None:
    """AUD-013 for every witness that the log has at its end.

    Args:
        history: Of the bundle.
        note: Of the bundle's checkpoint.
        cosigned: Published checkpoints with the cosignatures of the auditor's policy.
        report: Gets the findings.
    """
    in_force = _in_force(history)
    if not in_force:
        return
    stated = _stated(history)
    held = {key.text() for one in cosigned for key in one.times} | _on(note, in_force)
    leant = []
    for vkey, (index, took_a_place) in in_force.items():
        if stated.get(vkey):
            continue
        name = vkey.partition("+")[0]
        if vkey not in stated and (took_a_place or history.grade == "auditor"):  # 2.
            said = "changes" if took_a_place else "names"
            report.add("AUD-013", f"no statement of its owner {said} the key of {name}", index=index)
        if vkey not in held:  # 1.
            report.add("AUD-013", f"nobody has shown to hold the key of {name}", index=index)
        elif vkey in stated or history.grade != "auditor":
            leant.append(name)
    if leant:
        shown = " ".join(sorted(leant)[:_MORE]) + " …" * (len(leant) > _MORE)
        report.not_checked(
            f"AUD-013: that {len(leant)} witness keys are held by whom they are named after, which they state"
            f" with no signature of the key itself: {shown}"
        )


def _in_force(history: History) -> dict[str, tuple[int, bool]]:
    """Witness keys that the log has at its end: where each came, and whether it took another one's place."""
    found: dict[str, tuple[str, int, bool]] = {}
    gone: tuple[int, str] | None = None
    for index, entry in history.of(EntryType.WITNESS_ADDED, EntryType.WITNESS_REMOVED):
        name = entry.pub["witness"]
        if entry.type is EntryType.WITNESS_REMOVED:
            found.pop(name, None)
            gone = (index, name)
        else:
            found[name] = (entry.pub["vkey"], index, gone == (index - 1, name))
    return {vkey: (index, took_a_place) for vkey, index, took_a_place in found.values()}


def _stated(history: History) -> dict[str, bool]:
    """Witness keys that statements of the bundle name, and whether one of these is signed by the key."""
    found: dict[str, bool] = {}
    for _, data in history.files.under("witnesses/"):
        try:
            envelope = Envelope.from_bytes(data)
            vkey = parse(envelope.payload)["vkey"]
            found.setdefault(vkey, False)
            found[vkey] |= shows_possession(envelope, VerifierKey.parse(vkey))
        except (IriaiError, KeyError, TypeError, AttributeError):
            continue  # a finding of `policies.verify.statements`
    return found


def _on(note: str, vkeys: Iterable[str]) -> set[str]:
    """Which of these keys cosigned a note, the auditor's policy or not."""
    found = set()
    parsed = parse_note(note)
    for vkey in vkeys:
        try:
            key = VerifierKey.parse(vkey)
        except IriaiError:
            continue  # likewise
        for line in _lines(note):
            try:
                open_line(line, parsed.text, [key])
            except IriaiError:
                continue
            found.add(vkey)
    return found


def _lines(note: str) -> list[str]:
    return [line + "\n" for line in note.split("\n\n", 1)[1].split("\n") if line]
