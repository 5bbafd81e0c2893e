# SPDX-License-Identifier: Apache-2.0
"""Templates: each can be filled, loads, lints without errors and lets this version work; bad answers are refused by name."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from broker.cli import app
from broker.cli import contract as cli_contract
from broker.commands import Where
from broker.commands.contract_files import contract_lint
from broker.commands.draft_sources import recipe_facts
from broker.commands.drafting import Draft, contract_new
from broker.contracts.errors import LintError
from broker.errors import UsageError
from policies.contract import Contract, Request, enforcement_map, evaluate, from_tree, load, parse
from policies.contract.errors import AnswerError, ContractInvalidError, UnansweredError
from policies.contract.lint import lint
from policies.contract.registry import EVIDENCE_MADE
from policies.contract.requests import EpsilonAfter, PlanFacts
from policies.contract.source import read_yaml
from policies.contract.templates import (
    TEMPLATES,
    Filled,
    PartyRow,
    RecipeFacts,
    blanks_of,
    broker_org,
    fill,
    plain_answers,
    read_parties,
    template_text,
)
from policies.encoding import digest
from policies.ports import to_ms
from sandbox.recipes import plain_recipe, private_recipe
from tests.contractsim import MODEL, NOTICE, STATE, aggregate, authored, deliver, key, release, train_round
from tests.docs.commandlines import blocks, command_lines
from tests.docs.facts import ROOT
from tests.nodesim import HandClock

CONTRACT_ID = "ctr_aaaaaaaaaaaaaaaa"
ANSWERS: dict[str, Any] = {
    "sign_by": "2026-11-30",
    "effective": "2026-12-01",
    "expires": "2028-12-01",
    "governing": "CH",
    "forum": "DIS arbitration, Zurich",
    "liability_cap_eur": 2_000_000,
    "log_origin": "broker.example/weldpick",
}
NEEDED = tuple(sorted(ANSWERS))


@functools.cache
def facts(seed: int = 0) -> RecipeFacts:
    return recipe_facts("weld", private_recipe("0.9", 10, seed=seed))


def parties(more: int = 2) -> tuple[PartyRow, ...]:
    """The four makers, the broker and the auditor of the usual contract, and some universities."""
    rows = [{k: v for k, v in one.items() if k != "clause"} for one in authored()["parties"]]
    rows += [
        {
            "party": f"uni{n}",
            "org": "org_" + "abcdefgh"[n] * 16,
            "role": "contributor",
            "group": f"uni{n}",
            "legal_name": f"Universität {n}",
            "country": "AT",
            "key": key(f"uni{n}"),
        }
        for n in range(more)
    ]
    return read_parties(rows)


def filled(name: str, answers: Mapping[str, Any] | None = None, **changes: Any) -> Filled:
    template = TEMPLATES[name]
    given: dict[str, Any] = {
        "contract_id": CONTRACT_ID,
        "answers": ANSWERS | dict(answers or {}),
        "parties": parties(),
        "recipes": {slot: facts(n) for n, slot in enumerate(template.slots)},
    }
    return fill(template, **(given | changes))


def drafted(name: str, answers: Mapping[str, Any] | None = None) -> Contract:
    return load(filled(name, answers).text)


# --- the texts ---


def test_the_templates_are_these():
    assert list(TEMPLATES) == ["weld-pick", "anomaly", "open-research"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_filled_template_loads_and_lints_without_errors(name):
    pool = drafted(name)
    assert pool.contract_id == CONTRACT_ID
    assert not [one for one in lint(pool) if one.severity == "error"]
    assert {one.id for one in lint(pool)} == ({"lint.no-teams:k-1"} if name == "open-research" else set())
    four = load(filled("weld-pick", parties=parties(0)).text)
    assert {one.id for one in lint(four)} == {"lint.no-teams:k-1"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_filled_template_is_the_same_contract_by_every_way(name):
    pool = drafted(name)
    assert from_tree(pool.document).digest == pool.digest
    assert parse(pool.canonical).digest == pool.digest
    assert load(pool.canonical.decode()).digest == pool.digest


@pytest.mark.parametrize("name", TEMPLATES)
def test_its_comments_are_kept_and_say_what_to_raise_later(name):
    text = filled(name).text
    assert "$" not in text
    assert text.startswith(f"# {name}: ")
    assert text.count("Later:") >= 3
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) >= 25


def test_the_defaults_are_those_of_the_design():
    weld, anomaly, research = (drafted(name) for name in TEMPLATES)
    figures = [
        (
            one.aggregation.min_parties,
            one.privacy.epsilon_per_release,
            one.privacy.epsilon_total,
            {tier.tier: tier.embargo_days for tier in one.tiers},
        )
        for one in (weld, anomaly, research)
    ]
    assert figures == [
        (3, "2", "8", {"consortium": None, "open": 180, "participant": None}),
        (3, "1", "4", {"consortium": None, "open": 90}),
        (5, "1", "3", {"consortium": None, "open": 30}),
    ]
    assert research.incentives is not None
    assert research.incentives.method == "none"
    assert "30 days before" in research.purposes[0].text


@pytest.mark.parametrize("name", TEMPLATES)
def test_few_terms_are_law_only(name):
    pool = drafted(name)
    rows = enforcement_map(pool)
    assert 3 * sum(one.label == "law only" for one in rows) < len(rows)


def asked(pool: Contract) -> Iterator[Request]:
    """A round, an average, a release and a delivery of each recipe, with facts that this version states."""
    plan = PlanFacts(
        mode="dp",
        unit="episode",
        adjacency="zero-out",
        delta="0.00001",
        noise="local-full",
        honest_min=None,
        filter="rdp-fixed-order",
    )
    names = tuple(one.party for one in pool.contributors)
    sums = {"secure_aggregation": pool.aggregation.secure_aggregation}
    for recipe in pool.recipes:
        common: dict[str, Any] = {"recipe_digest": recipe.recipe_digest, "privacy": plan}
        work = {"purpose": recipe.purpose, "round": 1}
        for name in names:
            yield replace(
                train_round(name),
                **common,
                **work,
                dataset=recipe.datasets_of(name)[0],
                fields=facts().fields,
                cohort=names,
                epsilon_after_release="0.9",
                epsilon_after_total="0.9",
                seed_set="none",
                seed_consents=(),
                **sums,
                group_mac=pool.aggregation.group_mac,
            )
        yield replace(
            aggregate(),
            **common,
            **work,
            **sums,
            survivors=names,
            weights=pool.weights(names),
            validation=None,
            rejected_rounds=None,
        )
        for tier in (one.tier for one in pool.tiers if one.recipe == recipe.id):
            yield replace(
                release(),
                **common,
                model=MODEL,
                tier=tier,
                cohort=names,
                weights=pool.weights(names),
                approvals=names,
                epsilon_after={name: EpsilonAfter(release="0.9", total="0.9") for name in names},
                evidence=tuple(sorted(EVIDENCE_MADE)),
                mia_auc=None,
                property_skill=None,
                canaries_fired=None,
                witnesses=5,
            )
            yield replace(
                deliver(),
                recipe_digest=recipe.recipe_digest,
                tier=tier,
                released_at="2027-11-30T00:00:00Z",
                attestation=NOTICE,
                contribution_share=None,
            )


@pytest.mark.parametrize("name", TEMPLATES)
def test_everything_that_this_version_does_is_allowed_under_it(name):
    pool = drafted(name)
    decisions = [evaluate(pool, STATE, one) for one in asked(pool)]
    assert len(decisions) >= 11
    assert [one.clauses for one in decisions] == [()] * len(decisions)


# --- blanks ---


def test_fields_digests_and_sampling_come_from_the_recipes():
    pool = drafted("weld-pick")
    assert [one.recipe_digest for one in pool.recipes] == [facts(0).digest, facts(1).digest]
    assert pool.fields.allow == facts().fields
    plan = (pool.privacy.unit, pool.privacy.adjacency, pool.privacy.delta, pool.privacy.noise)
    assert plan == ("episode", "zero-out", "0.00001", "local-full")
    assert pool.recipes[0].max_rounds == 4 * facts().rounds


def test_a_recipe_with_noise_shares_brings_the_honest_makers_that_they_are_sized_for():
    shared = replace(facts(), noise="shares", honest_min=3)
    pool = load(filled("anomaly", recipes={"anomaly": shared}).text)
    assert (pool.privacy.noise, pool.privacy.honest_min) == ("shares", 3)
    other = {"weld": shared, "pick": replace(shared, honest_min=4)}
    with pytest.raises(AnswerError, match="recipe pick: honest_min 3"):
        filled("weld-pick", recipes=other)


def test_no_update_is_read_under_a_template_and_each_node_checks_the_sum():
    for name, colluders in zip(TEMPLATES, (0, 0, 1), strict=True):
        pooling = drafted(name).aggregation
        assert (pooling.secure_aggregation, pooling.group_mac) == ("required", "on")
        assert pooling.max_colluders == colluders


def test_secrets_and_caps_of_a_party_get_clauses_and_a_veto():
    pool = drafted("anomaly", {"secret.nord": "seam_program cell_layout", "cap.kita": "2.50"})
    (secret,) = pool.fields.trade_secret
    assert (secret.party, secret.fields) == ("nord", ("cell_layout", "seam_program"))
    assert secret.basis == "declared a trade secret by nord"
    caps = pool.caps("kita")
    assert caps is not None
    assert (caps.epsilon_total, caps.total_clause) == ("2.5", "dp-2")
    assert pool.release.approvals.veto == ("dp-2", "secret-1")


def test_answers_may_be_nested_text_or_values():
    tree = read_yaml(
        "dataset: {anomaly: {nord: nord/night-shift}}\nembargoed: [KP, 'NO']\nmin_parties: '4'\n"
    )
    pool = drafted("anomaly", plain_answers(tree))
    assert pool.recipes[0].datasets_of("nord") == ("nord/night-shift",)
    assert pool.export_control is not None
    assert pool.export_control.embargoed == ("KP", "NO")
    assert pool.aggregation.min_parties == 4


def test_words_of_people_are_quoted():
    awkward = 'Pool "K": {a: b} # [no comment] \\ 北'
    assert drafted("anomaly", {"title": awkward, "forum": "null"}).title == awkward


def test_what_nobody_answered_is_told():
    assumed = filled("anomaly").assumed
    assert assumed["epsilon_total"] == "4"
    assert assumed["dataset.anomaly.nord"] == "nord/anomaly"
    assert not set(assumed) & (set(ANSWERS) | {"secret.nord", "basis.nord", "cap.nord"})
    assert "basis.nord" in filled("anomaly", {"secret.nord": "seam_program"}).assumed


def test_missing_answers_are_all_named():
    with pytest.raises(UnansweredError) as refused:
        fill(
            TEMPLATES["anomaly"],
            contract_id=CONTRACT_ID,
            answers={},
            parties=parties(),
            recipes={"anomaly": facts()},
        )
    assert refused.value.exit_code == 2
    assert all(name in refused.value.need for name in NEEDED)


BAD = [
    ("sign_by", "tomorrow"),
    ("expires", "2026-02-30"),
    ("title", ""),
    ("title", "a\u202eb"),
    ("language", "english"),
    ("governing", "Switzerland"),
    ("liability_cap_eur", "-1"),
    ("liability_cap_eur", "1e6"),
    ("liability_cap_eur", True),
    ("min_parties", 1),
    ("min_parties", "three"),
    ("epsilon_total", "0"),
    ("epsilon_total", "inf"),
    ("embargoed", "Russia"),
    ("log_origin", "https://broker example"),
    ("max_rounds.anomaly", 0),
    ("dataset.anomaly.nord", "Nord Welding"),
    ("secret.nord", "Seam-Program"),
    ("cap.nord", "much"),
    ("forum", ["a", "list"]),
]


@pytest.mark.parametrize(("name", "answer"), BAD)
def test_a_bad_answer_is_refused_with_the_name_of_its_blank(name, answer):
    with pytest.raises(AnswerError) as refused:
        filled("anomaly", {name: answer})
    assert refused.value.need.startswith(f"{name}: ")


def test_an_answer_without_a_blank_is_refused_by_name():
    with pytest.raises(AnswerError) as refused:
        filled("anomaly", {"secret.mallory": "x", "epsilon": "3"})
    assert refused.value.found == "epsilon secret.mallory"


def test_answers_that_contradict_each_other_are_refused_with_the_clause():
    with pytest.raises(ContractInvalidError) as refused:
        drafted("anomaly", {"expires": "2026-11-30"})
    assert refused.value.clause == "term-1"


def test_a_recipe_that_costs_more_than_a_release_may_is_refused():
    with pytest.raises(AnswerError, match="epsilon_per_release: at least"):
        filled("anomaly", {"epsilon_per_release": "0.5"})


def test_a_default_that_is_less_than_the_plan_spends_is_none_and_the_figure_is_named():
    dear = {"anomaly": replace(facts(), epsilon="7.999802")}
    with pytest.raises(UnansweredError) as refused:
        filled("anomaly", recipes=dear)
    for name in ("epsilon_per_release", "epsilon_total"):
        words = f"{name} (at least 7.999802, which the plan of recipe anomaly spends)"
        assert words in refused.value.need
        with pytest.raises(AnswerError, match=f"{name}: at least 7.999802"):
            filled(
                "anomaly", {"epsilon_per_release": "8", "epsilon_total": "8"} | {name: "7.9"}, recipes=dear
            )
    made = filled("anomaly", {"epsilon_per_release": "8", "epsilon_total": "10"}, recipes=dear)
    pool = load(made.text)
    assert (pool.privacy.epsilon_per_release, pool.privacy.epsilon_total) == ("8", "10")


@pytest.mark.parametrize("name", TEMPLATES)
def test_comments_repeat_no_figure_that_an_answer_decides(name):
    answers = {"epsilon_per_release": "8", "epsilon_total": "10", "min_parties": 4, "approvals": 4}
    comments = [line.split("#", 1)[1] for line in filled(name, answers).text.splitlines() if "#" in line]
    assert not [
        line
        for line in comments
        if re.search(r"epsilon [0-9]|\b(three|five|30|90|180)\b", line, re.IGNORECASE)
    ]
    assert not [line for line in comments if "prose" in line and "Later" in line]


def test_the_text_for_people_is_bound_by_its_hash():
    for data, kind in ((b"%PDF-1.7 terms", "application/pdf"), ("条項".encode(), "text/plain")):
        bound = load(filled("anomaly", prose=data).text).prose
        assert bound is not None
        assert (bound.media_type, bound.prevails) == (kind, True)
        assert bound.sha256 == digest(data).removeprefix("sha256:")
    assert drafted("anomaly").prose is None


def test_a_broker_without_an_organisation_gets_that_of_its_key():
    rows = [{k: v for k, v in one.items() if k != "clause"} for one in authored()["parties"]]
    left_out = [{k: v for k, v in one.items() if (one["role"], k) != ("broker", "org")} for one in rows]
    first, second = (
        next(one for one in read_parties(tree) if one.role == "broker") for tree in (left_out, left_out)
    )
    assert first == second
    assert first.org == broker_org(first.key)
    kept = next(one for one in read_parties(rows) if one.role == "broker")
    assert kept.org == next(one["org"] for one in rows if one["role"] == "broker")
    with pytest.raises(AnswerError, match="exactly the keys"):
        read_parties([{k: v for k, v in one.items() if k != "org"} for one in rows])


def test_two_recipes_need_the_same_kind_of_plan():
    other = replace(facts(1), delta="0.000001")
    with pytest.raises(AnswerError, match="recipe pick: delta"):
        filled("weld-pick", recipes={"weld": facts(0), "pick": other})


def test_a_recipe_is_needed_for_each_place():
    with pytest.raises(AnswerError, match="weld pick"):
        filled("weld-pick", recipes={"weld": facts(0)})


def test_a_recipe_without_a_plan_is_refused():
    with pytest.raises(AnswerError, match="recipe anomaly: a privacy plan"):
        recipe_facts("anomaly", plain_recipe())


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"a": 1}, "a list of parties"),
        ([], "a list of parties"),
        (["nord"], "parties[0]"),
        ([{"party": "nord"}], "parties[0]: exactly the keys"),
        (
            [{**dict.fromkeys(("org", "group", "legal_name", "country", "key"), "x"), "party": "Nord"}],
            "parties[0].party",
        ),
        (
            [
                {
                    **{k: v for k, v in authored()["parties"][0].items() if k != "clause"},
                    "key": "ed25519:" + "0" * 64,
                }
            ],
            "parties[0].key: a point of large order",
        ),
    ],
)
def test_a_bad_party_is_refused_by_place(tree, named):
    with pytest.raises(AnswerError) as refused:
        read_parties(tree)
    assert refused.value.need.startswith(named)


def test_every_blank_of_a_text_is_filled_by_somebody():
    for name, template in TEMPLATES.items():
        text = template_text(template)
        recipes = {slot: facts(n) for n, slot in enumerate(template.slots)}
        for blank in blanks_of(template.defaults, parties(), recipes):
            assert "." in blank.name or f"${blank.name}" in text or blank.name == "licence", (
                name,
                blank.name,
            )


# --- the commands ---


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator's folder: recipes, a file of parties, a file of answers."""
    folder = tmp_path_factory.mktemp("desk")
    for n, name in enumerate(("weld", "pick")):
        (folder / f"{name}.json").write_bytes(private_recipe("0.9", 10, seed=n))
    rows = [{k: v for k, v in one.items() if k != "clause"} for one in authored()["parties"]]
    (folder / "parties.yaml").write_text(
        "\n".join(f"- {json.dumps(one, ensure_ascii=False)}" for one in rows), "utf-8"
    )
    (folder / "answers.yaml").write_text(
        "\n".join(f"{k}: {json.dumps(v)}" for k, v in ANSWERS.items()), "utf-8"
    )
    return folder


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["contract", *map(str, words)])


def new(desk: Path, *more: str | Path) -> Any:
    return run(
        "new",
        "--template",
        "weld-pick",
        "--parties",
        desk / "parties.yaml",
        "--recipe",
        f"weld={desk / 'weld.json'}",
        "--recipe",
        desk / "pick.json",
        *more,
    )


def test_new_prints_the_yaml_alone_and_tells_the_rest_beside_it(desk):
    made = new(desk, "--answers", desk / "answers.yaml", "--set", "title=Our pool")
    assert made.exit_code == 0, made.stderr
    pool = load(made.stdout)
    assert pool.title == "Our pool"
    assert pool.contract_id != drafted("weld-pick").contract_id
    assert f"digest       {pool.digest}" in made.stderr
    assert "assumed      epsilon_total = 8" in made.stderr
    assert "warning k-1 lint.no-teams: needs" in made.stderr


def test_new_writes_a_new_file_and_overwrites_none(desk, tmp_path):
    out = tmp_path / "pool.yaml"
    made = new(desk, "--answers", desk / "answers.yaml", "--out", out)
    assert (made.exit_code, made.stdout) == (0, "")
    kept = out.read_text("utf-8")
    again = new(desk, "--answers", desk / "answers.yaml", "--out", out)
    assert again.exit_code == 2
    assert out.read_text("utf-8") == kept
    assert run("lint", out).exit_code == 0


def test_without_a_terminal_every_missing_answer_is_named_and_nothing_is_printed(desk):
    made = new(desk)
    assert (made.exit_code, made.stdout) == (2, "")
    assert made.stderr.startswith("contract.unanswered\n")
    assert all(name in made.stderr for name in NEEDED)


def test_a_bad_answer_is_named_before_missing_ones(desk):
    made = new(desk, "--set", "sign_by=tomorrow")
    assert made.exit_code == 2
    assert "sign_by: YYYY-MM-DDTHH:MM:SSZ" in made.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "title"),
        ("--set", "=x"),
        ("--recipe", "third.json"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(desk, words):
    assert new(desk, "--answers", desk / "answers.yaml", *words).exit_code == 2


def test_a_slot_that_the_template_has_not_is_refused_with_those_that_it_has(desk):
    made = run("new", "--template", "weld-pick", "--recipe", f"foo={desk / 'weld.json'}", "--json")
    error = json.loads(made.stdout)["error"]
    assert (made.exit_code, error["code"], error["found"]) == (2, "broker.usage", "foo")
    assert error["need"] == "a slot of weld-pick: weld pick"


def test_recipes_are_looked_at_before_answers_and_members(desk):
    for words in ((), ("--recipe", f"weld={desk / 'weld.json'}")):
        made = run("new", "--template", "weld-pick", "--set", "nonsense", *words, "--json")
        error = json.loads(made.stdout)["error"]
        assert error["code"] == "contract.answer-invalid"
        assert error["need"] == "one recipe for each of weld pick"


@pytest.mark.parametrize("name", TEMPLATES)
def test_list_tells_every_recipe_and_blank_of_a_template(name):
    template = TEMPLATES[name]
    told = run("new", "--template", name, "--list")
    assert (told.exit_code, told.stdout) == (0, "")
    assert "recipes: " + " ".join(f"--recipe {slot}=FILE" for slot in template.slots) in told.stderr
    data = json.loads(run("new", "--template", name, "--list", "--json").stdout)["data"]
    recipes = {slot: facts(n) for n, slot in enumerate(template.slots)}
    blanks = {re.sub(r"\.(kita)$", ".PARTY", one.name) for one in blanks_of({}, parties(0)[:1], recipes)}
    assert {one["name"] for one in data["blanks"]} == blanks | {"broker_name", "broker_country"}
    unanswered = {one["name"] for one in data["blanks"] if one["default"] is None}
    assert unanswered == {*NEEDED, "broker_name", "broker_country"}
    assert all(slot in cli_contract._TEMPLATES for slot in template.slots)


def test_members_are_not_chosen_of_a_file_of_parties(desk):
    made = new(desk, "--answers", desk / "answers.yaml", "--member", "kita", "--json")
    assert json.loads(made.stdout)["error"]["code"] == "broker.usage"


def test_an_answer_without_a_blank_is_named_before_what_is_missing(desk):
    made = new(desk, "--set", "broker_nam=x", "--json")
    error = json.loads(made.stdout)["error"]
    assert (error["code"], error["found"]) == ("contract.answer-invalid", "broker_nam")


def test_new_says_that_a_date_alone_is_its_first_second_and_that_nobody_can_sign_in_the_past(desk):
    made = new(desk, "--answers", desk / "answers.yaml", "--set", "sign_by=2020-12-10")
    assert made.exit_code == 0, made.stderr
    assert "taken        sign_by = 2020-12-10T00:00:00Z: a date alone is its first second" in made.stderr
    assert "too late sign_by: needs a time after now" in made.stderr
    made = new(desk, "--answers", desk / "answers.yaml", "--set", "sign_by=2026-11-30T12:00:00Z")
    assert "sign_by =" not in made.stderr


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_lint_tells_the_time_to_sign_by_the_clock_of_the_command(tmp_path, lang):
    file = tmp_path / "pool.yaml"
    file.write_text(filled("weld-pick").text, "utf-8")
    for now, late in (("2026-11-29T23:59:59Z", False), ("2026-11-30T00:00:00Z", True)):
        told = contract_lint(file, lang=lang, clock=HandClock(to_ms(now)))
        assert told.data["too_late"] is late
        lines = [line for line in told.text if "sign_by" in line]
        assert len(lines) == late
        assert all(now in line and "2026-11-30T00:00:00Z" in line for line in lines)
        assert told.exit_code == 0


def test_new_binds_a_text_for_people_and_says_to_send_it_along(desk):
    (desk / "terms.pdf").write_bytes(b"%PDF-1.7 terms")
    made = new(desk, "--answers", desk / "answers.yaml", "--prose", desk / "terms.pdf")
    bound = load(made.stdout).prose
    assert bound is not None
    assert bound.sha256 == digest(b"%PDF-1.7 terms").removeprefix("sha256:")
    assert f"--recipe FILE --recipe FILE --prose {desk / 'terms.pdf'}" in made.stderr


def test_the_first_commands_of_the_how_to_work_word_for_word(tmp_path, monkeypatch):
    """Section 1 of docs/how-to/contract.md, in a copy of the folder that it works in."""
    shutil.copytree(ROOT / "docs/how-to/example", tmp_path / "example")
    monkeypatch.chdir(tmp_path / "example")
    text = (ROOT / "docs/how-to/contract.md").read_text("utf-8").split("## 2.")[0]
    block = next(one.text for one in blocks(text) if one.language == "sh")
    lines = [shlex.split(one) for one in command_lines(block)]
    assert [one[:3] for one in lines] == [
        ["iriai-broker", "contract", name] for name in ("new", "new", "lint", "show")
    ]
    for words in lines:
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.stderr)


def test_an_unknown_template_is_answered_with_the_known_ones():
    made = run("new", "--template", "weld", "--json")
    assert made.exit_code == 2
    error = json.loads(made.stdout)["error"]
    assert error["code"] == "broker.usage"
    assert all(name in error["need"] for name in TEMPLATES)


def test_new_as_json_is_one_envelope_with_the_text(desk):
    made = new(desk, "--answers", desk / "answers.yaml", "--json")
    envelope = json.loads(made.stdout)
    assert envelope["status"] == "ok"
    data = envelope["data"]
    assert load(data["text"]).digest == data["digest"]
    assert [one["id"] for one in data["findings"]] == ["lint.no-teams:k-1"]


def test_a_term_that_no_pool_should_have_is_not_handed_out(desk):
    made = new(desk, "--answers", desk / "answers.yaml", "--set", "epsilon_total=11", "--json")
    assert made.exit_code == LintError.exit_code
    error = json.loads(made.stdout)["error"]
    assert (error["code"], error["clause"]) == ("contract.lint-error", "dp-1")


def test_at_a_terminal_only_what_is_missing_is_asked(desk):
    asked_for: list[str] = []

    def person(blank: Any) -> str:
        asked_for.append(blank.name)
        return str(ANSWERS[blank.name])

    draft = Draft(
        template="weld-pick",
        answers=None,
        sets=("governing=CH",),
        parties=desk / "parties.yaml",
        members=(),
        recipes=(str(desk / "weld.json"), str(desk / "pick.json")),
        out=None,
    )
    where = Where(directory=None, url=None, tls_sha256=None, key=None)
    made = contract_new(where, draft, person)
    assert sorted(asked_for) == sorted(set(NEEDED) - {"governing"})
    assert load(made.data["text"]).law.governing == "CH"  # type: ignore[union-attr]


def test_a_person_is_asked_again_until_the_answer_fits():
    blank = next(one for one in blanks_of({}, parties(), {"anomaly": facts()}) if one.name == "governing")
    prompt = typer.Typer()

    @prompt.command()
    def ask() -> None:
        typer.echo(cli_contract._ask(blank))

    done = CliRunner().invoke(prompt, input="Switzerland\nCH\n")
    assert done.stdout == "CH\n"
    assert "governing: a name of the form" in done.stderr


# --- parties from the broker ---


class Office(Where):
    """A broker that answers two questions."""

    def __init__(self, members: list[dict[str, Any]]) -> None:
        super().__init__(directory=None, url=None, tls_sha256=None, key=None)
        object.__setattr__(
            self,
            "answers",
            {
                "/operator/organisations": {"organisations": members},
                "/operator/status": {"broker_key": key("broker"), "origin": "broker.example/weldpick"},
            },
        )

    @contextmanager
    def client(self) -> Iterator[Any]:  # type: ignore[override]
        yield self

    def get(self, path: str) -> Any:
        return self.answers[path]  # type: ignore[attr-defined]


def member(name: str, **changes: Any) -> dict[str, Any]:
    row = {
        "org": "org_" + (name * 16)[:16],
        "state": "active",
        "legal_name": f"{name.title()} AG",
        "country": "AT",
        "group": name,
        "node_key": key(name),
    }
    return row | changes


MEMBERS = [
    member("kita"),
    member("nord", legal_name="Nordschweiß GmbH"),
    member("hanbit", group="nord", legal_name="Hanbit Automation"),
    member("maru", group="public", legal_name="丸"),
    member("iber"),
    member("gone", state="revoked"),
]


def from_office(desk: Path, *, members: tuple[str, ...] = (), sets: tuple[str, ...] = ()) -> Any:
    draft = Draft(
        template="anomaly",
        answers=desk / "answers.yaml",
        sets=("broker_name=Neutral Broker eG", "broker_country=DE", *sets),
        parties=None,
        members=members,
        recipes=(str(desk / "weld.json"),),
        out=None,
    )
    return contract_new(Office(MEMBERS), draft, None)


def test_active_members_are_the_parties_as_enrolled(desk):
    pool = load(from_office(desk).data["text"])
    assert [one.party for one in pool.contributors] == ["hanbit-automation", "iber", "kita", "m4", "nord"]
    second = pool.party("hanbit-automation")
    assert second is not None
    assert (second.group, second.legal_name, second.key) == ("nord", "Hanbit Automation", key("hanbit"))


def test_the_broker_names_itself_the_same_in_every_contract(desk):
    first, second = (load(from_office(desk).data["text"]) for _ in range(2))
    assert first.broker.org == second.broker.org
    assert (first.broker.key, first.broker.legal_name) == (key("broker"), "Neutral Broker eG")
    assert first.contract_id != second.contract_id
    assert first.audit is not None
    assert first.audit.log_origin == "broker.example/weldpick"


def test_members_can_be_chosen_by_group_or_organisation(desk):
    chosen = ("kita", "org_maru" + "maru" * 3, "iber")
    pool = load(from_office(desk, members=chosen).data["text"])
    assert [one.party for one in pool.contributors] == ["iber", "kita", "m2"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hambit", "hambit: none of them"),
        ("gone", "gone: none of them"),
        ("", ": none of them"),
        ("KITA", "KITA: none of them"),
        ("nord", "nord: 2 of them, org_nordnordnordnord org_hanbithanbithanb"),
    ],
)
def test_a_member_that_is_not_exactly_one_is_refused_with_the_list(desk, name, found):
    with pytest.raises(UsageError) as refused:
        from_office(desk, members=("kita", name, "iber"))
    assert refused.value.found == found
    assert "org_ibe" in refused.value.need
    assert "Hanbit Automation" in refused.value.need
    assert "Gone AG" not in refused.value.need


def test_the_brokers_name_is_a_blank_too(desk):
    draft = Draft(
        template="anomaly",
        answers=None,
        sets=(),
        parties=None,
        members=(),
        recipes=(str(desk / "weld.json"),),
        out=None,
    )
    with pytest.raises(UnansweredError) as refused:
        contract_new(Office(MEMBERS), draft, None)
    assert "broker_name, broker_country" in refused.value.need
    assert "log_origin" not in refused.value.need


def test_without_a_key_nobody_is_asked_for_members(desk):
    made = run("new", "--template", "anomaly", "--recipe", desk / "weld.json", "--json")
    assert json.loads(made.stdout)["error"]["code"] == "broker.operator-key"


# --- lint, show, schema ---


@pytest.fixture(scope="module")
def draft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("draft") / "pool.yaml"
    file.write_text(filled("weld-pick", parties=parties(0)).text, "utf-8")  # too few for teams: one warning
    return file


def test_lint_lists_warnings_and_what_is_law_only(draft_file):
    done = run("lint", draft_file)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "0 errors, 1 warning\n" in done.stderr
    assert "law only, 6 of " in done.stderr
    assert "deriv-1" in done.stderr.splitlines()[-1]


def test_the_summary_of_lint_is_in_the_language_that_was_asked_for(draft_file):
    lines = run("lint", draft_file, "--lang", "ja").stderr.splitlines()
    assert lines[-2].endswith("：エラー 0 件、警告 1 件")  # noqa: RUF001
    assert lines[-1].startswith("法的拘束のみの条項（全 33 件中 6 件）：deriv-1 ")  # noqa: RUF001


def test_lint_ends_with_3_and_names_clause_need_found_and_remedy(draft_file, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(draft_file.read_text("utf-8").replace("min_parties: 3", "min_parties: 2"), "utf-8")
    done = run("lint", bad)
    assert done.exit_code == 3
    assert done.stderr.splitlines()[0] == (
        "error k-1 lint.k-too-small: needs at least 3 independent groups, found 2; raise min_parties to 3 or more"
    )
    envelope = json.loads(run("lint", bad, "--json").stdout)
    assert envelope["data"]["errors"] == 1
    assert envelope["data"]["findings"][0]["id"] == "lint.k-too-small:k-1"
    assert run("lint", bad, "--lang", "ja").stderr.startswith(
        "error k-1 lint.k-too-small: 必要 独立したグループが 3 以上"
    )


def test_lint_refuses_what_does_not_load_with_its_clause(draft_file, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(draft_file.read_text("utf-8").replace("tier: open", "tier: wide"), "utf-8")
    done = run("lint", bad, "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"]["clause"] == "tier-open"


@pytest.mark.parametrize(("lang", "words"), [("en", "The contract holds from"), ("ja", "本契約の有効期間は")])
def test_show_reads_a_file_aloud_without_any_broker(draft_file, lang, words):
    done = run("show", draft_file, "--lang", lang)
    assert (done.exit_code, done.stdout) == (0, "")
    assert words in done.stderr
    assert done.stderr.splitlines()[0] == load(draft_file.read_text("utf-8")).digest
    data = json.loads(run("show", draft_file, "--lang", lang, "--json").stdout)["data"]
    assert {one["label"] for one in data["enforcement"]} == {"enforced", "enforced in part", "law only"}
    assert any(words in text for _, text in data["words"])


def test_show_knows_two_languages(draft_file):
    assert run("show", draft_file, "--lang", "de").exit_code == UsageError.exit_code


def test_schema_is_the_languages_own():
    done = run("schema")
    assert done.exit_code == 0
    schema = json.loads(done.stdout)
    assert schema["additionalProperties"] is False
    assert json.loads(run("schema", "--json").stdout)["data"]["schema"] == schema
