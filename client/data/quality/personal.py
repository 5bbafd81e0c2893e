# SPDX-License-Identifier: Apache-2.0
"""Check 12: personal data. A failure refuses the import, so that nothing of it is ever stored.

Looked for: an address of mail; a badge number (a word such as badge, employee, operator and digits); a
person by title (Mr, Ms, Frau, さん ...); a column whose name says that it holds people; video or audio
without the id of a consent. No list finds every name: that the recording holds none is what its owner
declares by importing it, and this check finds what owners overlook. What was found is never repeated in the
refusal, only where.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from client.data.errors import PersonalDataError
from client.data.quality.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from client.data.series import Series
    from client.data.signalmap import SignalMap

__all__ = ["check_personal", "refuse_personal", "texts_of"]

_MAIL: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})+")
_PEOPLE: Final = (
    r"badge|employee|staff|personnel|operator|worker|technician|mitarbeiter|bediener|personalnummer"
    r"|社員|従業員|作業者|作業員|担当者|オペレーター"
)
_BADGE: Final = re.compile(rf"(?:{_PEOPLE})(?:番号|コード|id|no|nr)?[\s_#:.=-]{{0,3}}\d{{3,}}", re.IGNORECASE)
_TITLE: Final = re.compile(
    r"(?<!\w)(?:Mr|Mrs|Ms|Dr|Herr|Frau|Mme)\.?\s+[A-ZÀ-Þ][\w'-]+|[\u3040-\u30ff\u4e00-\u9fff]{1,8}(?:さん|様|氏)(?!\w)"
)
_COLUMN: Final = re.compile(
    rf"(?:^|[\W_])(?:{_PEOPLE}|e-?mail|first_?name|last_?name|full_?name|user_?name|surname|氏名|名前)(?:$|[\W_]|name|id)",
    re.IGNORECASE,
)
_WORDS: Final = 100_000  # different words of one column that are looked at; more is no label


def check_personal(
    texts: Mapping[str, Iterable[str]], *, media: Collection[str] = (), consent: str | None = None
) -> Finding:
    """FAIL: something that names a person, or video or audio without a consent id.

    Args:
        texts: Name of a column, or of what else is kept as words, to its values.
        media: Channels of video or audio in the source.
        consent: Id of the consent of those who are seen or heard.
    """
    for name in sorted(texts):
        words = [word for word in texts[name] if word][:_WORDS]
        if words and _COLUMN.search(name):
            return _found("people-column", name)
        for why, pattern in (("e-mail", _MAIL), ("badge", _BADGE), ("name", _TITLE)):
            if any(pattern.search(word) for word in words):
                return _found(why, name)
    if media and not consent:
        return _found("media-without-consent", min(media))
    return Finding(check="personal", state="PASS")


def _found(why: str, where: str) -> Finding:
    return Finding(check="personal", state="FAIL", why=why, figures={"where": ascii(where)[1:-1][:80]})


def texts_of(series: Series, signals: SignalMap) -> dict[str, set[str]]:
    """The mapped words of a series, each once: what labels, cuts and units are read from."""
    found = {
        column: {str(word) for word in series.texts[column]}
        for column in signals.text_columns
        if column in series.texts
    }
    if series.declared is not None:
        found["task"] = {series.declared.task}
    return found


def refuse_personal(
    texts: Mapping[str, Iterable[str]], *, media: Collection[str] = (), consent: str | None = None
) -> None:
    """Refuses an import that check 12 fails.

    Raises:
        PersonalDataError: It names the place and the kind, never the value.
    """
    found = check_personal(texts, media=media, consent=consent)
    if found.state != "FAIL":
        return
    where = found.figures["where"]
    if found.why == "media-without-consent":
        raise PersonalDataError(
            need="the id of a consent for video and audio",
            found=f"{where} without one",
            remedy="remove the channel at the source, or import with --consent ID",
        )
    raise PersonalDataError(
        need="words that name no person",
        found=f"{found.why} in {where}",
        remedy="remove it at the source; the original stays untouched",
    )
