# SPDX-License-Identifier: Apache-2.0
"""The node's own words around a contract, in English and Japanese; the clauses' words are the contract's.

    word("en", "trains", recipe="pick", datasets="kita/pick", rounds=500, steps=50)

Software never obeys these sentences. A key that is missing in a language is our bug and fails a test.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WORDS", "terms", "word"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    # contract show
    "contract": ("contract", "契約"),
    "title": ("title", "表題"),
    "version": ("version {version}", "第{version}版"),
    "supersedes": ("version {version}, supersedes {digest}", "第{version}版（{digest} を置き換える）"),
    "state": ("state", "状態"),
    "you-are": ("you are", "当事者"),
    "signed-by-all": ("executed: everybody signed", "締結済み：全員が署名"),
    "not-signed-by-all": ("not executed yet: not everybody has signed", "未締結：署名がそろっていない"),
    "duties": ("What it means for you", "貴社にとっての意味"),
    "trains": (
        (
            "Recipe {recipe} trains on {datasets} for {purpose}: at most {rounds} rounds in all runs"
            " together, {steps} steps a round."
        ),
        (
            "レシピ {recipe} は目的 {purpose} のため {datasets} で学習する：全実行を合わせて"
            "最大 {rounds} ラウンド、1 ラウンドに最大 {steps} ステップ。"
        ),
    ),
    "trains-nothing": ("No recipe reads a data set of yours.", "貴社のデータを読むレシピはない。"),
    "fields": ("Only these fields may be read: {fields}.", "読めるのは次の項目のみ：{fields}。"),
    "secret": (
        "Never read, your trade secrets: {fields}.",
        "貴社の営業秘密につき決して読まれない：{fields}。",
    ),
    "caps": (
        "Your epsilon is at most {release} per release ([{release_clause}]), {total} in all; delta {delta}.",
        "貴社の ε は 1 回の公開につき最大 {release}（[{release_clause}]）、合計 {total}、δ は {delta}。",
    ),
    "no-caps": (
        "NOT PRIVATE: there is no cap, models may reveal episodes.",
        "プライバシー保護なし（NOT PRIVATE）：上限がなく、モデルからエピソードが漏れうる。",
    ),
    "left": (
        "Of your budget {percent} % is left: epsilon {spent} is spent, {held} with what is held, of {cap}.",
        "予算の残りは {percent} %：消費 ε {spent}、予約を含め {held}、上限 {cap}。",
    ),
    "left-unknown": (
        "What is spent of your budget is not known ({code}): {found}. To do: {remedy}.",
        "予算の消費額は不明（{code}）：{found}。対処：{remedy}。",
    ),
    "untouched": ("Nothing of your budget is spent.", "予算は未消費。"),
    "receives": (
        "Model {model} goes to {recipients} (tier {tier}, {licence}){when}.",
        "モデル {model} は{recipients}へ（区分 {tier}、{licence}）{when}。",
    ),
    "stays": (
        "Model {model} of tier private stays with its owner.",
        "区分 private のモデル {model} は所有者の手元に残る。",
    ),
    "when": (", once {requires} are satisfied", "、{requires} を満たした後"),
    "embargo": (", {days} days after its last average", "、最後の集約から {days} 日後"),
    "min-share": (", to who contributed at least {share}", "、寄与が {share} 以上の者へ"),
    "you-too": (", you among them", "（貴社を含む）"),
    "exit": (
        (
            "You may leave with {days} days' notice: released models are kept, unreleased ones"
            " {choice}. Your influence on released models is bounded, it is not erased."
        ),
        (
            "{days} 日前の通知で脱退できる：公開済みモデルは残り、未公開モデルは{choice}。"
            "公開済みモデルへの影響は抑えられるが、消去はされない。"
        ),
    ),
    "halt": ("May halt everything at once: {who}.", "即時に全体を停止できる者：{who}。"),
    "enforced": ("Kept by software (it refuses)", "ソフトウェアが守る条項（違反は拒否される）"),
    "law": ("Kept by people and courts only (law only)", "人と裁判所のみが守る条項（法的拘束のみ）"),
    "prose-here": ("The text for people, which prevails, lies in {path}.", "優先する本文の所在：{path}"),
    "prose-away": (
        "The text for people, which prevails, has SHA-256 {sha256}; the broker does not hold it.",
        "優先する本文の SHA-256 は {sha256}。ブローカーは保管していない。",
    ),
    # terms
    "term.public": ("everybody", "すべての者"),
    "term.contributors": ("all contributors", "すべての提供者"),
    "term.recipe-participants": ("who takes part in the recipe", "レシピの参加者"),
    "term.owner": ("its owner", "所有者"),
    "term.retrain": ("are trained again without you", "貴社を除いて学習し直す"),
    "term.discard": ("are discarded", "破棄する"),
    "term.leaver-chooses": (
        "are trained again without you or discarded, as you choose",
        "学習し直しか破棄かを貴社が選ぶ",
    ),
    "term.any-contributor": ("any contributor", "各提供者"),
    "term.auditor": ("the auditor", "監査人"),
    "term.broker": ("the broker", "ブローカー"),
    "and": (", ", "、"),
    # contract diff
    "diff": ("changes from {before} to {after}", "{before} から {after} への変更"),
    "touches-you": ("These touch you", "貴社に関わる変更"),
    "touches-others": ("Others", "その他の変更"),
    "text-changes": ("Words only", "文言のみの変更"),
    "no-change": ("No clause differs.", "条項の違いはない。"),
    "witness": ("for example: {words}", "例：{words}"),
    "proven": (
        "Proven: {fields} reads looser taken alone, but there is no request that only the new text allows.",
        "証明済み：{fields} は単独では緩和だが、新しい文書だけが許す要求は存在しない。",
    ),
    "tighter": ("TIGHTER", "厳格化"),
    "looser": ("LOOSER", "緩和"),
    "changed": ("CHANGED", "変更"),
    "text": ("TEXT", "文言"),
    # explain
    "allowed": (
        "ALLOWED {what}: all of {count} findings are satisfied.",
        "許可 {what}：所見 {count} 件すべてが適合。",
    ),
    "refused": ("REFUSED {what}", "拒否 {what}"),
    "satisfied": ("SATISFIED", "適合"),
    "violated": ("REFUSED", "違反"),
    "unknown": ("UNKNOWN, so refused", "不明につき拒否"),
    "by-this-site": ("REFUSED by this site", "自社規則による拒否"),
    "clause": ("clause", "条項"),
    "need": ("need", "必要"),
    "found": ("found", "実際"),
    "remedy": ("remedy", "対処"),
    "who": ("by", "実施者"),
    "no-clause-text": ("about the document itself", "文書そのものについて"),
    "held-out": (
        "judged on held-out episodes; only the vote left",
        "評価用エピソードで判定；送ったのは投票のみ",
    ),
    "held-out-vote": (
        "judged on held-out episodes; only the vote left: {vote}",
        "評価用エピソードで判定；送ったのは投票のみ：{vote}",
    ),
    "held-out-waits": (
        "judged on held-out episodes; no vote left yet: iriai-node release approve, or veto",
        "評価用エピソードで判定；投票はまだ送っていない：iriai-node release approve または veto",
    ),
    "rounds": ("rounds {rounds}, {attempts} attempts, {kind}", "ラウンド {rounds}、計 {attempts} 回、{kind}"),
    "round": ("round {round}, attempt {attempt}, {kind}", "第{round}ラウンド、{attempt} 回目、{kind}"),
    "who-owner": ("you, in this node's settings", "貴社（このノードの設定）"),
    "who-ledger": ("you, at this node: its budget ledger", "貴社（このノードの予算台帳）"),
    "who-data": ("you, at this node: its data", "貴社（このノードのデータ）"),
    "who-node": ("you, at this node", "貴社（このノード）"),
    "who-broker": ("the broker's operators", "ブローカーの運用者"),
    "who-all": ("all contributors together", "全提供者の合意"),
    "who-others": ("the other contributors", "他の提供者"),
    "who-program": ("whoever maintains the program that asked", "照会したプログラムの保守者"),
    "who-recipient": ("whoever receives the model", "モデルの受領者"),
    "who-nobody": ("nobody: wait", "誰も要さない：待機"),
}


def word(lang: str, key: str, **values: object) -> str:
    """The words of a key in a language, English where the language is unknown."""
    english, japanese = WORDS[key]
    return (japanese if lang == "ja" else english).format(**values)


def terms(lang: str, names: Iterable[str]) -> str:
    """Terms of the language, in words, one after the other."""
    return word(lang, "and").join(word(lang, f"term.{name}") for name in names)
