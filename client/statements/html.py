# SPDX-License-Identifier: Apache-2.0
"""A privacy statement as one HTML file: no script, no foreign request, readable in print and in the dark."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, Final

from policies.privacy.statement import PRIVATE
from policies.privacy.statement_words import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.privacy.statement_words import Beside

__all__ = ["html_page"]

_TITLE: Final = {"en": "Privacy statement", "ja": "プライバシー・ステートメント"}
_SIGNED: Final = {"en": "The signed document", "ja": "署名された文書"}
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 1rem/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.private { border-inline-start: .4rem solid #2e7d32; padding-inline-start: 1rem; }
.not-private { border-inline-start: .4rem solid #c62828; padding-inline-start: 1rem; font-weight: 600; }
pre { overflow-x: auto; font-size: .8rem; }
"""


def html_page(document: Mapping[str, Any], *, lang: str = "en", beside: Beside | None = None) -> str:
    """The page of a statement that was checked.

    Args:
        document: The statement.
        lang: ``en`` or ``ja``.
        beside: What this node knows beside it.
    """
    body = []
    for number, (heading, sentences) in enumerate(page(document, lang=lang, beside=beside)):
        mark = ""
        if number == 0:  # the verdict
            mark = ' class="private"' if document["verdict"] == PRIVATE else ' class="not-private"'
        lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        body.append(f"<section{mark}><h2>{escape(heading)}</h2>{lines}</section>")
    signed = escape(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True))
    return (
        f'<!doctype html>\n<html lang="{escape(lang)}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_TITLE[lang])}</title><style>{_STYLE}</style></head>\n"
        f'<body><main data-screen="privacy-statement"><h1>{escape(_TITLE[lang])}</h1>{"".join(body)}'
        f"<details><summary>{escape(_SIGNED[lang])}</summary><pre>{signed}</pre></details></main></body></html>\n"
    )
