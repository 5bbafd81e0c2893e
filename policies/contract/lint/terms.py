# SPDX-License-Identifier: Apache-2.0
"""Rules about unfair and unsafe terms (`policies.contract.lint` says what a rule is).

Bounds are those of the design: k of 3, delta of 1e-5, epsilon of 10, a day's delay, three days' retention of
updates, a share of 60 %, five years, a third of all clauses. A contract with ``test_only: true`` may have any
privacy, or none: everybody who signs it acknowledges that only test data may enter it.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from policies.contract.coherence import owner_of
from policies.contract.lint.rows import DOCUMENT, error, names, warning
from policies.contract.registry import CANARY_REPORT, LAW, MEMBERSHIP_REPORT
from policies.contract.thresholds import groups_to_open, least_online, share_at_most
from policies.ports import to_ms
from policies.privacy.canaries import per_party, units_needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import Contract

__all__ = ["TERMS"]

_K: Final = 3
_DELTA: Final = Decimal("0.00001")
_EPSILON: Final = Decimal(10)
_SHARE: Final = Decimal("0.6")
_DELAY_H: Final = 24
_UPDATES_H: Final = 72
_YEARS: Final = 5
_WITNESSES: Final = frozenset({"auditor", "contributor"})
_YEAR_MS: Final = 366 * 86_400_000  # five calendar years never count as more than five
_LAW_ONLY_IN: Final = 3
# Words in the name of a field that tell of a secret of the process, or of a person.
_PROCESS: Final = frozenset(
    {"batch", "customer", "cycle", "layout", "lot", "part", "program", "serial", "shift"}
)
_PERSON: Final = frozenset({"badge", "employee", "face", "name", "operator", "person", "voice", "worker"})
_EXCLUSIVE: Final = re.compile(r"(?<!non-)(?<!non)(?<!not )exclusive|(?<!非)独占", re.IGNORECASE)


# --- errors: no pool should sign this ---


def _k_too_small(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if clause.min_parties < _K:
        yield clause.clause, str(clause.min_parties)


def _not_private(contract: Contract) -> Iterator[tuple[str, str]]:
    if contract.privacy.mode == "none" and not contract.test_only:
        yield contract.privacy.clause, "mode none, test_only false"


def _delta_too_large(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.privacy
    if not contract.test_only and clause.delta is not None and Decimal(clause.delta) > _DELTA:
        yield clause.clause, clause.delta


def _epsilon_too_large(contract: Contract) -> Iterator[tuple[str, str]]:
    clause, total = contract.privacy, contract.privacy.epsilon_total
    if not contract.test_only and total is not None and Decimal(total) > _EPSILON:
        yield clause.clause, total


def _halt_closed(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.halt
    if "any-contributor" not in clause.who:
        yield clause.clause, names(clause.who)


# --- warnings: who signs should know it ---


def _test_only(contract: Contract) -> Iterator[tuple[str, str]]:
    if contract.test_only:
        yield DOCUMENT, f"test_only true, privacy mode {contract.privacy.mode}"


def _secure_aggregation_off(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if clause.secure_aggregation == "off":
        yield clause.clause, "off"


def _colluders(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if clause.max_colluders > 0 and clause.secure_aggregation == "off":
        yield clause.clause, f"max_colluders {clause.max_colluders}, secure_aggregation off"


def _shares_trust(contract: Contract) -> Iterator[tuple[str, str]]:
    """The noise is enough with all of ``honest_min`` honest, and a sum opens with no maker more than that."""
    clause = contract.privacy
    if clause.noise == "shares" and contract.aggregation.max_colluders == 0:
        yield clause.clause, f"noise shares, honest_min {clause.honest_min}, max_colluders 0"


def _secure(contract: Contract) -> bool:
    return contract.aggregation.secure_aggregation == "required"


def _groups_to_open(contract: Contract) -> int:
    clause = contract.aggregation
    return groups_to_open(clause.min_parties, clause.max_colluders, contract.privacy.honest_min)


def _no_drop_out(contract: Contract) -> Iterator[tuple[str, str]]:
    """Recipes in which one contributor or one group that is missing keeps every sum closed."""
    k = contract.aggregation.min_parties
    for recipe in contract.recipes if _secure(contract) else ():
        all_of_them, groups = len(recipe.participants), len(contract.groups(recipe.participants))
        least, open_at = least_online(all_of_them, k), _groups_to_open(contract)
        if all_of_them == least or groups == open_at:
            yield recipe.clause, f"{least} of {all_of_them} contributors, {open_at} of {groups} groups"


def _group_mac_off(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if _secure(contract) and clause.group_mac == "off":
        yield clause.clause, "off"


def _no_teams(contract: Contract) -> Iterator[tuple[str, str]]:
    clause, least = contract.aggregation, _groups_to_open(contract)
    groups = {one.id: len(contract.groups(one.participants)) for one in contract.recipes}
    few = [f"{name}: {count}" for name, count in sorted(groups.items()) if count < 2 * least]
    if _secure(contract) and few:
        yield clause.clause, f"{names(few)}; {least} groups in each sum"


def _one_can_end(contract: Contract) -> Iterator[tuple[str, str]]:
    k = contract.aggregation.min_parties
    for recipe in contract.recipes:
        if len(contract.groups(recipe.participants)) == k:
            yield recipe.clause, f"{k} groups, min_parties {k}"


def _share_large(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if Decimal(clause.max_share) > _SHARE:
        yield clause.clause, clause.max_share


def _share_drop_out(contract: Contract) -> Iterator[tuple[str, str]]:
    """Recipes in which those who may be missing leave one group with too much of the weight."""
    clause, groups = contract.aggregation, _groups_to_open(contract)
    for recipe in contract.recipes if _secure(contract) else ():
        names_here = recipe.participants
        weights = {name: Fraction(value) for name, value in contract.weights(names_here).items()}
        group_of = {name: contract.index.group_of[name] for name in names_here}
        least = least_online(len(names_here), clause.min_parties)
        group, share = share_at_most(weights, group_of, members=least, groups=groups)
        if share > Fraction(clause.max_share):
            yield recipe.clause, f"up to {float(share):.3f} for {group}, max_share {clause.max_share}"


def _delay_short(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if clause.delay_hours < _DELAY_H:
        yield clause.clause, str(clause.delay_hours)


def _differencing_off(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.aggregation
    if clause.differencing_guard == "off":
        yield clause.clause, "off"


def _secret_without_veto(contract: Contract) -> Iterator[tuple[str, str]]:
    owners = {owner_of(contract, one) for one in contract.release.approvals.veto}
    for secret in contract.fields.trade_secret:
        if secret.party not in owners:
            yield secret.clause, secret.party


def _field_telling(contract: Contract) -> Iterator[tuple[str, str]]:
    found = [one for one in contract.fields.allow if (_PROCESS | _PERSON) & set(one.split("_"))]
    if found:
        yield contract.fields.clause, names(found)


def _release_by_one(contract: Contract) -> Iterator[tuple[str, str]]:
    if contract.release.approvals.min == 1:
        yield contract.release.clause, "approvals.min 1"


def _canaries_need_units(contract: Contract) -> Iterator[tuple[str, str]]:
    clause, k = contract.release, contract.aggregation.min_parties
    each = per_party(clause.evidence, k)
    if each:
        asking = [one for one in clause.evidence if one in {CANARY_REPORT, MEMBERSHIP_REPORT}]
        yield clause.clause, f"{names(asking)}; min_parties {k}: canaries {each}, units {units_needed(each)}"


def _exclusive_use(contract: Contract) -> Iterator[tuple[str, str]]:
    """A model for the participants of a recipe alone, or a licence that says so."""
    everybody = contract.groups(one.party for one in contract.contributors)
    for tier in contract.tiers:
        if _EXCLUSIVE.search(tier.licence):
            yield tier.clause, tier.licence
        recipe = next(one for one in contract.recipes if one.id == tier.recipe)
        others = {one.tier for one in contract.tiers if one.recipe == tier.recipe}
        own = contract.groups(recipe.participants)
        if tier.tier == "participant" and not others & {"open", "consortium"} and own < everybody:
            yield tier.clause, names(recipe.participants)


def _exit_without_copy(contract: Contract) -> Iterator[tuple[str, str]]:
    for recipe in contract.recipes:
        tiers = sorted({one.tier for one in contract.tiers if one.recipe == recipe.id})
        if set(tiers) <= {"private"}:
            yield recipe.clause, "tiers: " + (names(tiers) or "none")


def _exit_without_export(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.audit
    if clause is None:
        yield contract.exit.clause, "audit null"
    elif "contributors" not in clause.who:
        yield clause.clause, names(clause.who)


def _retention_long(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.retention
    if clause is not None and clause.updates_hours > _UPDATES_H:
        yield clause.clause, str(clause.updates_hours)


def _liability_unlimited(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.liability
    if clause is not None and clause.cap_eur is None:
        yield clause.clause, "cap_eur null"


def _liability_one_sided(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.liability
    if clause is not None and clause.bears != "each-party":
        yield clause.clause, f"bears {clause.bears}"


def _too_few_players(contract: Contract) -> Iterator[tuple[str, str]]:
    clause, k = contract.incentives, contract.aggregation.min_parties
    if clause is None or clause.method != "group-probe-shapley":
        return
    fewest = min(len(contract.groups(one.participants)) for one in contract.recipes)
    if fewest < 2 * k:
        yield clause.clause, f"{fewest} groups, min_parties {k}"


def _fees_unequal(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.fees
    if clause is not None and clause.basis == "by-size":
        yield clause.clause, clause.basis


def _fees_tied(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.fees
    if clause is not None and clause.tied_services != "none":
        yield clause.clause, clause.tied_services


def _law_of_one(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.law
    if clause is None:
        return
    at_home = [one.party for one in contract.contributors if one.country == clause.governing]
    if at_home and len(at_home) < len(contract.contributors):
        yield clause.clause, f"{clause.governing} (home of {names(at_home)}), {clause.forum}"


def _embargoes_a_party(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.export_control
    if clause is None:
        return
    for country in clause.embargoed:
        at_home = [one.party for one in contract.contributors if one.country == country]
        if at_home:
            yield clause.clause, f"{country} (home of {names(at_home)})"


def _term_long(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.term
    if to_ms(clause.expires) - to_ms(clause.effective) > _YEARS * _YEAR_MS:
        yield clause.clause, f"{clause.effective} to {clause.expires}"


def _purpose_unused(contract: Contract) -> Iterator[tuple[str, str]]:
    used = {one.purpose for one in contract.recipes}
    for purpose in contract.purposes:
        if purpose.id not in used:
            yield purpose.clause, purpose.id


def _law_only_share(contract: Contract) -> Iterator[tuple[str, str]]:
    clauses = list(contract.clauses())
    law_only = [one.clause for one in clauses if set(one.enforced_by) <= {LAW}]
    if len(law_only) * _LAW_ONLY_IN > len(clauses):
        yield DOCUMENT, f"{len(law_only)} of {len(clauses)}: {names(law_only)}"


def _witnesses_few(contract: Contract) -> Iterator[tuple[str, str]]:
    """A quorum that nobody can reach, or that one witness who signs everything gives to two histories."""
    clause = contract.audit
    if clause is None or not clause.witness_quorum:
        return
    k, n = clause.witness_quorum, sum(one.role in _WITNESSES for one in contract.parties)
    if k > n or 2 * k - n - 1 < 1:
        yield clause.clause, f"{k} of {n}"


TERMS: Final = (
    error(
        "k-too-small",
        _k_too_small,
        (f"at least {_K} independent groups", f"独立したグループが {_K} 以上"),
        (f"raise min_parties to {_K} or more", f"min_parties を {_K} 以上にする"),
    ),
    error(
        "not-private",
        _not_private,
        ("differential privacy, or test_only: true", "差分プライバシー、または test_only: true"),
        (
            "write mode dp with its terms, or test_only: true for a pool of test data",
            "mode dp とその条件を定める。試験用データだけのプールなら test_only: true とする",
        ),
    ),
    error(
        "delta-too-large",
        _delta_too_large,
        (f"delta at most {_DELTA}", f"δ が {_DELTA} 以下"),
        ("lower delta", "delta を下げる"),
    ),
    error(
        "epsilon-too-large",
        _epsilon_too_large,
        (f"epsilon_total at most {_EPSILON}", f"epsilon_total が {_EPSILON} 以下"),
        ("lower epsilon_total", "epsilon_total を下げる"),
    ),
    error(
        "halt-closed",
        _halt_closed,
        ("a halt that every contributor may call", "すべての提供者が停止を求められること"),
        ("add any-contributor to who", "who に any-contributor を加える"),
    ),
    warning(
        "test-only",
        _test_only,
        ("a contract for real work", "実務のための契約"),
        (
            "let only test data into it; write test_only: false for real work",
            "試験用データだけを入れる。実務では test_only: false とする",
        ),
    ),
    warning(
        "secure-aggregation-off",
        _secure_aggregation_off,
        (
            "updates that the broker cannot read (secure aggregation)",
            "ブローカーが個々の更新を読めないこと（セキュア集約）",
        ),
        (
            "know that the broker sees each update, protected by the party's own noise only",
            "ブローカーは各当事者の更新を見る。守るのは当事者自身のノイズだけであると承知しておく",
        ),
    ),
    warning(
        "colluders-uncovered",
        _colluders,
        (
            "secure aggregation where colluders are counted",
            "結託者数を定めるならセキュア集約を用いること",
        ),
        (
            "write max_colluders: 0; without secure aggregation nothing stands against them",
            "max_colluders: 0 とする。セキュア集約がなければ結託への備えは何もない",
        ),
    ),
    warning(
        "shares-trust",
        _shares_trust,
        (
            "noise shares that are enough while one maker works with the broker (max_colluders 1 or more)",
            "1 者がブローカーと結託しても足りるノイズ分担であること（max_colluders が 1 以上）",
        ),
        (
            "raise max_colluders, write local-full, or know that one colluder lifts epsilon (see statements)",
            "max_colluders を上げるか local-full とする。さもなければ 1 者の結託で ε が上がると承知しておく",
        ),
    ),
    warning(
        "no-drop-out",
        _no_drop_out,
        (
            "a recipe in which a sum opens although one contributor is missing",
            "提供者が 1 者欠けても合計を開けるレシピであること",
        ),
        (
            "win another contributor, lower min_parties or max_colluders, or know that one absence stops all",
            "提供者を増やすか上の条件を緩める。さもなければ 1 者の不在でラウンドが止まると承知しておく",
        ),
    ),
    warning(
        "group-mac-off",
        _group_mac_off,
        (
            "members that check each opened sum themselves (group MAC)",
            "開かれた合計を参加者自身が検査すること（グループ MAC）",
        ),
        (
            "write group_mac: on; without it only an auditor finds a wrong sum, later",
            "group_mac: on とする。さもなければ誤った合計は後の監査でしか見つからない",
        ),
    ),
    warning(
        "no-teams",
        _no_teams,
        (
            "twice as many groups in each recipe as a sum needs, so that teams of members can be tested",
            "参加者の組ごとに検査できるよう、各レシピに合計に要する数の2倍のグループがあること",
        ),
        (
            "know what is left against a harmful update: own checks, the sum's form and norm, votes",
            "有害な更新への備えは、自己検査、合計の形式とノルムの検査、モデルへの投票に限られると承知しておく",
        ),
    ),
    warning(
        "one-can-end",
        _one_can_end,
        (
            "more groups in a recipe than min_parties",
            "レシピに参加するグループが min_parties より多いこと",
        ),
        (
            "win another group, or know that one exit ends the recipe",
            "グループを増やす。増やさないなら、1 者の脱退でレシピが終わることを承知しておく",
        ),
    ),
    warning(
        "share-large",
        _share_large,
        (f"max_share at most {_SHARE}", f"max_share が {_SHARE} 以下"),
        ("lower max_share", "max_share を下げる"),
    ),
    warning(
        "share-drop-out",
        _share_drop_out,
        (
            "max_share kept by every sum that may be opened, also with contributors missing",
            "欠席者がいても、開かれるどの合計でも max_share が守られること",
        ),
        (
            "weights that are closer, or know that some absences keep the sum closed",
            "重みの差を縮める。縮めないなら、欠席の組合せによって合計が開かれないことを承知しておく",
        ),
    ),
    warning(
        "delay-short",
        _delay_short,
        (f"delay_hours at least {_DELAY_H}", f"delay_hours が {_DELAY_H} 以上"),
        (
            "raise delay_hours: fresh figures tell rivals about present production",
            "delay_hours を上げる。新しい数値は競合に現在の生産状況を伝える",
        ),
    ),
    warning(
        "differencing-off",
        _differencing_off,
        ("a guard against differencing", "差分攻撃への備え"),
        (
            "write differencing_guard: non-dp-outputs or all",
            "differencing_guard を non-dp-outputs または all にする",
        ),
    ),
    warning(
        "secret-without-veto",
        _secret_without_veto,
        ("a veto for the owner of a trade secret", "営業秘密の保有者に拒否権があること"),
        ("add the clause to release.approvals.veto", "この条項を release.approvals.veto に加える"),
    ),
    warning(
        "field-telling",
        _field_telling,
        (
            "fields whose names tell of no process secret and of no person",
            "工程の秘密や個人を示す名前の項目がないこと",
        ),
        (
            "take the field off the list, or make sure that it is harmless",
            "項目を一覧から外すか、害がないことを確かめる",
        ),
    ),
    warning(
        "release-by-one",
        _release_by_one,
        ("approvals of more than one group", "複数のグループによる承認"),
        ("raise approvals.min", "approvals.min を上げる"),
    ),
    warning(
        "canaries-need-units",
        _canaries_need_units,
        (
            "at each contributor, as many training units as its canaries need",
            "各提供者が、そのカナリアに要る数の学習単位（units）を持つこと",
        ),
        (
            "ask everybody before signing: a node with fewer joins no run; or leave these reports out",
            "署名の前に全員に確かめる。不足するノードは実行に参加できない。さもなければこの報告を外す",
        ),
    ),
    warning(
        "exclusive-use",
        _exclusive_use,
        ("models for every contributor", "すべての提供者がモデルを使えること"),
        (
            "add a consortium or open tier, or know that the others receive nothing",
            "consortium か open の区分を加える。加えないなら、他の提供者は何も受け取らないと承知しておく",
        ),
    ),
    warning(
        "exit-without-copy",
        _exit_without_copy,
        (
            "a tier that gives the model to those whose data trained it",
            "データを提供した者がモデルを受け取る区分",
        ),
        (
            "add a participant, consortium or open tier for the recipe",
            "このレシピに participant、consortium、open のいずれかの区分を加える",
        ),
    ),
    warning(
        "exit-without-export",
        _exit_without_export,
        (
            "an audit clause that gives contributors the proofs of the log",
            "提供者がログの証明を受け取れる監査条項",
        ),
        (
            "add an audit clause with who: [auditor, contributors]",
            "who: [auditor, contributors] とする監査条項を加える",
        ),
    ),
    warning(
        "retention-long",
        _retention_long,
        (f"updates_hours at most {_UPDATES_H}", f"updates_hours が {_UPDATES_H} 以下"),
        ("lower updates_hours", "updates_hours を下げる"),
    ),
    warning(
        "liability-unlimited",
        _liability_unlimited,
        ("a cap on liability", "責任額の上限"),
        ("write cap_eur", "cap_eur を定める"),
    ),
    warning(
        "liability-one-sided",
        _liability_one_sided,
        ("liability that each party bears", "各当事者が責任を負うこと"),
        ("write bears: each-party", "bears: each-party とする"),
    ),
    warning(
        "too-few-players",
        _too_few_players,
        (
            "twice min_parties groups in each recipe, so that teams can be compared",
            "組どうしを比べられるよう、各レシピに min_parties の2倍のグループがあること",
        ),
        (
            "write method: flat, or know that shares will be equal all the same",
            "method: flat とする。しないなら、分配は結局均等になると承知しておく",
        ),
    ),
    warning(
        "fees-unequal",
        _fees_unequal,
        ("the same fee for each group", "どのグループも同額の料金"),
        ("write basis: equal-per-group", "basis: equal-per-group とする"),
    ),
    warning(
        "fees-tied",
        _fees_tied,
        ("a service that is tied to no other", "他のサービスと抱き合わせでないこと"),
        ("write tied_services: none", "tied_services: none とする"),
    ),
    warning(
        "law-of-one",
        _law_of_one,
        (
            "a law that is not the home law of some contributors only",
            "一部の提供者だけの自国法でない準拠法",
        ),
        (
            "choose a neutral law and forum, or know whose home it is",
            "中立な準拠法と紛争解決の場を選ぶ。選ばないなら、誰の地元かを承知しておく",
        ),
    ),
    warning(
        "embargoes-a-party",
        _embargoes_a_party,
        (
            "no contributor at home in an embargoed country",
            "禁輸国を本国とする提供者がいないこと",
        ),
        (
            "take the country off embargoed, or know that this contributor receives no model",
            "embargoed からその国を外す。外さないなら、その提供者はモデルを受け取らないと承知しておく",
        ),
    ),
    warning(
        "term-long",
        _term_long,
        (f"a term of at most {_YEARS} years", f"期間が {_YEARS} 年以下"),
        ("shorten the term and renew it", "期間を短くし、更新する"),
    ),
    warning(
        "witnesses-few",
        _witnesses_few,
        (
            "a quorum k of the n contributors and auditors with 2k - n - 1 >= 1 and k <= n",
            "提供者と監査人 n 者のうち k 者の証人数で、2k - n - 1 >= 1 かつ k <= n",
        ),
        (
            "ask for more, so that one who signs everything cannot vouch for two histories; for n at most",
            "一者がすべてに署名しても二つの履歴が保証されない数にする。n を超えてはならない",
        ),
    ),
    warning(
        "purpose-unused",
        _purpose_unused,
        ("a recipe for each purpose", "各目的を用いるレシピがあること"),
        ("drop the purpose, or name the recipe for it", "目的を削るか、用いるレシピを定める"),
    ),
    warning(
        "law-only-share",
        _law_only_share,
        (
            f"at most 1 in {_LAW_ONLY_IN} clauses law only",
            f"法的拘束のみの条項が全体の {_LAW_ONLY_IN} 分の 1 以下",
        ),
        (
            "know that software keeps few of these terms; move what can wait into the prose",
            "ソフトウェアが守る条項が少ないと承知しておく。可能なものは本文（prose）に移す",
        ),
    ),
)
