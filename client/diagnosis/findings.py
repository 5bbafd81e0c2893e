# SPDX-License-Identifier: Apache-2.0
"""What one look found: it holds, it holds with a warning, it fails, or nobody could look.

A look is a function that gives words, or a `Finding`; or it raises. An `IriaiError` is a failure with its own
words; `SkippedError` says why nobody could look, because something that was looked at before does not hold.

    examine(Look(code="disk", fix="free some space", docs="…#7", at=lambda: free_space(home)), 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.errors import DoctorFailedError
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FAILED",
    "OK",
    "SKIPPED",
    "WARNING",
    "Check",
    "Finding",
    "Look",
    "SkippedError",
    "examine",
    "failed",
]

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Words that hold with a warning.

    Attributes:
        found: What was found.
        fix: What to do about it.
    """

    found: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One thing to look at: its code, what to do if it fails, where that is written, how to look."""

    code: str
    fix: str
    docs: str
    at: Callable[[], str | Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look found.

    Attributes:
        number: Its place in the list, from 1.
        code: Of the look.
        state: ``ok``, ``warning``, ``failed`` or ``skipped``.
        found: What was found; of a failure with the code of the error.
        remedy: What to do; also where nothing is wrong.
        docs: Page and section that say more.
    """

    number: int
    code: str
    state: str
    found: str
    remedy: str
    docs: str

    @property
    def ok(self) -> bool:
        """Whether it did not fail."""
        return self.state != FAILED


class SkippedError(Exception):
    """Nobody could look; the text says why."""


def examine(look: Look, number: int) -> Check:
    """Looks, and never raises for what was found."""
    try:
        told = look.at()
    except SkippedError as why:
        state, found, remedy = SKIPPED, str(why), look.fix
    except IriaiError as error:
        state, found, remedy = FAILED, f"{error.code}: {error.found}", error.remedy
    except OSError as error:
        state, found, remedy = FAILED, error.strerror or type(error).__name__, look.fix
    else:
        state, found, remedy = (
            (WARNING, told.found, told.fix) if isinstance(told, Finding) else (OK, told, look.fix)
        )
    return Check(number=number, code=look.code, state=state, found=found, remedy=remedy, docs=look.docs)


def failed(need: str, found: str, remedy: str) -> DoctorFailedError:
    """A failure of a look that no other error names."""
    return DoctorFailedError(need=need, found=found, remedy=remedy)
