# SPDX-License-Identifier: Apache-2.0
"""The words of a privacy statement: what it holds against, what it leaves open, and a page for people.

Standard library only. Codes and their English sentence stand in the signed document; other languages are
looked up by code, so that a page in Japanese says what was signed. `page` gives lines of plain text, each
with a heading or none; whoever shows them escapes them.

What the reader of a page knows beside the document is `Beside`: it marks and explains, and decides nothing.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.privacy.accounting import epsilon_filter, epsilon_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LANGUAGES", "Beside", "holds_against", "not_protected", "page", "promise"]

Json = dict[str, Any]
LANGUAGES: Final = ("en", "ja")
_LARGEST: Final = 50.0  # beyond this a factor is no promise anyway
_TEN: Final = 10
_SHOWN: Final = 4  # characters of a figure that is said to be exceeded; cut, as everywhere, not rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a reader knows beside a statement.

    Attributes:
        own: It is about the signer alone.
        party: Short name of the reader, if the reader is a contributor.
        names: The reader's names among the contributors: its alias, or its short name.
    """

    own: bool = False
    party: str = ""
    names: frozenset[str] = frozenset()


_OPEN: Final = {
    "many-units": (
        "Product mix and other facts about many units of one site: the claim is about one unit at a time.",
        "一つの拠点の多数の単位にわたる事実（製品構成など）。主張は一つの単位についてのものである。",
    ),
    "sums": (
        "Facts about many units: of all sites together in each sum, of one site in sums with and without it.",
        "多数の単位にわたる事実。全拠点を合わせたものは各合計に、一拠点のものはその有無による合計の差に現れる。",
    ),
    "last-update": (
        "The update of one site, where all others work with the broker: only its own noise hides it then.",
        "他の全拠点がブローカーと結託した場合の一拠点の更新。守るのはその拠点自身のノイズのみである。",
    ),
    "single-updates": (
        "Without secure aggregation the broker sees the noised update of each site.",
        "セキュア集約がないため、ブローカーは各拠点のノイズ付き更新を見ることができる。",
    ),
    "membership": ("That a party takes part.", "当事者が参加しているという事実。"),
    "reply-times": ("The times of replies.", "応答の時刻。"),
    "reply-slots": (
        "In which slot of time a reply falls; a slot hides how long the work took inside it.",
        "応答がどの時間枠に入るか。枠の中での処理時間は分からない。",
    ),
    "enrolled-twice": (
        "Data that their owner enrols twice unseen: they count as two units.",
        "所有者が気付かれずに二度登録したデータ。二つの単位として数えられる。",
    ),
    "colluding-silos": (
        "The claim in full, while silos collude with the broker: it weakens as its table says.",
        "サイロがブローカーと結託する間の完全な主張。表のとおりに弱くなる。",
    ),
    "donated-episodes": (
        "Episodes that were openly donated to the seed set: they are public.",
        "シードセットに公開で提供されたエピソード。これらは公開されている。",
    ),
    "individual-models": (
        "Models that were trained on at home: nothing is added to them, and they are outside this claim.",
        "手元で追加学習したモデル。ノイズは加えられず、この主張の対象外である。",
    ),
    "descriptors": (
        "Descriptors of data sets: coarse, signed by their owner, outside this claim.",
        "データセットの記述子。粗い内容で所有者が署名したものであり、この主張の対象外である。",
    ),
}


_AGAINST: Final = {
    "auditor": "監査人",
    "broker": "ブローカー",
    "broker and silos that collude with it, as long as enough silos are honest": (
        "十分な数のサイロが誠実である限り、ブローカーとそれに結託するサイロ"
    ),
    "other members": "他の参加者",
    "recipient": "受領者",
}


def holds_against(*, shared: bool) -> list[str]:
    """Whom the claim holds against; with noise shares only as long as enough silos are honest."""
    if shared:
        return [
            "auditor",
            "broker and silos that collude with it, as long as enough silos are honest",
            "recipient",
        ]
    return ["auditor", "broker", "other members", "recipient"]


def not_protected(*, shared: bool, summed: bool, slotted: bool, seeded: bool) -> list[Json]:
    """What the claim does not cover, as code and sentence; sorted by code."""
    codes = {"membership", "enrolled-twice", "individual-models", "descriptors"}
    codes.add("reply-slots" if slotted else "reply-times")
    if shared:
        codes.add("colluding-silos")
    codes |= {"sums", "last-update"} if summed else {"many-units", "single-updates"}
    if seeded:
        codes.add("donated-episodes")
    return [{"code": code, "text": _OPEN[code][0]} for code in sorted(codes)]


_EN: Final = {
    "title": "Privacy statement",
    "verdict": "Verdict",
    "PRIVATE": "PRIVATE: every contributor trained under a plan of differential privacy.",
    "NOT PRIVATE": "NOT PRIVATE: do not rely on any protection of the training data.",
    "own PRIVATE": "PRIVATE: {party} trained under a plan of differential privacy. No others are judged.",
    "own NOT PRIVATE": "NOT PRIVATE: do not rely on any protection of the training data of {party}.",
    "you": "{name} (this node, {party})",
    "subject": "About",
    "run": "run {run}",
    "model": "model {model}",
    "claim": "What is promised to {party}",
    "none": "Nothing: {party} trained without a plan.",
    "promise": (
        "Whether any one {unit} of {party} was there changes the chance of whatever left its site by at most"
        " a factor e^{epsilon} (about {factor}), up to a probability of {delta}."
    ),
    "tight": "The tight figure of the same plan is epsilon {tight}.",
    "rests": (
        "This rests on at least {honest} honest silos, and on secure aggregation: each silo added a share of"
        " the noise."
    ),
    "alone": "This rests on no other party: the site added all of the noise itself.",
    "colluders": "With {bad} other silos on the broker's side: epsilon {epsilon}.",
    "last": "With all {bad} others on the broker's side, or if secure aggregation fails: epsilon {epsilon}.",
    "lifetime": (
        "{percent} % of the life budget of these data is spent: {spent} of {most} nano-rho at order {order},"
        " epsilon {filter} by the filter, which starts above {start} with the first step, by construction."
    ),
    "waived": (
        "These data were also used without privacy, under {contracts}: no epsilon holds against whoever saw"
        " those updates."
    ),
    "audit": (
        "The training engine passed its audit: signal against noise is {mu} where {expected} is planned; the"
        " audit alone shows at least epsilon {low}."
    ),
    "audit-failed": "The training engine FAILED its audit.",
    "audit-none": "No audit of the training engine was told: the claim rests on the plan alone.",
    "leak": (
        "Leak tests of the model: membership inference reaches an AUC of {auc} (0.5 is guessing). They are an"
        " alarm, never a proof."
    ),
    "holds": "Whom this holds against",
    "open": "What this does NOT protect",
    "how": "How it was done",
    "steps": (
        "{steps} noisy steps; each unit is drawn with probability {q}; its gradient is clipped to norm"
        " {clip}; the noise has {sigma} times that norm; at most {frames} frames of a unit."
    ),
    "summed": "The broker read sums only: each site's update left it masked, and members opened the sum.",
    "judged": (
        "Held-out units, in a block of their own, were never trained on. Whether the model is good was asked"
        " of each site in at most {steps} noisy queries on them, each with noise of {sigma} times the bound"
        " of a unit's loss."
    ),
    "voted": (
        "Votes on rounds asked them at most {steps} times more, each with noise of {sigma} times the most"
        " that a unit can say."
    ),
    "held-out": (
        "What a held-out unit pays for all of this is epsilon {epsilon} at delta {delta}, counted in that"
        " block and in no figure above."
    ),
    "silo": "Whole silos",
}
_JA: Final = {
    "title": "プライバシー・ステートメント",
    "verdict": "判定",
    "PRIVATE": "PRIVATE：すべての提供者が差分プライバシーの計画のもとで学習した。",
    "NOT PRIVATE": "NOT PRIVATE：学習データの保護に依拠してはならない。",
    "own PRIVATE": "PRIVATE：{party} は差分プライバシーの計画のもとで学習した。他者については述べない。",
    "own NOT PRIVATE": "NOT PRIVATE：{party} の学習データの保護に依拠してはならない。",
    "you": "{name}（このノード、{party}）",
    "subject": "対象",
    "run": "実行 {run}",
    "model": "モデル {model}",
    "claim": "{party} に対する約束",
    "none": "約束なし：{party} は計画なしで学習した。",
    "promise": (
        "{party} の{unit}のうち任意の一つがあったかなかったかで、拠点から出たもののどの結果の確率も、"
        "確率 {delta} を除いて高々 e^{epsilon} 倍（約 {factor} 倍）しか変わらない。"
    ),
    "tight": "同じ計画の厳密な値は ε {tight} である。",
    "rests": "これは少なくとも {honest} の誠実なサイロとセキュア集約に依拠する。各サイロがノイズを分担した。",
    "alone": "これは他の当事者に依拠しない。拠点自身がすべてのノイズを加えた。",
    "colluders": "他の {bad} サイロがブローカー側につく場合：ε {epsilon}。",
    "last": "他の {bad} サイロすべてがブローカー側につくか、セキュア集約が破れた場合：ε {epsilon}。",
    "lifetime": (
        "このデータの生涯予算の {percent} % が使われた：次数 {order} で {most} ナノρのうち {spent}。"
        "フィルターでは ε {filter}（構造上、最初のステップで {start} を超える）。"
    ),
    "waived": (
        "このデータは {contracts} のもとで、プライバシー保護なしにも使用された。"
        "その更新を見た者に対しては、どの ε も成り立たない。"
    ),
    "audit": (
        "学習エンジンは監査に合格した：信号対ノイズは計画 {expected} に対し {mu}。"
        "監査だけで少なくとも ε {low} が示される。"
    ),
    "audit-failed": "学習エンジンは監査に不合格であった。",
    "audit-none": "学習エンジンの監査は伝えられていない。主張は計画のみに依拠する。",
    "leak": (
        "モデルの漏えい試験：メンバーシップ推論の AUC は {auc}（0.5 は当て推量）。警報であって証明ではない。"
    ),
    "holds": "誰に対して成り立つか",
    "open": "保護されないもの",
    "how": "方法",
    "steps": (
        "ノイズ付きステップ {steps} 回。各単位は確率 {q} で選ばれ、勾配のノルムは {clip} に抑えられ、"
        "ノイズはその {sigma} 倍、一単位あたり最大 {frames} フレーム。"
    ),
    "summed": "ブローカーが読んだのは合計のみである。各拠点の更新は覆われて出され、参加者が合計を開いた。",
    "judged": (
        "評価用の単位は独立したブロックにあり、学習には使われない。モデルの良否は各拠点で最大 {steps} 回の"
        "ノイズ付き照会で確かめられ、各回のノイズは単位の損失の上限の {sigma} 倍である。"
    ),
    "voted": (
        "ラウンドへの投票では、さらに最大 {steps} 回照会され、各回のノイズは一単位が及ぼしうる最大の値の"
        " {sigma} 倍である。"
    ),
    "held-out": (
        "評価用の単位がこれらすべてに支払うのは、δ {delta} のとき ε {epsilon}。"
        "このブロックで計上され、上の数値には含まれない。"
    ),
    "silo": "サイロ全体",
    "no-silo": (
        "サイロ単位のプライバシーはない。内容は単位ごとに保護され、サイロ全体に関する事実は"
        "セキュア集約、方針、監査によってのみ守られる。"
    ),
}
_UNITS: Final = {
    "episode": ("episode", "エピソード"),
    "work-piece": ("work-piece", "ワークピース"),
    "order": ("order", "注文"),
}


def page(
    document: Mapping[str, Any], *, lang: str = "en", beside: Beside | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Headings with their sentences, in the order of the pyramid: verdict, claims, trust, what is open, how.

    Args:
        document: A statement that `policies.privacy.statement.check_statement` passed.
        lang: ``en`` or ``ja``.
        beside: What the reader knows beside it.
    """
    words, at = (_JA, 1) if lang == "ja" else (_EN, 0)
    subject, beside = document["subject"], beside or Beside()
    whose = {"party": ", ".join(row["party"] for row in document["contributors"])}
    said = f"own {document['verdict']}" if beside.own else document["verdict"]
    yield words["verdict"], [words[said].format(**whose)]
    about = [words["run"].format(run=subject["run"])]
    if subject["model"]:
        about.append(words["model"].format(model=subject["model"]))
    yield words["subject"], about
    for row in document["contributors"]:
        name = row["party"]
        if name in beside.names:
            name = words["you"].format(name=name, party=beside.party)
        yield words["claim"].format(party=name), list(_claim(row, words, at))
    auc = document["terms"]["mia_auc"]
    told = document["trust"]["holds_against"]
    held = [_AGAINST[one] for one in told] if lang == "ja" else list(told)
    yield words["holds"], held + ([words["leak"].format(auc=auc)] if auc else [])
    yield words["open"], [_OPEN[one["code"]][at] for one in document["not_protected"]]
    steps = dict.fromkeys(_how(row, words) for row in document["contributors"] if row["plan"])
    summed = [words["summed"]] if document["terms"]["secure_aggregation"] == "required" else []
    yield words["how"], [*steps, *summed, *_judged(document["evaluation"], words)]
    yield words["silo"], [words["no-silo"] if lang == "ja" else document["silo"]]


def _claim(row: Mapping[str, Any], words: Mapping[str, str], at: int) -> Iterator[str]:
    told, party = row["claim"], row["party"]
    if told is None:
        yield words["none"].format(party=party)
        return
    yield promise(told, party, lang=LANGUAGES[at])
    if told["epsilon_pld"]:
        yield words["tight"].format(tight=told["epsilon_pld"])
    honest = told["rests_on_honest_silos"]
    yield words["alone"] if honest is None else words["rests"].format(honest=honest)
    table = told["epsilon_by_colluders"]
    for one in table:
        key = "last" if one is table[-1] else "colluders"
        yield words[key].format(bad=one["colluders"], epsilon=one["epsilon_rdp"])
    yield from _measured(row, words)


def promise(told: Mapping[str, Any], party: str, *, lang: str = "en") -> str:
    """What a claim says, in one sentence.

    Args:
        told: ``unit``, ``epsilon_rdp`` and ``delta``, as a statement has them.
        party: Whose data it is about.
        lang: ``en`` or ``ja``.
    """
    words, at = (_JA, 1) if lang == "ja" else (_EN, 0)
    return words["promise"].format(
        unit=_UNITS[told["unit"]][at],
        party=party,
        epsilon=told["epsilon_rdp"],
        factor=_factor(told["epsilon_rdp"]),
        delta=told["delta"],
    )


def _factor(epsilon: str) -> str:
    """What e to the epsilon comes to, for people: two digits are enough."""
    value = math.exp(min(float(epsilon), _LARGEST))
    return f"{value:.2g}" if value < _TEN else f"{float(f'{value:.2g}'):,.0f}"


def _judged(told: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[str]:
    """What was asked of held-out units, and what one of them pays."""
    for kind, named in (("judged", told["plan"]), ("voted", told["votes"])):
        if named is not None:
            plan = named["document"]
            yield words[kind].format(steps=plan["steps"], sigma=plan["noise_multiplier"])
    yield words["held-out"].format(epsilon=told["epsilon_rdp"], delta=told["delta"])


def _measured(row: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[str]:
    life, audit, delta = row["lifetime"], row["audit"], row["claim"]["delta"]
    if life is not None:
        yield words["lifetime"].format(
            spent=life["rho_spent_nano"],
            most=life["rho_max_nano"],
            order=life["alpha_star"],
            filter=life["epsilon_filter"],
            percent=_percent(life["rho_spent_nano"], life["rho_max_nano"]),
            start=epsilon_text(epsilon_filter(rho_nano=0, delta=float(delta), order=life["alpha_star"]))[
                :_SHOWN
            ],
        )
        if life.get("waived"):
            yield words["waived"].format(contracts=", ".join(life["waived"]))
    if audit is not None:
        passed = audit.get("verdict") == "pass"
        facts = {"mu": audit.get("mu"), "expected": audit.get("mu_expected"), "low": audit.get("eps_low")}
        yield words["audit"].format(**facts) if passed else words["audit-failed"]
    else:
        yield words["audit-none"]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole > 0 else "100.0"


def _how(row: Mapping[str, Any], words: Mapping[str, str]) -> str:
    plan = row["plan"]["document"]
    return words["steps"].format(
        steps=plan["steps"],
        q=plan["sampling_prob"],
        clip=plan["clip_norm"],
        sigma=plan["noise_multiplier"],
        frames=plan["frames_per_unit"],
    )
