# SPDX-License-Identifier: Apache-2.0
"""The contract in English and Japanese: nothing of it is left unsaid, and nothing is said that it does not say."""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import ast
import copy
import re
import string
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from policies.contract import Contract, enforcement_map, evaluate, from_tree
from policies.contract.errors import ContractInvalidError
from policies.contract.grammar import (
    At,
    Choice,
    Decimals,
    Digest,
    Flag,
    Integer,
    Key,
    Nullable,
    Prose,
    Rows,
    Rule,
    Set,
    Struct,
    Time,
    Word,
    read_fields,
    rules_of,
)
from policies.contract.registry import FORBIDDEN_CHECKS
from policies.contract.render import explain, head_words, label_words, plain_words
from policies.contract.words import english as en
from policies.contract.words import japanese as ja
from policies.contract.words.remedies import REMEDIES, remedy_text
from policies.contract.words.values_japanese import in_japanese
from tests.contractsim import (
    STATE,
    allowed,
    authored,
    contract,
    key,
    shared_noise,
    shared_noise_allowed,
    train_round,
    without_privacy,
)

CONTRACT = contract()
HERE = Path(__file__).parents[2] / "policies" / "contract"
JAPANESE = re.compile("[぀-ヿ一-鿿]")


def full() -> dict[str, Any]:
    """The whole language in one document: every optional term is there."""
    tree = authored()
    tree |= {"version": 2, "supersedes": "sha256:" + "1" * 64, "test_only": True}
    tree["privacy"] |= {"honest_min": 3, "protected_properties": ["shift-pattern"], "reply_slot_ms": 250}
    tree["privacy"] |= {"noise": "shares"}
    tree["aggregation"] |= {"secure_aggregation": "required", "max_colluders": 1, "weights": "fixed"}
    tree["aggregation"] |= {
        "fixed_weights": [{"party": name, "weight": "2"} for name in ("hanbit", "iber", "kita", "nord")],
    }
    tree["validation"] |= {
        "judge_episodes": 200,
        "gain_clip": "0.05",
        "max_judgings": 24,
        "epsilon": "2",
    }
    tree["incentives"] |= {
        "formula": "cost-share/1",
        "min_participation": "0.67",
        "probe_share": "0.5",
        "probe_window": 2,
        "fingerprints": "on",
    }
    for tier in tree["tiers"]:
        tier |= {"embargo_days": 7}
    return tree


def loose(tree: dict[str, Any]) -> Contract:
    """The contract behind a document, whatever its clauses say about each other."""
    tree = Struct(Contract).normal(tree)
    terms = read_fields(Contract, tree, At(None, ""))
    return Contract(**terms, canonical=b"", digest="")  # no sentence is about them


def whole_document() -> dict[str, Any]:
    """`full` as canonical JSON, without asking whether it could be signed."""
    from policies.contract import document as boundary

    tree = copy.deepcopy(full())
    boundary._fill(Contract, tree, tree)
    return Struct(Contract).normal(tree)


DOCUMENT = whole_document()


def said(tree: dict[str, Any], lang: str) -> list[Any]:
    found = loose(tree)
    return [head_words(found, lang), plain_words(found, lang=lang)]


# --- one change of one field ---

OTHERS = {
    Word: ("xy", "ZZ", "zz", "ctr_aaaaaaaaaaaaaaaa", "org_aaaaaaaaaaaaaaaa", "0" * 64, "log.example"),
    Decimals: ("0.123",),
    Time: ("2027-06-06T06:06:06Z",),
    Digest: ("sha256:" + "7" * 64,),
    Key: (key("mallory"),),
    Prose: ("Other words",),
}
# No second value exists, so none can be shown: `schema`, `prevails` and every closed list of one word.


def others(rule: Rule, value: Any) -> Iterator[Any]:
    """Other values that the rule takes; of rows and objects only those of their own level."""
    if isinstance(rule, Nullable):
        if value is None:
            yield from list(others(rule.of, value))[:1]
        else:
            yield None
            yield from others(rule.of, value)
    elif isinstance(rule, Choice):
        yield from (one for one in rule.options if one != value)
    elif isinstance(rule, Integer):
        yield from (one for one in ((value or 0) + 1, (value or 2) - 1) if rule.least <= one <= rule.most)
    elif isinstance(rule, Flag):
        if rule.only is None:
            yield not value
    elif isinstance(rule, Set):
        if len(value) > rule.least:
            yield value[1:]
        yield from (sorted([*value, one]) for one in list(others(rule.of, None))[:1] if one not in value)
    elif isinstance(rule, Rows):
        if len(value or ()) > rule.least:
            yield value[1:]
    else:
        yield from (one for one in OTHERS.get(type(rule), ()) if one != value and takes(rule, one))


def takes(rule: Rule, value: Any) -> bool:
    try:
        rule.read(value, At(None, ""))
    except ContractInvalidError:
        return False
    return True


def below(rule: Rule) -> type | None:
    while isinstance(rule, Nullable):
        rule = rule.of
    return rule.of if isinstance(rule, Struct | Rows) else None


def changes(kind: type, tree: Any, path: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Every (path, object, key, other value) of a document."""
    for name, rule in rules_of(kind).items():
        value, place = tree[name], f"{path}.{name}" if path else name
        inner = below(rule)
        if inner is not None and value is not None:
            rows = value if isinstance(value, list) else [value]
            for index, row in enumerate(rows):
                yield from changes(inner, row, f"{place}[{index}]" if isinstance(value, list) else place)
        for other in others(rule, value):
            yield place, tree, name, other


# Exceptions, each because no contract that loads can be like that.
PLAN = {  # never null under `mode: dp`
    f"privacy.{name}"
    for name in ("unit", "adjacency", "delta", "epsilon_per_release", "epsilon_total", "filter", "noise")
}
IMPOSSIBLE = {
    "privacy.mode",  # `none` with a plan; what `none` says has its own test
    "tiers[3].requires",  # a private tier requires nothing
}
CHANGES = [
    one
    for one in changes(Contract, DOCUMENT)
    if one[0] not in IMPOSSIBLE and not (one[0] in PLAN and one[3] is None)
]


def test_the_document_of_this_test_has_every_term_of_the_language():
    def empty(kind: type, tree: Any, path: str) -> Iterator[str]:
        for name, rule in rules_of(kind).items():
            inner = below(rule)
            if tree[name] is None or tree[name] == []:
                yield f"{path}.{name}"
            elif inner is not None:
                for row in tree[name] if isinstance(tree[name], list) else [tree[name]]:
                    yield from empty(inner, row, f"{path}.{name}")

    # a cap of one kind, a tier without a minimum, a private tier that requires nothing: each stands elsewhere in full
    assert set(empty(Contract, DOCUMENT, "")) <= {
        ".privacy.per_party.epsilon_per_release",
        ".tiers.min_contribution",
        ".tiers.requires",
    }


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_change_of_any_field_changes_some_sentence(lang):
    before = said(DOCUMENT, lang)
    unsaid = []
    for path, tree, name, other in CHANGES:
        kept, tree[name] = tree[name], other
        try:
            if said(DOCUMENT, lang) == before:
                unsaid.append(f"{path}: {kept} -> {other}")
        finally:
            tree[name] = kept
    assert len(CHANGES) > 400
    assert not unsaid


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_kind_of_clause_has_sentences(lang):
    spoken = {clause for clause, _ in plain_words(CONTRACT, lang=lang)}
    assert spoken == {one.clause for one in CONTRACT.clauses()}


# --- the catalogues ---


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("table", ["SENTENCES", "TERMS", "NAMED", "LABELS", "POINTS", "COUNTS"])
def test_both_languages_have_the_same_keys(table):
    assert set(getattr(en, table)) == set(getattr(ja, table))


def test_a_sentence_has_the_same_blanks_in_both_languages():
    for table in ("SENTENCES", "LABELS"):
        english, japanese = getattr(en, table), getattr(ja, table)
        assert {k: blanks(v) for k, v in english.items()} == {k: blanks(v) for k, v in japanese.items()}


def test_each_word_of_the_language_is_another_one_in_both_languages():
    for words in (en.TERMS, ja.TERMS):
        topics: dict[str, list[str]] = {}
        for name, text in words.items():
            topics.setdefault(name.partition(".")[0], []).append(text)
        assert all(len(set(found)) == len(found) for found in topics.values())


def test_zero_out_is_the_absence_of_a_contribution_and_not_a_record_of_zeros():
    for words, nothing, record in ((en, "contributed nothing", "zeros"), (ja, "何も寄与しなかった", "ゼロ")):
        said = words.TERMS["adjacency.zero-out"]
        assert nothing in said
        assert record not in said


def test_japanese_is_japanese():
    for table in (ja.SENTENCES, ja.LABELS, ja.POINTS):
        assert all(JAPANESE.search(text) for text in table.values())
    assert all(JAPANESE.search(text) for _, text in REMEDIES.values())


def test_no_sentence_brings_a_number_of_its_own():
    own = {"SHA-256", "1回", "1ラウンド", "2グループ"}  # a name; "a release", "a round", "two others"
    for words in (en, ja):
        for name, text in words.SENTENCES.items():
            bare = re.sub("|".join(own), "", re.sub(r"\{[^}]*\}", "", text))
            assert not re.search("[0-9]", bare), name


def test_every_sentence_of_the_catalogue_is_used():
    source = (HERE / "words" / "sentences.py").read_text("utf-8")
    written = {one.value for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Constant)}
    made = {f"check-{one}" for one in FORBIDDEN_CHECKS}
    made |= {f"differencing-{one}" for one in ("off", "non-dp-outputs", "all")}
    made |= {"secure-off", "secure-required"}
    made |= {f"pay-{one}" for one in ("floor", "cap", "min-participation", "probe-share", "probe-window")}
    assert set(en.SENTENCES) - written - made == set()


# --- labels, order, privacy ---


@pytest.mark.parametrize(("lang", "label"), [("en", "[law only]"), ("ja", "[法的拘束のみ]")])
def test_law_only_clauses_come_last_and_every_sentence_of_them_says_so(lang, label):
    law_only = {one.clause for one in enforcement_map(CONTRACT) if one.label == "law only"}
    assert law_only >= {"prose-1", "purpose-3", "fees-1", "liab-1", "law-1"}
    for party in (None, "nord"):
        sentences = plain_words(CONTRACT, party, lang)
        marks = [clause in law_only for clause, _ in sentences]
        assert marks == sorted(marks)
        assert [text.endswith(label) for _, text in sentences] == marks


def test_the_label_names_the_points_where_code_refuses():
    labels = {one.clause: (label_words(one), label_words(one, "ja")) for one in enforcement_map(CONTRACT)}
    assert labels["fields-1"] == ("enforced: broker, node", "システムで強制：ブローカー、ノード")
    assert labels["export-1"][0].startswith("enforced in part: release gate; in part law only")
    assert labels["export-1"][1].startswith("一部をシステムで強制：公開ゲート")
    assert labels["law-1"] == ("law only", "法的拘束のみ")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_party_reads_its_own_duties_first(lang):
    order = list(dict(plain_words(CONTRACT, "nord", lang)))
    assert set(order[:3]) == {"party-nord", "dp-2", "secret-1"}
    assert set(order[3:7]) == {"recipe-1", "recipe-2", "fields-1", "dp-1"}


def test_a_donor_reads_about_its_donation_early():
    order = list(dict(plain_words(CONTRACT, "iber")))
    assert order.index("seed-1") < order.index("party-kita")


@pytest.mark.parametrize(("lang", "words"), [("en", "NOT PRIVATE"), ("ja", "プライバシー保護なし")])
def test_a_contract_without_privacy_says_so(lang, words):
    tree = without_privacy().document
    tree["aggregation"] |= {"secure_aggregation": "off", "group_mac": "off"}
    open_pool = from_tree(tree)
    bare, private = (dict(plain_words(one, lang=lang)) for one in (open_pool, CONTRACT))
    assert words in bare["dp-1"]
    everything = " ".join(text for _, text in plain_words(open_pool, lang=lang))
    assert everything.count("NOT PRIVATE") == 2  # the privacy clause, and that nothing protects an update
    assert words not in " ".join(private.values())


def test_nothing_is_said_to_be_unlearned():
    for lang, words in (("en", "it is not erased"), ("ja", "消去はされない")):
        assert any(words in text for clause, text in plain_words(CONTRACT, lang=lang) if clause == "exit-1")


def test_a_well_known_name_is_explained_and_another_one_stays_as_it_is():
    tree = authored()
    tree["forbidden"][0]["use"] = "resell-our-models"
    words = [text for clause, text in plain_words(from_tree(tree)) if clause == "forbid-1"]
    assert words[0].endswith("for this: resell-our-models.")
    assert "benchmark-competitors (comparing competitors" in " ".join(t for _, t in plain_words(CONTRACT))


def test_the_head_says_what_belongs_to_no_clause():
    tree = authored() | {"version": 2, "supersedes": "sha256:" + "1" * 64, "test_only": True}
    english, japanese = (" ".join(head_words(from_tree(tree), lang)) for lang in ("en", "ja"))
    for text in (english, japanese):
        assert "ctr_lkihp6tr36wod3m4" in text
        assert "sha256:" + "1" * 64 in text
        assert "2026-11-30T00:00:00Z" in text
        assert "TEST ONLY" in text
    assert "TEST ONLY" not in " ".join(head_words(CONTRACT))


# --- decisions ---


def used_remedies() -> set[str]:
    found = set()
    for path in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "remedy":
                found |= {
                    one.value
                    for one in ast.walk(node.value)
                    if isinstance(one, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)*", str(one.value))
                }
    return found


def test_every_remedy_that_a_check_names_has_words_in_both_languages():
    assert used_remedies() == set(REMEDIES)
    assert all(len(words) == 2 and all(words) for words in REMEDIES.values())
    assert remedy_text("sign", "ja") != remedy_text("sign")


def test_a_refusal_reads_in_both_languages():
    request = train_round("nord", epsilon_after_total="4.1")
    decision = evaluate(CONTRACT, STATE, request)
    assert explain(decision, request) == [
        (
            "REFUSED TrainRound nord: dp-2 epsilon-total: needs <= 4, found 4.1."
            " Remedy: stop training under this contract, or amend the clause (all contributors)."
        )
    ]
    assert explain(decision, request, "ja") == [
        (
            "拒否 TrainRound nord：dp-2 epsilon-total：必要 4 以下、実際 4.1。"
            "対処：本契約での学習を止めるか、条項を改定する（全提供者の署名）。"
        )
    ]
    fine = train_round()
    assert explain(evaluate(CONTRACT, STATE, fine), fine, "ja")[0].startswith("許可 TrainRound kita：所見")
    nobody = replace(fine, party=None)
    assert explain(evaluate(CONTRACT, STATE, nobody), nobody, "ja")[0].startswith(
        "拒否 TrainRound 不明の者："
    )


def test_no_english_phrase_is_left_in_a_japanese_finding():
    phrase = re.compile(
        r"(?<![\w-])(of|the|by|about|not|no|an?|each|all|with|yet|nothing|nobody|only|in|others?|groups?|and|to|none)(?![\w-])"
    )
    names = {"groups", "= none", "all"}  # a fact, a word of the contract, the subject "all"
    left = set()
    for text in findings():
        shown = in_japanese(text)
        for name in names:
            shown = shown.replace(name.removeprefix("= "), "")
        if phrase.search(shown):
            left.add(text)
    assert not left


def findings() -> set[str]:
    """What all checks need and find: as asked, and with each fact unknown."""
    found = set()
    pools = ((CONTRACT, allowed()), (shared_noise(), shared_noise_allowed()))
    for pool, requests in pools:
        for request in requests.values():
            asked = [(STATE, request)]
            asked += [(STATE, replace(request, **{one.name: None})) for one in fields(request)]
            asked += [(replace(STATE, **{one.name: None}), request) for one in fields(STATE)]
            for state, one in asked:
                for finding in evaluate(pool, state, one).findings:
                    found |= {finding.need, finding.found}
    return found
