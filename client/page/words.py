# SPDX-License-Identifier: Apache-2.0
"""The languages of the page: which one a reader gets, and the sentences in it.

A sentence is known by its English text. ``locale/ja/LC_MESSAGES/page.po`` is read once at the start; a
sentence that is missing there, or marked fuzzy, is shown in English and fails a test.

    words = words_of(language(asked="ja", accepted="en-US,ja;q=0.8"))
    words.sentence("Budget")                        # 予算
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LANGUAGES", "Words", "catalogue", "language", "sentences_in", "words_of"]

LANGUAGES: Final = ("en", "ja")
_ACCEPT_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Words:
    """The sentences of one language."""

    lang: str
    told: Mapping[str, str]

    def sentence(self, msgid: str) -> str:
        """A sentence; in English where the language lacks it."""
        return self.told.get(msgid) or msgid


def language(asked: str | None, accepted: str = "") -> str:
    """The language of an answer: what the address asks for, what the browser prefers, English."""
    if asked in LANGUAGES:
        return asked
    found: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:_ACCEPT_CHARS].split(",")):
        name, _, quality = part.strip().partition(";q=")
        base = name.split("-")[0].strip().lower()
        if base in LANGUAGES:
            found.append((-_quality(quality), place, base))
    return min(found)[2] if found else "en"


def _quality(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


@cache
def catalogue(lang: str) -> Mapping[str, str]:
    """Sentences of a language by their English text; none for English itself."""
    if lang == "en":
        return {}
    with files("client.page").joinpath("locale", lang, "LC_MESSAGES", "page.po").open("rb") as file:
        return sentences_in(file, lang)


def sentences_in(file: IO[bytes], lang: str) -> Mapping[str, str]:
    """What a file of translations says, by the English text; nothing that is fuzzy."""
    from babel.messages.pofile import read_po

    return {str(one.id): str(one.string) for one in read_po(file, locale=lang) if one.id and not one.fuzzy}


@cache
def words_of(lang: str) -> Words:
    """The words of a language."""
    return Words(lang, catalogue(lang))
