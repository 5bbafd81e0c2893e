# SPDX-License-Identifier: Apache-2.0
"""Words of the auditor: every entry type and every rule, in both languages, and nothing raw from a bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template

import pytest

from policies.log.entries import check_entry
from policies.log.schema import SCHEMA, EntryType
from policies.verify.prose import entry_prose, sentence, type_prose
from policies.verify.report import Report
from policies.verify.rules import RULES
from policies.verify.shown import brief, visible
from policies.verify.words import LANGUAGES, checks_of, hand_of, sentences, words
from tests.auditsim import PoolSim

ROOT = Path(__file__).parents[2]
SIM = PoolSim(eventful=True).build()
_SPARED = {"request"}  # a digest that only keeps one event from being another


def history():
    from policies.verify.run import verify

    kept: list = []
    verify(SIM.bundle(), SIM.policy, then=kept.append)
    return kept[0]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_entry_type_has_a_sentence_that_tells_all_its_fields(lang) -> None:
    told = sentences(lang)
    assert set(told) == {kind.value for kind in EntryType}
    for kind in EntryType:
        names = set(Template(told[kind.value]).get_identifiers())
        assert names <= {*SCHEMA[kind].pub, "who", "ref"}, kind
        assert set(SCHEMA[kind].pub) - names <= _SPARED, kind


def test_both_languages_have_the_same_texts_with_the_same_gaps() -> None:
    english, japanese = words("en"), words("ja")
    assert set(english) == set(japanese)
    for key, text in english.items():
        assert set(Template(text).get_identifiers()) == set(Template(japanese[key]).get_identifiers()), key


def test_every_rule_of_the_code_is_told_in_both_languages_and_no_other_is() -> None:
    told = json.loads((ROOT / "policies/verify/words/rules.ja.json").read_text("utf-8"))
    used = {
        found
        for path in (ROOT / "policies/verify").rglob("*.py")
        if path.name != "rules.py"
        for found in re.findall(r'"(AUD-\d{3})"', path.read_text("utf-8"))
    }
    assert set(told) == set(RULES)
    assert used == set(RULES)
    for rule, one in RULES.items():
        assert checks_of(rule, "en") == one.checks
        assert hand_of(rule, "en") == one.by_hand
        assert checks_of(rule, "ja") != one.checks


def test_the_reference_lists_exactly_the_rules_of_the_code() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    assert set(re.findall(r"\| (AUD-\d{3}) \|", page)) == set(RULES)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_whole_history_is_told_without_a_gap(lang) -> None:
    read = history()
    for index, body in enumerate(SIM.bodies):
        lines = entry_prose(index, check_entry(body), lang, read)
        assert all("$" not in line and line.isprintable() for line in lines), lines


def test_parties_stand_by_their_names_and_what_is_closed_is_named() -> None:
    read = history()
    index = SIM.names["submission kita 1"]
    entry = check_entry(SIM.bodies[index])
    assert "kita submitted the update" in sentence(entry, "en", read)
    assert entry.actor in sentence(entry, "en")
    assert "kita が試行 1 に更新" in sentence(entry, "ja", read)
    alone = " ".join(entry_prose(index, entry, "en"))
    assert "Confidential and not opened: at, chain" in alone
    assert "Opened to you: at =" in " ".join(entry_prose(index, entry, "en", read))


def test_words_of_an_enum_are_translated_and_names_are_not() -> None:
    read = history()
    vote = check_entry(SIM.bodies[SIM.names["vote kita"]])
    assert "投票した: 承認" in sentence(vote, "ja", read)
    action = next(check_entry(body) for body in SIM.bodies if b'"type":"console.action"' in body)
    assert "operator anna did" in sentence(action, "en", read)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_type_is_told_with_its_fields_and_who_makes_it(lang) -> None:
    for kind in EntryType:
        lines = type_prose(kind, lang)
        assert all(name in " ".join(lines) for name in SCHEMA[kind].pub)
        assert "at" in lines[-1]


def test_what_cannot_be_seen_is_written_out_in_every_language() -> None:
    hostile = "\x1b[2J\u202e\u200bログ\u0000\n"
    shown = visible(hostile)
    assert shown.isprintable()
    assert "ログ" in shown
    assert "\\x1b" in shown
    assert "\\u202e" in shown


def test_a_digest_is_brief_also_inside_a_longer_text() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert brief(digest) == "sha256:0123456789ab…"
    assert brief(f"run_x/eval/{digest[7:]}") == "run_x/eval/0123456789ab…"
    assert brief("sha256:short") == "sha256:short"


def test_the_verdict_says_ok_in_no_language() -> None:
    for lang in LANGUAGES:
        for report in (Report(size=1), Report(size=1, grade="member"), Report(untrusted="x")):
            assert "OK" not in report.verdict_in(lang).upper().replace("BROKER", "")


def test_a_witness_stands_by_the_name_that_the_auditors_own_policy_has_for_it() -> None:
    from policies.verify.run import verify
    from tests.watchedsim import WatchedSim

    sim, kept = WatchedSim().build(), []
    verify(sim.bundle(), sim.policy, then=kept.append)
    _, entry = next(kept[0].of(EntryType.WITNESS_ADDED))
    name = next(one for one, key in sim.policy.witnesses.items() if key.name == entry.pub["witness"])
    told = sentence(entry, "en", kept[0])
    assert f"{entry.pub['witness']} ({name}) of {name} was added" in told
    assert entry.pub["org"] not in told
