# SPDX-License-Identifier: Apache-2.0
"""What a person said about findings 9 and 10: the episodes may stay as they are. By name and time, kept here.

- Only findings about the set are answered by a person (near duplicates, lengths); a failed check of an
  episode is not a matter of opinion.
- An answer is about exactly these episodes: one more of them, and the finding is open again.
- It has to be given before the lineage is sealed, that is, before its first budget is opened: afterwards the
  data are what they are.

The answers lie beside the data sets, ``<root>/quality/<data set>/accepted.json``; they never leave.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.data.catalogue import check_dataset_name
from client.data.errors import DataError, SealedError, StoreDamagedError
from client.settings import write_durably
from policies.encoding import canonical, digest
from policies.ports import Clock, iso_s
from policies.quality_certificate import CHECKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from client.data.quality.finding import CheckName, Finding

__all__ = ["ANSWERABLE", "Accepted", "accept", "answers_of", "folder_of", "is_answered"]

ANSWERABLE: Final[tuple[CheckName, ...]] = ("duplicates", "lengths")
_NAME_CHARS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One answer: which finding, about which episodes (digest of their ids), by whom and when."""

    check: str
    about: str
    by: str
    at: str

    def as_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {name: getattr(self, name) for name in self.__slots__}


def folder_of(root: Path, dataset: str) -> Path:
    """Where answers and certificate of a data set lie."""
    return root / "quality" / check_dataset_name(dataset).replace("/", "+")


def about(finding: Finding) -> str:
    """Digest of what a finding is about: the check and its episodes, in any order."""
    return digest(canonical({"check": finding.check, "episodes": sorted(finding.episodes)}))


def answers_of(root: Path, dataset: str) -> tuple[Accepted, ...]:
    """The answers so far.

    Raises:
        StoreDamagedError: The file is not what `accept` writes.
    """
    path = folder_of(root, dataset) / "accepted.json"
    try:
        return tuple(Accepted(**row) for row in json.loads(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamagedError(
            need="the answers as they were given",
            found=f"{path.name}: {type(error).__name__}",
            remedy="restore the file from a backup, or remove it and answer again",
        ) from error


def is_answered(finding: Finding, answers: Sequence[Accepted]) -> bool:
    """Whether somebody accepted exactly this finding."""
    return any(one.check == finding.check and one.about == about(finding) for one in answers)


def accept(
    root: Path,
    dataset: str,
    findings: Sequence[Finding],
    check: int | str,
    *,
    by: str,
    clock: Clock,
    sealed: bool,
) -> Accepted:
    """Records that a person accepts a finding.

    Args:
        root: Folder of the store.
        dataset: Its name.
        findings: Of the report that the person saw.
        check: 9 or 10, or the check's name.
        by: Who says so.
        clock: When.
        sealed: Whether a budget over the lineage was opened already.

    Raises:
        SealedError: It was.
        DataError: No such finding, or one that nobody may accept.
    """
    named = CHECKS[check - 1] if isinstance(check, int) and 0 < check <= len(CHECKS) else str(check)
    finding = next((one for one in findings if one.check == named and one.state == "FAIL"), None)
    if named not in ANSWERABLE or finding is None:
        raise DataError(
            need="an open finding of check 9 (duplicates) or 10 (lengths)",
            found=ascii(named)[:40],
            remedy="iriai-node data check lists what is open; other checks are mended at the source",
        )
    if not by.strip() or len(by) > _NAME_CHARS:
        raise DataError(
            need="the name of who accepts it", found="none, or too long a one", remedy="name a person"
        )
    if sealed:
        raise SealedError(
            need="an answer before the first use of the data",
            found="a lineage whose budget is open",
            remedy="import what you want to keep into a new block",
        )
    answer = Accepted(check=named, about=about(finding), by=by.strip(), at=iso_s(clock.now_ms()))
    answers = [
        one for one in answers_of(root, dataset) if (one.check, one.about) != (answer.check, answer.about)
    ]
    kept = canonical([one.as_dict() for one in (*answers, answer)])
    write_durably(folder_of(root, dataset) / "accepted.json", kept)
    return answer
