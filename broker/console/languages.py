# SPDX-License-Identifier: Apache-2.0
"""English and Japanese: catalogues, and how moments, numbers and sizes are written in each.

- The msgids are English; ``locale/ja/LC_MESSAGES/*.po`` hold the Japanese, one file per room. All of them
  are read once and merged; a msgid that two files translate differently is an error at start.
- A language that is asked for and not there is English.
"""

from __future__ import annotations

import datetime as dt
import functools
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from babel import Locale
from babel.dates import format_timedelta
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

from policies.ports import from_ms, iso_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LANGUAGES", "LOCALE", "Speech", "catalogue", "chosen", "speech"]

LANGUAGES: Final = ("en", "ja")
LOCALE: Final = Path(__file__).parent / "locale"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_THOUSAND: Final = 1000


@functools.cache
def catalogue(lang: str, folder: Path = LOCALE) -> Mapping[str, str]:
    """Msgid to text; empty for English.

    Raises:
        ValueError: Two rooms translate one msgid differently.
    """
    found: dict[str, str] = {}
    for path in sorted((folder / lang / "LC_MESSAGES").glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=lang):
                if not (isinstance(message.id, str) and message.id and message.string) or message.fuzzy:
                    continue
                if found.setdefault(message.id, str(message.string)) != message.string:
                    raise ValueError(f"{path.name}: another translation of {message.id!r}")
    return MappingProxyType(found)


def chosen(*wishes: str | None, accept: str = "") -> str:
    """The first language that is ours: explicit wishes first, then what the browser accepts, then English."""
    accepted = (one.split(";")[0].strip() for one in accept.split(","))
    for wish in (*wishes, *accepted):
        name = (wish or "").lower().partition("-")[0]
        if name in LANGUAGES:
            return name
    return "en"


class Speech:
    """How one language says things."""

    def __init__(self, lang: str, messages: Mapping[str, str]) -> None:
        self.lang = lang
        self.locale = Locale.parse(lang)
        self._messages = messages

    def message(self, msgid: str) -> str:
        """The text of a msgid, with its places for values."""
        return self._messages.get(msgid, msgid)

    def number(self, value: float) -> str:
        """A number with the separators of the language."""
        return format_decimal(value, locale=self.locale)

    def share(self, part: float) -> str:
        """A part of a whole in per cent."""
        return format_percent(part, format="0.#%", locale=self.locale)

    def moment(self, ms: int) -> str:
        """A moment in UTC; the page adds the reader's own time where scripts run."""
        at = from_ms(ms)  # by hand, not by CLDR: a page may have hundreds
        if self.lang == "ja":
            return f"{at:%Y/%m/%d} {at.hour}:{at:%M:%S} UTC"
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"

    def machine(self, ms: int) -> str:
        """A moment for the attribute ``datetime``."""
        return iso_s(ms)

    def away(self, ms: int, now_ms: int) -> str:
        """How long ago or how far ahead: ``3 seconds ago``, ``2 時間後``."""
        if abs(ms - now_ms) < _THOUSAND:
            return {"ja": "今"}.get(self.lang, "now")
        return format_timedelta(
            dt.timedelta(milliseconds=ms - now_ms), add_direction=True, threshold=1.2, locale=self.locale
        )

    def length(self, ms: int) -> str:
        """A length of time."""
        if ms < _THOUSAND:
            return f"{ms} ms"
        return format_timedelta(dt.timedelta(milliseconds=ms), threshold=1.2, locale=self.locale)

    def size(self, number: int) -> str:
        """A size in bytes, with three digits or so."""
        value, unit = float(number), 0
        while value >= _THOUSAND and unit < len(_UNITS) - 1:
            value, unit = value / _THOUSAND, unit + 1
        return f"{format_decimal(round(value, 1 if unit else 0), locale=self.locale)} {_UNITS[unit]}"

    def join(self, parts: Iterable[str]) -> str:
        """An enumeration."""
        return ("、" if self.lang == "ja" else ", ").join(parts)


@functools.cache
def speech(lang: str) -> Speech:
    """How a language of `LANGUAGES` says things."""
    return Speech(lang, catalogue(lang))
