# SPDX-License-Identifier: Apache-2.0
"""What a finding needs and found, in Japanese. Records hold one text for all languages; this is for eyes.

A finding's ``need`` and ``found`` are operators, names of the contract and a few fixed phrases
(`policies.contract.findings` and the checks). Names stay as they are. A phrase that has no row here is shown
as it is recorded; a test finds one that the checks use.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import re
from typing import Final

__all__ = ["in_japanese"]

_WHOLE: Final = {
    "a clause of queries": "閲覧に関する条項",
    "a consent for each donation": "提供ごとの同意書",
    "a data set of the party": "その当事者のデータセット",
    "a digest": "ダイジェスト",
    "a key of its own for each party": "当事者ごとに異なる鍵",
    "a party": "当事者である",
    "a tier of the recipe": "そのレシピの区分",
    "about all": "プール全体に関するもの",
    "about itself, or about the pool": "自己に関するもの、またはプール全体に関するもの",
    "all": "すべて",
    "all differ": "すべて異なる",
    "an admission of each newcomer": "新たな当事者ごとの加入の確認",
    "an own view": "自己に関する閲覧",
    "another kind": "別の種類",
    "another recipe": "別のレシピ",
    "another view": "別の閲覧",
    "contributors that have not exited": "脱退していない提供者",
    "exited": "脱退済み",
    "never leaves its owner": "所有者の手元を離れない",
    "no canary fired": "カナリアの検出なし",
    "no field": "項目なし",
    "nobody": "なし",
    "none": "なし",
    "none like it": "似た出力なし",
    "not after now": "現在より後でない",
    "not exited": "脱退していない",
    "not in the cohort": "参加していない",
    "not yet": "まだ不要",
    "nothing": "なし",
    "nothing unknown": "不明な事実なし",
    "one": "あり",
    "signed by the broker and every contributor": "ブローカーと全提供者の署名",
    "the first": "最初の出力",
    "the key in force": "現在の鍵",
    "with noise": "ノイズあり",
}

# Tried in this order; the first that fits the whole text is taken.
_PATTERNS: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"unknown: (.+)", r"不明：\1"),
        (r">= (\d+) groups approve", r"\1グループ以上の賛成"),
        (r">= (\d+) groups", r"\1グループ以上"),
        (r">= (\S+) of the groups", r"グループの \1 以上"),
        (r">= made_at \+ (\d+) h", r"作成（made_at）から\1時間以後"),
        (r">= made_at \+ (\d+) d", r"作成（made_at）から\1日以後"),
        (r"(\d+) of (\d+) groups", r"\2グループ中\1グループ"),
        (r"(\d+) groups", r"\1グループ"),
        (r"(\d+) others", r"\1グループのみの差"),
        (r"the same groups as before, or (\d+) others", r"以前と同じグループ、または\1グループ以上の差"),
        (r"(\d+) to (\d+)", r"\1以上\2以下"),
        (r">= (.+)", r"\1 以上"),
        (r"<= (.+)", r"\1 以下"),
        (r"< (.+)", r"\1 未満"),
        (r"= (.+)", r"\1 に等しい"),
        (r"in nothing", r"該当なし"),
        (r"in (.+)", r"次のいずれか：\1"),
        (r"only nothing", r"なし"),
        (r"only (.+)", r"次のもののみ：\1"),
        (r"all of nothing", r"なし"),
        (r"all of (.+)", r"次のすべて：\1"),
        (r"missing (.+)", r"不足：\1"),
        (r"none of (.+)", r"次のいずれもなし：\1"),
        (r"not in nothing", r"制限なし"),
        (r"not in (.+)", r"次のいずれでもない：\1"),
        (r"signed by the broker and .*who asks.*", "ブローカーと申し出た提供者の署名"),
        (r"not signed by (.+)", r"署名なし：\1"),
        (r"no veto of an owner of nothing", r"拒否なし"),
        (r"no veto of an owner of (.+)", r"次の条項の当事者による拒否なし：\1"),
        (r"veto of (.+)", r"拒否：\1"),
        (r"no contributor of group (.+)", r"グループ \1 の提供者なし"),
        (r"about (.+)", r"\1 に関するもの"),
        (r"equal weights, one for each of (.+)", r"\1 のそれぞれに等しい重み"),
        (r"fixed weights, one for each of (.+)", r"\1 のそれぞれに定められた重み"),
        (r"(\S+Z), now (\S+Z)", r"\1、現在 \2"),
        (r"(\S+Z), made_at (\S+Z)", r"\1、作成（made_at） \2"),
    )
)


def in_japanese(text: str) -> str:
    """A finding's ``need`` or ``found`` in Japanese; names, numbers and what has no row stay as they are."""
    if text in _WHOLE:
        return _WHOLE[text]
    for pattern, words in _PATTERNS:
        if (found := pattern.fullmatch(text)) is not None:
            return found.expand(words)
    return text
