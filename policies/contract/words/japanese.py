# SPDX-License-Identifier: Apache-2.0
"""The contract's sentences in Japanese. The same keys and blanks stand in `policies.contract.words.english`.

Terms: 当事者 party, 提供者 contributor, 監査人 auditor, 公開 release, 引渡し delivery, 区分 tier,
集約 average, 脱退 exit, 停止 halt, 再開 resume, 改定 amendment, 営業秘密 trade secret.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

from typing import Final

__all__ = [
    "ALLOWED",
    "COUNTS",
    "JOINER",
    "LABELS",
    "NAMED",
    "NOBODY",
    "POINTS",
    "REFUSED",
    "SENTENCES",
    "TERMS",
    "WITH_MEANING",
]

JOINER: Final = "、"
WITH_MEANING: Final = "{word}（{meaning}）"

LABELS: Final = {
    "enforced": "システムで強制：{points}",
    "enforced in part": "一部をシステムで強制：{points}。ソフトウェアの外のことは法的拘束のみ",
    "law only": "法的拘束のみ",
}

ALLOWED: Final = "許可 {what}：所見{count}件、すべて適合。"
REFUSED: Final = "拒否 {what}：{clause} {check}：必要 {need}、実際 {found}。対処：{remedy}。"
NOBODY: Final = "不明の者"

POINTS: Final = {"auditor": "監査人", "broker": "ブローカー", "gate": "公開ゲート", "node": "ノード"}

SENTENCES: Final = {
    # the document
    "contract": "契約 {contract_id}：{title}（{schema}）。",
    "first-version": "本契約は第{version}版であり、最初の版である。",
    "later-version": "本契約は第{version}版であり、{supersedes} に代わるものである。",
    "sign-by": "{sign_by} より前に締結が完了しない署名は効力を持たない。本契約の言語は {language} とする。",
    "test-only": "試験専用（TEST ONLY）：本契約のもとで実データを用いてはならない。",
    # who, when, what for
    "prose": (
        "人が読むための本文（{media_type}、SHA-256 {sha256}）は本契約の一部であり、"
        "ソフトウェアが読む条項に優先する。"
    ),
    "party": (
        "{name}（{party}、国 {country}、組織 {org}、グループ {group}）は{role}として参加し、"
        "鍵 {key} で署名する。"
    ),
    "term": (
        "本契約の有効期間は {effective} から {expires} の直前までとする。"
        "期間内に公開されたモデルは、満了後も引き渡される。"
    ),
    "purpose": "目的 {id}：{text}",
    "purpose-unused": "{id} のためのレシピはなく、この目的のために実行されるものはない。",
    "forbidden": "何人も、本プールのモデル、数値、閲覧情報を次の用途に用いてはならない：{use}。",
    "check-membership-inference": (
        "メンバーシップ推定の数値（AUC）が {bound} を超える公開は、ソフトウェアが拒否する（{release}）。"
    ),
    "check-canary": "カナリアが検出された候補の公開は、ソフトウェアが拒否する。",
    "check-property-leak": (
        "属性漏えいの数値が {bound} を超える公開（{release}）と、ノイズのないプール全体の数値の閲覧は、"
        "ソフトウェアが拒否する。"
    ),
    "check-query-allow-list": "他の当事者に関する閲覧は、ソフトウェアが拒否する。",
    "check-recipe-digest": "本契約に記載のないレシピの学習は、ソフトウェアが拒否する。",
    "check-attestation": "モデルの用途を署名で誓約していない者への引渡しは、ソフトウェアが拒否する。",
    # what runs on whose data
    "recipe": (
        "レシピ {id}（{digest}）は目的 {purpose} のために実行できる。"
        "全実行を合わせて{rounds}、1ラウンドにつき{steps}を上限とする。"
    ),
    "recipe-reads": "レシピ {id} は {party} の {datasets} を読む。",
    "seed": "レシピ {recipe} は、公に提供されたシードセット {seed_set} のみから始める。",
    "donation": (
        "{party} はこれに {dataset} を {licence} の条件で提供する。同意書 {consent} の記録を要する。"
    ),
    "fields": "学習に用いることができる項目は次のものに限る：{allow}。",
    "personal-data": "学習に用いることができる個人データ：{which}。",
    "secret": "{party} の営業秘密（{basis}）であり、いかなるレシピも読んではならない：{fields}。",
    "secret-canary": "{party} のこれらの秘密のいずれかを漏らす候補は公開しない。",
    # privacy
    "not-private": (
        "プライバシー保護なし（NOT PRIVATE）：モデルは差分プライバシーを用いずに学習され、"
        "個々のエピソードが漏れるおそれがある。"
    ),
    "privacy": "すべての{unit}を差分プライバシーで保護する（隣接関係は{adjacency}、δ は {delta}）。",
    "epsilon": "各提供者の ε は、1回の公開につき {release}、合計で {total} を上限とする。",
    "noise": "ノイズは{how}。上限を超える前に {filter} により学習を止める。",
    "honest-min": (
        "この保護は{honest}以上が誠実であることを前提とする。ラウンドと公開には、"
        "結託しうる {colluders} のほかにこの数を要する。"
    ),
    "protected": (
        "いかなるモデルも拠点の次の属性を漏らしてはならない：{names}。ラウンドと公開には{groups}以上を要する。"
    ),
    "reply-slot": "ノードは {ms} ミリ秒の整数倍の時点でのみ応答する。",
    "cap": "{party} の ε は、1回の公開につき {release}、合計で {total} を上限とする。",
    "cap-own": "{party} にのみ厳しくした上限：{which}。その他は {common} による。",
    # averages, validation, views
    "groups": (
        "ラウンドの実施、更新の集約、モデルの公開は、{groups}以上が加わり、"
        "いずれのグループの重みも全体の {share} を超えない場合に限る。"
    ),
    "no-colluders": "ブローカーと結託するグループは想定しない。",
    "colluders": (
        "{colluders}までがブローカーと結託しうるものとし、その場合にも他の2グループが残ることを要する。"
    ),
    "weights": "重みは{how}。",
    "weight-table": "重みの表：{table}。",
    "norm": "有限でない更新、またはノルムが {norm} を超える更新は除外する。",
    "secure-required": (
        "セキュア集約を必須とする。ブローカーに見えるのは更新の合計のみであり、個々の更新は見えない。"
    ),
    "secure-opened": (
        "レシピ {recipe} の合計は、{all}のうち{least}以上、かつ{groups}以上が加わった場合に限り開かれる。"
    ),
    "secure-last": (
        "合計に加わった他の全員が知識を持ち寄れば、残る一者の更新が分かる。"
        "これを防ぐ手順はなく、守るのは当該当事者自身のノイズのみである。"
    ),
    "secure-off": (
        "セキュア集約は用いない。ブローカーには各当事者の更新が見え、"
        "これを守るのは当該当事者自身のノイズのみである。"
    ),
    "secure-off-not-private": (
        "セキュア集約は用いない。ブローカーには各当事者の更新が見え、"
        "これを守るものはない（NOT PRIVATE、プライバシー保護なし）。"
    ),
    "group-mac": "ブローカーが偽造できない参加者間の検査（グループ MAC）：{which}。",
    "delay": "公開、引渡し、プール全体の数値の閲覧は、作成から{delay}を経過するまで行わない。",
    "no-delay": "公開、引渡し、プール全体の数値の閲覧に待機期間は設けない。",
    "differencing-off": (
        "出力どうしの比較に制限はなく、差が{groups}に満たない場合にも差分攻撃への備えはない。"
    ),
    "differencing-non-dp-outputs": (
        "差分プライバシーのない出力は、過去のどの出力とも対象グループが同一であるか、"
        "{groups}以上異なる場合に限り外に出す。"
    ),
    "differencing-all": (
        "すべての出力は、過去のどの出力とも対象グループが同一であるか、{groups}以上異なる場合に限り外に出す。"
    ),
    "quorum": (
        "モデルの公開は、学習に参加したグループのうち {quorum} 以上が"
        "自己の検証用エピソードで受け入れた場合に限る。"
    ),
    "rejected": "モデルが{rounds}回続けて拒まれたときは、集約を止める。",
    "judge-episodes": "各グループは{episodes}で判定する。",
    "gain-clip": "改善量は {clip} を上限として数える。",
    "max-judgings": "1回の実行における判定は{judgings}を上限とする。",
    "judging-epsilon": "判定が検証用エピソードに課す ε は {epsilon} を上限とする。",
    "views": "閲覧できるものは次に限る：{allow}。他の当事者の数値は誰にも示さない。",
    "no-views": "いかなる閲覧も認めない。",
    "view-groups": "プール全体の数値は{groups}以上に基づくものに限る。",
    # models
    "tier": (
        "レシピ {recipe} のモデル {model} は、{requires} を満たした後、"
        "{licence} の条件で{recipients}に渡す（{tier}）。"
    ),
    "tier-private": (
        "レシピ {recipe} のモデル {model} は、{licence} の条件で{recipients}の手元に留まり（{tier}）、"
        "公開も引渡しも行わない。"
    ),
    "embargo": "最後の集約から{days}は外に出さない。",
    "min-contribution": "受け取れるのは、全体に対する寄与が {share} 以上の者に限る。",
    "approvals": "公開には{of}のうち{groups}以上の賛成票を要する。",
    "veto": "単独で公開を拒否できる者：{owners}（{clauses} の当事者）。",
    "no-veto": "単独で公開を拒否できる者はいない。",
    "evidence": "公開には次の証拠資料を添える：{evidence}。",
    "no-evidence": "公開に証拠資料を要しない。",
    "max-mia-auc": "メンバーシップ推定報告書の AUC（信頼下限）は {bound} を上限とする。",
    "max-property-skill": "属性漏えい報告書の数値は {bound} を上限とする。",
    "fine-tune": "公開済みモデルの追加学習：{how}。",
    "distil": "公開済みモデルの蒸留：{how}。",
    "sublicense": "再許諾の相手：{to}。",
    "grant-back": "プールへの還元：{what}。",
    "classification": "輸出管理上の分類：{which}。",
    "embargoed": "次の国にはモデルを引き渡さない：{countries}。判断の基準は{check}とする。",
    "not-embargoed": "引渡しを禁じる国はない。判断の基準は{check}とする。",
    # keeping, paying, auditing, answering for it
    "retention": (
        "ブローカーは、更新を{updates}後、集約を{aggregates}後に削除し、ログを{logs}保存し、"
        "これについて{evidence}を交付する。"
    ),
    "incentives": "分配の計算方法：{method}。",
    "formula": "金額は {formula} により定める。",
    "pool": "四半期ごとに {eur:,} ユーロを分配する。",
    "pay-floor": "分配割合の下限は {value} とする。",
    "pay-cap": "分配割合の上限は {value} とする。",
    "pay-min-participation": "参加が試行の {value} に満たない者には分配しない。",
    "pay-probe-share": "全ラウンドのうち {value} を試行とする。",
    "pay-probe-window": "試行の組分けは{value}ラウンドの間変えない。",
    "fingerprints": "鍵付き指紋による同一エピソードの写しの検出：{which}。",
    "disclose": "分配割合の開示：{what}。",
    "fees": "ブローカーの利用料は四半期ごとに {eur:,} ユーロとし、{basis}。",
    "tied": "併せて購入を要する他のサービス：{which}。",
    "log": "すべての行為をログ {origin} に記録する。",
    "audit": "{who}は{days}前の通知により監査を行い、{access}を受け取ることができる。",
    "witnesses": "公開には{witnesses}以上の連署があるログを要する。",
    "no-witnesses": "公開に証人の連署を要しない。",
    "ml-dsa": "証人の耐量子署名（ML-DSA）：{how}。",
    "raw-data": "監査人への生データの提供：{when}。",
    "liability": "損害については{bears}。責任額は {eur:,} ユーロを上限とする。",
    "liability-uncapped": "損害については{bears}。責任額に上限はない。",
    "uncapped": "次の場合には上限を適用しない：{causes}。",
    "law": "準拠法は {governing} の法とし、紛争は {forum} において {language} により解決する。",
    # how it changes, stops and ends
    "exit": (
        "提供者は通知により脱退できる。通知後のラウンドはその者のデータを用いず、"
        "その者の義務は通知から{days}後に終わる。"
        "公開済みモデルは{released}。公開済みモデルに残るその者の影響は{influence}。"
    ),
    "exit-unreleased": "通知の時点で未公開のモデルは{how}。",
    "change": "本契約の変更には{who}とブローカーの署名を要する。",
    "tighten": "条件を厳しくするだけであることが証明された改定は、{who}とブローカーの署名で足りる。",
    "rotation": "当事者の鍵の交換は{who}による。",
    "halt": "直ちに全体を停止できる者：{who}。停止中は{effect}。",
    "resume": "再開には{who}の署名を要する。",
    "conflict": "条項が食い違うときは{rule}。不明なものは{unknown}。",
}

TERMS: Final = {
    "role.auditor": "監査人",
    "role.broker": "ブローカー",
    "role.contributor": "提供者",
    "personal-data.none": "なし",
    "unit.episode": "エピソード",
    "unit.work-piece": "ワーク（同一ワークの全エピソード）",
    "unit.order": "注文（同一注文の全エピソード）",
    "adjacency.zero-out": "それが何も寄与しなかった場合との比較（zero-out）",
    "adjacency.add-remove": "それが存在しなかった場合との比較（add-remove）",
    "noise.local-full": "各ノードが自己の更新に全量を加える（local-full）",
    "noise.shares": "各ノードが分担して加え、合計のみを開く（shares）",
    "cap.release": "1回の公開あたりの ε",
    "cap.total": "合計の ε",
    "weights.equal": "提供者ごとに等しく、サンプル数にはよらない",
    "weights.fixed": "本条項の表に定め、サンプル数にはよらない",
    "group-mac.off": "用いない",
    "group-mac.on": "用いる",
    "view.own-budget": "自己の予算",
    "view.own-receipts": "自己の受領証",
    "view.own-share": "自己の分配割合",
    "view.released-model-metrics": "公開済みモデルの指標",
    "view.run-status": "実行の状況",
    "recipients.public": "すべての人",
    "recipients.contributors": "すべての提供者",
    "recipients.recipe-participants": "当該レシピに参加する提供者",
    "recipients.owner": "所有者",
    "tier.open": "区分 open",
    "tier.consortium": "区分 consortium",
    "tier.participant": "区分 participant",
    "tier.private": "区分 private",
    "approvals.contributors": "提供者",
    "evidence.canary-report": "カナリア報告書",
    "evidence.federated-evaluation": "連合評価",
    "evidence.log-root": "ログのルート",
    "evidence.membership-inference-report": "メンバーシップ推定報告書",
    "evidence.model-card": "モデルカード",
    "evidence.privacy-statement": "プライバシー声明書",
    "evidence.property-leak-report": "属性漏えい報告書",
    "derive.forbidden": "禁止",
    "derive.internal": "自社利用に限り可",
    "derive.any": "自由",
    "sublicense.none": "なし",
    "sublicense.affiliates": "関連会社",
    "sublicense.any": "制限なし",
    "grant-back.none": "なし",
    "grant-back.bugfixes": "不具合の修正",
    "grant-back.all": "すべての改良",
    "classification.none": "該当なし",
    "classification.dual-use": "軍民両用",
    "export-check.recipient-country": "受領者の国",
    "retention-evidence.signed-statement": "署名入りの報告書",
    "method.group-probe-shapley": "組ごとに測った改善量による（group-probe Shapley）",
    "method.flat": "参加者全員に均等とする（flat）",
    "method.none": "分配は行わない",
    "fingerprints.off": "行わない",
    "fingerprints.on": "行う",
    "disclose.own-share-only": "本人の分のみを本人に示し、他者の分は示さない",
    "fee-basis.equal-per-group": "どのグループも同額とする",
    "fee-basis.by-size": "グループの規模に応じて定める",
    "fee-basis.none": "誰からも徴収しない",
    "tied.none": "なし",
    "tied.some": "あり",
    "audit-who.auditor": "監査人",
    "audit-who.contributors": "各提供者",
    "access.log-proofs": "ログの証明",
    "ml-dsa.off": "用いない",
    "ml-dsa.accept": "受け入れる",
    "ml-dsa.require": "必須とする",
    "raw-data.never": "行わない",
    "bears.each-party": "各当事者がそれぞれ責任を負う",
    "bears.contributors": "提供者が責任を負う",
    "bears.broker": "ブローカーが責任を負う",
    "released.keep": "ライセンスに従い存続する",
    "influence.bounded-not-erased": "差分プライバシーの及ぶ限りで限定されるが、消去はされない",
    "unreleased.retrain": "脱退者を除いて学習し直す",
    "unreleased.discard": "破棄する",
    "unreleased.leaver-chooses": "脱退者の選択により、脱退者を除いて学習し直すか、破棄する",
    "change.all-contributors": "すべての提供者",
    "tighten.any-contributor": "いずれか1名の提供者",
    "tighten.all-contributors": "すべての提供者",
    "rotation.by-old-key-or-all": "旧い鍵による署名、または全提供者の署名",
    "rotation.all-contributors": "全提供者の署名",
    "halt-who.any-contributor": "各提供者",
    "halt-who.auditor": "監査人",
    "halt-who.broker": "ブローカー",
    "halt-effect.no-new-round-no-release": "新たなラウンド、集約、公開、引渡しを行わない",
    "resume.all-contributors": "すべての提供者",
    "conflict.prohibit-wins": "禁止が優先する",
    "unknown.refuse": "拒否する",
}

# Meanings of names that the parties choose, where a name is well known.
NAMED: Final = {
    "use.reidentify-party-or-plant": "当事者や工場の特定",
    "use.benchmark-competitors": "競合他社どうしの比較評価",
    "use.reverse-engineer-process": "他者の工程の解析",
    "use.infer-capacity-or-mix": "生産能力や品種構成の推定",
    "use.train-outside-recipes": "レシピ外の学習",
    "use.military-end-use": "軍事的最終用途",
    "filter.rdp-fixed-order": "計画を順に選んでも成り立つ停止規則",
    "formula.cost-share/1": "同額の利用料に対する割合に応じた払戻し",
    "cause.wilful": "故意",
    "cause.trade-secret-misuse": "営業秘密の不正利用",
}

COUNTS: Final = {
    "round": ("{n}ラウンド", "{n}ラウンド"),
    "local step": ("{n}ローカルステップ", "{n}ローカルステップ"),
    "contributor": ("提供者{n}者", "提供者{n}者"),
    "group": ("{n}グループ", "{n}グループ"),
    "independent group": ("独立した{n}グループ", "独立した{n}グループ"),
    "hour": ("{n}時間", "{n}時間"),
    "day": ("{n}日", "{n}日"),
    "year": ("{n}年", "{n}年"),
    "held-out episode": ("検証用エピソード{n}件", "検証用エピソード{n}件"),
    "judging": ("{n}回", "{n}回"),
    "witness": ("証人{n}名", "証人{n}名"),
}
