# SPDX-License-Identifier: Apache-2.0
"""What a person typed about a notice, before anything is signed: reason, clause and text, in their words.

`policies.contract.notices` refuses the same, in the words of a wire format; here the options are named, and
the clauses that there are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from policies.contract.errors import NoticeMalformedError
from policies.contract.grammar import strange_character
from policies.contract.notices import REASON_CODE
from policies.limits import NOTICE_TEXT_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract import Contract

__all__ = ["check_terms"]


def check_terms(contract: Contract, terms: Mapping[str, Any]) -> None:
    """Returns if reason, clause and text are what a notice may hold.

    Raises:
        NoticeMalformedError: One is not; it says what would be.
    """
    code, clause, text = terms.get("code", ""), terms.get("clause"), terms.get("text")
    if re.fullmatch(REASON_CODE, code) is None:
        raise _typed("--reason: lower-case words joined by dots or hyphens, cell.incident", code, "--reason")
    if clause is not None and contract.clause(clause) is None:
        named = " ".join(sorted({one.clause for one in contract.clauses()}))
        raise _typed(f"--clause: one of {named}", clause, "--clause, or leave it out")
    if text is None:
        return
    if not 0 < len(text) <= NOTICE_TEXT_CHARS:
        need, found = f"--text: 1 to {NOTICE_TEXT_CHARS} characters", f"{len(text)} characters"
        raise _typed(need, found, "--text, or leave it out")
    strange = strange_character(text)
    if strange is not None:
        raise _typed("--text: one line of visible characters", strange, "--text")


def _typed(need: str, found: str, option: str) -> NoticeMalformedError:
    remedy = f"nothing was said or kept: give the command again with another {option}"
    return NoticeMalformedError(need=need, found=ascii(found)[1:-1][:120], remedy=remedy)
