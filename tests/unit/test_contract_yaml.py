# SPDX-License-Identifier: Apache-2.0
"""YAML traps: what two readers would read differently is refused with its line, or kept as text."""

from __future__ import annotations

import pytest
import yaml

from policies.contract import load
from policies.contract.errors import ContractInvalidError, YamlRefusedError
from policies.contract.source import read_yaml
from policies.limits import CONTRACT_YAML_BYTES
from tests.contractsim import authored, contract

# PyYAML writes 1e-5 without quotes, because YAML 1.1 reads it as text and YAML 1.2 as a number: the reason for this loader.
TEXT = yaml.safe_dump(authored(), sort_keys=False, allow_unicode=True, width=100).replace(
    ": 1e-5", ": '1e-5'"
)


def test_a_yaml_text_has_the_digest_of_its_tree():
    assert load(TEXT).digest == contract().digest
    flow = yaml.safe_dump(authored(), sort_keys=True, default_flow_style=True, allow_unicode=True)
    assert load("# a comment\n" + flow.replace(": 1e-5", ": '1e-5'")).digest == contract().digest


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("off", "off"),
        ("On", "On"),
        ("yes", "yes"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("190:20:30", "190:20:30"),
        ("2026-11-30", "2026-11-30"),
        ("2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("0", 0),
        ("17", 17),
        ("true", True),
        ("false", False),
        ("null", None),
        ('"null"', "null"),
        ("'true'", "true"),
        ('"8.0"', "8.0"),
        ('"1e-5"', "1e-5"),
        ("[]", []),
        ("{}", {}),
        ("[1, two, '3']", [1, "two", "3"]),
        (">-\n  two\n  lines", "two lines"),
        ("北", "北"),
    ],
)
def test_scalars_that_have_one_reading(scalar, value):
    read = read_yaml(f"key: {scalar}\n")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "1e3",
        "8.0",
        "1.",
        ".5",
        "-5",
        "+5",
        "007",
        "0x1F",
        "0o17",
        "0b11",
        "1_000",
        "1_0.5",
        "12345678901234567",
        ".inf",
        "-.INF",
        ".nan",
        "True",
        "TRUE",
        "False",
        "~",
        "",
        "Null",
        "&anchor text",
        "*alias",
        "!!str text",
        "!secret text",
        "!!python/object/apply:os.system [ls]",
        "!!binary aGk=",
        '"a\\u202Eb"',
        "a\u200bb",
        '"a\\u0007b"',
        '"a\\u00A0b"',
        '"unfinished',
        "[1, 2",
        "{a: 1, a: 2}",
        "{<<: {a: 1}}",
        "{1: one}",
        "{[a]: one}",
        "{true: one}",
        "@at",
        "`tick",
        "%percent",
        "a: b: c",
        "\ttab",
    ],
)
def test_scalars_that_have_two_readings_are_refused_with_their_line(value):
    with pytest.raises(YamlRefusedError) as refused:
        read_yaml(f"first: 1\nsecond: 2\nthird: {value}\n")
    assert "line 3" in refused.value.found or "line 4" in refused.value.found
    assert refused.value.code == "contract.yaml-refused"
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "a: 1\na: 2\n",
        "a: 1\n---\nb: 2\n",
        "a: 1\n...\n---\n",
        "%YAML 1.2\n---\na: 1\n",
        "%TAG ! tag:example.org,2026:\n---\na: 1\n",
        "a: &x {b: *x}\n",
        "a: [b\n",
        "a: 1\n b: 2\n",
        "a: \x01\n",
        "a: \ufeff\n",
        "a:\n" + "".join("  " * n + "- \n" for n in range(1, 14)) + "x",
        "a: " + "[" * 14 + "]" * 14,
        "a: " + "[" * 5_000,
        "a: " + "x" * CONTRACT_YAML_BYTES,
    ],
)
def test_documents_that_are_refused(text):
    with pytest.raises(YamlRefusedError):
        read_yaml(text)


def test_a_billion_laughs_stops_at_the_first_anchor():
    with pytest.raises(YamlRefusedError, match="line 1"):
        read_yaml("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")


def test_an_unquoted_decimal_names_line_and_remedy():
    with pytest.raises(YamlRefusedError) as refused:
        load(TEXT.replace("max_share: '0.60'", "max_share: 0.60"))
    line = TEXT[: TEXT.index("max_share")].count("\n") + 1
    assert refused.value.found == f"line {line}: 0.60"
    assert "quote" in refused.value.remedy


@pytest.mark.parametrize(
    ("before", "after", "clause"),
    [
        ("min_parties: 3", "min_parties: true", "k-1"),  # no truth value is a number
        ("min_parties: 3", "min_parties: '3'", "k-1"),
        ("prevails: true", "prevails: yes", "prose-1"),  # and no word is a truth value
        ("prevails: true", "prevails: 1", "prose-1"),
        ("effective: '2026-12-01T00:00:00Z'", "effective: 2026-12-01", "term-1"),  # a date stays text
        ("effective: '2026-12-01T00:00:00Z'", "effective: 12:30", "term-1"),
        ("country: 'NO'", "country: no", "party-nord"),
    ],
)
def test_what_yaml_leaves_as_it_is_the_language_refuses_by_clause(before, after, clause):
    text = TEXT.replace(before, after, 1)
    assert text != TEXT
    with pytest.raises(ContractInvalidError) as refused:
        load(text)
    assert refused.value.clause == clause


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("min_parties: 3", "min_parties: 3.0"),
        ("delay_hours: 24", "delay_hours: 2e1"),
        ("prevails: true", "prevails: True"),
        ("title: Weld", "title: &a Weld"),
        ("title: Weld", "title: !!str Weld"),
        ("title: Weld & Pick", 'title: "Weld \u202e Pick"'),
        ("language: en", "language: en\nlanguage: en"),
    ],
)
def test_traps_in_a_whole_contract_are_refused_with_their_line(before, after):
    text = TEXT.replace(before, after, 1)
    assert text != TEXT
    with pytest.raises(YamlRefusedError) as refused:
        load(text)
    assert refused.value.found.startswith("line ")


def test_country_no_is_norway():
    unquoted = TEXT.replace("country: 'NO'", "country: NO")
    assert unquoted != TEXT
    assert load(unquoted).party("nord").country == "NO"
