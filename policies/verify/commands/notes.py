# SPDX-License-Identifier: Apache-2.0
"""Notes and receipts that the auditor names: what is none is told as a slip, before the log is judged by it.

- ``--since`` is a signed note; the slip that lies nearest is to give the conclusion instead of the note that
  `conclude` wrote beside it;
- of ``--receipts`` at least one file is a receipt. The others are named and counted as not checked
  (`policies.verify.checkpoints`): a file that one member got wrong spoils nobody's audit.

Whether they hold is for the rules to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.errors import EncodingError
from policies.log.checkpoint import parse_checkpoint, parse_note
from policies.log.errors import LogError
from policies.log.proofs import parse_receipt
from policies.verify.commands.inputs import read_receipts, read_text
from policies.verify.errors import InputError
from policies.verify.report import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from policies.log.checkpoint import Checkpoint

__all__ = ["RECEIPT", "given_receipts", "note_of", "read_since"]

RECEIPT = "c2sp.org/tlog-proof@"
_ENVELOPE = "{"


def note_of(path: Path, text: str, what: str) -> Checkpoint:
    """The checkpoint of a note, nobody's signature checked.

    Args:
        path: Of its file.
        text: Of the file.
        what: That it is given for, in words.

    Raises:
        InputError: It is no signed note.
    """
    try:
        return parse_checkpoint(parse_note(text).text)
    except (LogError, EncodingError) as error:
        raise InputError(
            need=f"{what}: a signed note of a checkpoint",
            found=plain(f"{path.name}: {_looks(text) or 'none, it lacks ' + error.need}"),
            remedy=_remedy(path, text),
        ) from error


def _looks(text: str) -> str:
    if text.lstrip().startswith(_ENVELOPE):
        return "an envelope in JSON"
    return "a receipt" if text.startswith(RECEIPT) else ""


def _remedy(path: Path, text: str) -> str:
    if _looks(text) and path.suffix == ".dsse":
        return f"that is the conclusion itself; give {plain(path.name)}.checkpoint, written beside it"
    return "give the .checkpoint file that `conclude` wrote, or a note that you kept, unchanged"


def read_since(path: Path | None) -> str | None:
    """Text of the note that ``--since`` names.

    Raises:
        InputError: It is none.
    """
    if path is None:
        return None
    text = read_text(path)
    note_of(path, text, "--since")
    return text


def given_receipts(folder: Path | None) -> Mapping[str, str]:
    """Texts of a folder's receipts by file name.

    Raises:
        InputError: Not one of them is a receipt.
    """
    texts = read_receipts(folder)
    if texts and not any(_is_receipt(text) for text in texts.values()):
        raise InputError(
            need="--receipts: at least one receipt",
            found=plain(f"{len(texts)} files that are none, like {min(texts)}"),
            remedy="ask the members for the files as their nodes keep them, unchanged",
        )
    return texts


def _is_receipt(text: str) -> bool:
    try:
        parse_receipt(text)
    except (LogError, EncodingError):
        return False
    return True
