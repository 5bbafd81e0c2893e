# SPDX-License-Identifier: Apache-2.0
"""What a check says: that something holds, or what is wrong, what to do, and where to read on."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DOCS", "Check", "FailedError", "looked"]

DOCS: Final = "docs/how-to/operator.md#10-doctor"


class FailedError(Exception):
    """What is wrong, and what to do; a check ends with it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        number: Its place; the same for the same program.
        code: Stable name.
        ok: Whether it holds.
        found: What was found.
        remedy: What to do if it does not hold; empty if it does.
        docs: Where to read on.
    """

    number: int
    code: str
    ok: bool
    found: str
    remedy: str = ""
    docs: str = DOCS


def looked(number: int, code: str, look: Callable[[], str]) -> Check:
    """Runs one check; what it cannot look at counts as failed."""
    try:
        return Check(number=number, code=code, ok=True, found=look())
    except FailedError as error:
        found, remedy = error.found, error.remedy
    except IriaiError as error:
        found, remedy = f"{error.code}: {error.found}", error.remedy
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        found, remedy = f"{where}{error.strerror or type(error).__name__}", "look at the file and its rights"
    except (SQLAlchemyError, sqlite3.Error) as error:
        said = str(getattr(error, "orig", None) or error)
        found, remedy = (
            f"database: {said[:200]}",
            "see that the file, or the server, is there and may be read",
        )
    return Check(number=number, code=code, ok=False, found=found, remedy=remedy)
