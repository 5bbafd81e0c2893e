# SPDX-License-Identifier: Apache-2.0
"""What to do about a finding: the words of each remedy key, in English and in Japanese.

A check names a remedy by its key, so that a decision is the same bytes in every language. Every key that a
check uses is here; a test finds one that is not.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

from typing import Final

__all__ = ["REMEDIES", "remedy_text"]

REMEDIES: Final[dict[str, tuple[str, str]]] = {
    "add-noise": (
        "answer with a number that carries the contract's noise",
        "契約の定めるノイズを加えた数値で応答する",
    ),
    "amend-the-contract": ("amend the contract (all contributors)", "契約を改定する（全提供者の署名）"),
    "amend-this-contract": (
        "make the next version of this contract and name its digest",
        "本契約の次の版を作り、本契約のダイジェストを記載する",
    ),
    "answer-in-slots": (
        "let the node answer at the times that the contract sets",
        "契約の定める時点でノードに応答させる",
    ),
    "ask-about-itself": (
        "ask for your own view of yourself, or for a view of the pool",
        "自己に関する閲覧、またはプール全体の閲覧を求める",
    ),
    "ask-as-a-party": ("ask as one of the contract's parties", "契約の当事者として求める"),
    "ask-by-pinned-key": (
        "ask with the key that the contract pins; a new key needs an amendment",
        "契約に記載された鍵で求める。新しい鍵には改定を要する",
    ),
    "ask-for-a-listed-view": ("ask for a view that the contract lists", "契約に記載された閲覧を求める"),
    "ask-for-another-tier": (
        "ask for a model of a tier that you are entitled to",
        "受け取る資格のある区分のモデルを求める",
    ),
    "ask-for-approval": ("ask the contributors for their votes", "提供者に投票を求める"),
    "ask-participants": (
        "ask only contributors that take part in the recipe",
        "レシピに参加する提供者のみに求める",
    ),
    "attest-the-use": (
        "the recipient signs what it uses the model for (iriai-node contract attest)",
        "受領者がモデルの用途を署名で誓約する（iriai-node contract attest）",
    ),
    "cheaper-plan-or-amend": (
        "choose a plan with a smaller epsilon, or amend the clause (all contributors)",
        "ε のより小さい計画を選ぶか、条項を改定する（全提供者の署名）",
    ),
    "check-by-the-bound": ("check norms by the contract's bound", "契約の上限でノルムを検査する"),
    "choose-as-agreed": (
        "choose one of the ways that the contract offers for unreleased models",
        "未公開モデルの扱いを、契約の定める選択肢から選ぶ",
    ),
    "contribute-more": (
        "take part in more rounds before asking for the model",
        "モデルを求める前に、より多くのラウンドに参加する",
    ),
    "deliver-elsewhere": ("deliver to a recipient in another country", "別の国の受領者に引き渡す"),
    "discard-or-amend": (
        "discard the candidate, or amend the clause (all contributors)",
        "候補を破棄するか、条項を改定する（全提供者の署名）",
    ),
    "discard-the-candidate": (
        "discard the candidate and find out how the secret got into it",
        "候補を破棄し、秘密が混入した経緯を調べる",
    ),
    "drop-the-fields": ("use a recipe without the named fields", "挙げられた項目を用いないレシピを使う"),
    "drop-the-sender": (
        "drop the sender of the bad update and close the round without it",
        "不正な更新の送り手を除き、その者なしでラウンドを閉じる",
    ),
    "file-the-consent": ("put the donor's signed consent on record", "提供者の署名入り同意書を記録に加える"),
    "keep-it-at-home": ("keep the model at its owner's node", "モデルを所有者のノードに留める"),
    "keep-the-broker-apart": (
        "move the contributor out of the broker's group, or leave it out",
        "提供者をブローカーのグループから外すか、参加させない",
    ),
    "let-the-right-party-ask": ("let a party of the right role ask", "権限のある立場の当事者に求めさせる"),
    "make-another-key": ("give each party a key pair of its own", "当事者ごとに別の鍵を用意する"),
    "name-the-kind": (
        "say whether the successor tightens or changes",
        "後継が tighten（厳格化）か change（変更）かを示す",
    ),
    "name-the-model": ("name the model by its digest", "モデルをダイジェストで示す"),
    "name-the-stage": (
        "say whether the successor is opened or takes effect",
        "後継を開く段階か、発効させる段階かを示す",
    ),
    "new-candidate": (
        "talk to the party that vetoed, then train another candidate",
        "拒否した当事者と話し合い、別の候補を学習する",
    ),
    "produce-the-evidence": (
        "produce the missing evidence and ask again",
        "不足する証拠資料を用意し、改めて求める",
    ),
    "prove-or-change": (
        "prove that nothing gets looser, or negotiate the amendment as change",
        "緩くならないことを証明するか、変更（change）として交渉する",
    ),
    "release-first": ("release the model in this tier first", "先にこの区分でモデルを公開する"),
    "resume": (
        "all contributors sign a resume that names the halt",
        "全提供者が、その停止を名指しする再開に署名する",
    ),
    "sign": ("wait for the signatures that are missing", "不足する署名がそろうのを待つ"),
    "sign-a-notice": ("sign a notice and name it by its digest", "通知に署名し、そのダイジェストを示す"),
    "state-the-fact": (
        "update the program that asked: it must state the named fact",
        "照会したプログラムを更新し、挙げられた事実を示させる",
    ),
    "stop-and-look": (
        "stop the run and find out why models are rejected",
        "実行を止め、モデルが拒まれる理由を調べる",
    ),
    "stop-or-amend": (
        "stop training under this contract, or amend the clause (all contributors)",
        "本契約での学習を止めるか、条項を改定する（全提供者の署名）",
    ),
    "stop-or-new-contract": ("stop; go on under a new contract", "止める。続けるには新しい契約による"),
    "use-a-listed-dataset": (
        "use a data set that the recipe lists for this party",
        "レシピがこの当事者について挙げるデータセットを使う",
    ),
    "use-a-listed-recipe": (
        "use a recipe whose digest the contract lists",
        "契約にダイジェストが記載されたレシピを使う",
    ),
    "use-a-listed-tier": (
        "use a tier that the contract lists for the recipe",
        "契約がこのレシピについて定める区分を使う",
    ),
    "use-the-agreed-log": ("use the log that the contract names", "契約の定めるログを使う"),
    "use-the-plan": (
        "use the privacy plan that the contract describes",
        "契約の定めるプライバシー計画を使う",
    ),
    "use-the-protocol": ("aggregate as the contract says", "契約の定めるとおりに集約する"),
    "use-the-purpose": ("open the run for the recipe's purpose", "レシピの目的のために実行を開く"),
    "use-the-seed-set": (
        "start from the seed set that the contract names, or from none",
        "契約の定めるシードセットから始める。定めがなければ用いない",
    ),
    "use-the-successor": ("go on under the contract that is in force", "現に効力を持つ契約のもとで続ける"),
    "use-the-weights": ("weigh updates as the contract says", "契約の定める重みを使う"),
    "vouch-for-the-newcomer": (
        "a party signs that the newcomer's admission was checked",
        "加入審査を確認した旨に、当事者の1名が署名する",
    ),
    "wait-for-parties": (
        "wait until enough independent groups take part",
        "独立したグループが十分に参加するまで待つ",
    ),
    "wait-for-the-same-cohort": (
        "wait until the same groups, or enough others, stand behind the number",
        "同じグループ、または十分に異なるグループがそろうまで待つ",
    ),
    "wait-for-the-term": ("wait until the term begins", "有効期間が始まるまで待つ"),
    "wait-for-the-time": ("wait until the time has come", "その時が来るまで待つ"),
    "wait-for-witnesses": (
        "wait until enough witnesses have cosigned the log",
        "十分な数の証人がログに連署するまで待つ",
    ),
}


def remedy_text(key: str, lang: str = "en") -> str:
    """What a remedy key says, in ``en`` or ``ja``."""
    return REMEDIES[key][1 if lang == "ja" else 0]
