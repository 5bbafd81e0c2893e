# SPDX-License-Identifier: Apache-2.0
"""The auditor's screens say what the log, the auditor's program and the grants say, and nothing more."""

from __future__ import annotations

import json
import sys

import pytest

from broker.witnessing.service import MAX_AGE_S
from policies.encoding import digest
from policies.log.entries import EntryType
from policies.log.merkle import leaf_hash
from policies.log.policy import parse_policy
from policies.verify import run
from policies.verify.sampling import draw
from tests.auditorsim import enrolled, granted
from tests.brokersim import final_contract, open_house, pool
from tests.consolesim import PersonSim

SCREENS = {
    "/audit": "verdict",
    "/audit/findings": "findings",
    "/audit/decisions": "replayed",
    "/audit/privacy": "privacy",
    "/audit/lineage": "lineage",
    "/audit/log": "entries",
    "/audit/log?view=timeline": "entries",
    "/audit/log?view=raw": "entries",
    "/audit/log/3": "entry",
    "/audit/operators": "operators-audit",
    "/audit/operators?show=reads": "operators-audit",
    "/audit/sample": "sample",
    "/audit/bundle": "bundle",
}


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path / "broker") as opened:
        yield opened


@pytest.fixture
async def ernst(house):
    return await PersonSim.enter(house, "ernst", role="auditor")


@pytest.mark.parametrize("lang", ["en", "ja"])
async def test_every_screen_of_a_young_log_opens_in_both_languages(house, ernst, lang):
    await house.member("kita")
    for path, name in SCREENS.items():
        page = await ernst.page(path, lang=lang)
        assert (page.status, page.screen) == (200, name), page.text


async def test_the_verdict_shows_the_head_and_whether_a_noted_head_is_a_prefix(house, ernst):
    head = house.services.writer.head()
    await house.member("kita")
    page = await ernst.page("/audit")
    now = house.services.writer.head()
    assert page.fact("size").replace(",", "") == str(now.size)
    assert page.fact("root") == now.root.hex()
    kept = f"/audit?size={head.size}&root={head.root.hex()}"
    assert (await ernst.page(kept)).fact("consistent") == "yes"
    other = "00" * 32
    assert (await ernst.page(f"/audit?size={head.size}&root={other}")).fact("consistent") == "no"
    assert (await ernst.page(f"/audit?size={now.size + 1}&root={other}")).fact("consistent") == "no"
    assert (await ernst.page("/audit?size=x&root=y")).code == "console.form"


async def test_before_a_check_the_verdict_says_that_there_is_none_and_nothing_looks_like_one(house, ernst):
    page = await ernst.page("/audit")
    assert page.panel("head").first("p").text.startswith("There is no verdict yet")
    assert page.fact("state") == "yes, it grows"
    assert not page.panel("head").all("span", **{"class": "state good"})
    assert "Start one below" in page.panel("rehearsal").text
    assert "/audit" not in [one.attrs["href"] for one in page.panel("rehearsal").all("a", href=None)]
    assert "Start one on Verdict" in (await ernst.page("/audit/findings")).text


async def test_the_last_check_is_that_of_the_auditors_program_and_its_findings_are_shown(house, ernst):
    await house.member("kita")
    before = await ernst.page("/audit/findings")
    assert "No check of the whole log was made here yet" in before.text
    done = await ernst.post((await ernst.page("/audit")).form("/audit/check"))
    assert done.said == "The check has begun."
    await house.services.checks.wait()
    answer = await ernst.send("GET", "/audit?format=json")
    facts = json.loads(answer.content)["facts"]["rehearsal"]
    last = house.services.checks.last()
    assert (facts["verdict"]["value"], facts["findings"]["value"]) == ("ok", 0), last
    assert facts["checked-to"]["value"] == house.services.witnessing.checkpoint().size
    gaps = (await ernst.page("/audit")).rows("not-checked")
    assert [one["what"] for one in gaps] == last.data["not_checked"]
    assert (await ernst.page("/audit/findings")).empty("findings").startswith("The last check found nothing")


async def test_a_broken_log_is_found_and_each_finding_leads_to_its_entry(house, ernst, monkeypatch):
    """The planted fault: the program that is run finds something, here for certain."""
    told = {
        "id": "AUD-059",
        "severity": "error",
        "index": 3,
        "evidence": "<b>x</b>",
        "checks": "",
        "by_hand": "",
    }
    data = {
        "verdict": "findings",
        "findings": [told],
        "not_checked": [],
        "facts": {"decisions": {"replayed": 9}},
    }
    program = f"import sys; print({json.dumps(json.dumps({'data': data}))}); sys.exit(3)"
    script = house.services.settings.dir / "program"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "$PROGRAM"\n')
    script.chmod(0o700)
    monkeypatch.setenv("PROGRAM", program)
    monkeypatch.setattr("broker.auditing.checks.sys.executable", str(script))
    await ernst.post((await ernst.page("/audit")).form("/audit/check"))
    await house.services.checks.wait()
    alice = await PersonSim.enter(house, "alice")
    page = await alice.page("/audit/findings")
    (row,) = page.rows("findings")
    assert (row["rule"], row["severity"], row["entry"]) == ("AUD-059", "failed", "3")
    assert row["evidence"] == "<b>x</b>"
    (kept,) = (await ernst.page("/audit/findings")).rows("findings")
    assert kept["evidence"] == "only with a grant for every confidential field"
    assert "/audit/log/3" in page.links()
    assert (await ernst.page("/audit/decisions")).fact("different") == "1"


async def test_a_check_that_dies_says_so_and_lets_another_begin(house, ernst, monkeypatch):
    monkeypatch.setattr("broker.auditing.checks.sys.executable", "/nonexistent/python")
    await ernst.post((await ernst.page("/audit")).form("/audit/check"))
    await house.services.checks.wait()
    page = await ernst.page("/audit")
    assert page.fact("said") == "not checked: FileNotFoundError"
    assert page.fact("verdict") == "look at it"
    assert page.has_form("/audit/check")


async def test_an_entry_is_shown_as_it_was_hashed_with_a_path_that_ends_at_the_root(house, ernst):
    await house.member("kita")
    index = len(house.entries()) - 1
    page = await ernst.page(f"/audit/log/{index}")
    body = house.services.writer.receipts.body(index)
    assert page.fact("leaf") == leaf_hash(body).hex()
    assert page.panel("bytes").first("pre").text == body.decode()
    assert page.rows("path")[-1]["comes-to"] == house.services.writer.head().root.hex()
    assert (await ernst.page("/audit/log/999999")).status == 404
    assert (await ernst.page("/audit/log/x")).status == 404


async def test_the_three_views_and_the_filters_show_the_same_entries(house, ernst):
    await house.member("kita")
    page = await ernst.page("/audit/log?type=console.action")
    wanted = [index for index, one in enumerate(house.entries()) if one.type is EntryType.CONSOLE_ACTION]
    assert [int(row["index"]) for row in page.rows("entries")] == wanted[::-1]
    raw = await ernst.page("/audit/log?type=console.action&view=raw")
    assert len(raw.main.all("pre")) == len(wanted)
    found = await ernst.page("/audit/log?q=org.onboarded")
    assert [row["type"] for row in found.rows("entries")] == ["org.onboarded"]
    assert (await ernst.page("/audit/log?view=x")).code == "console.form"
    assert (await ernst.page("/audit/log?type=no.such")).rows("entries") == []


async def test_pages_of_a_long_log_follow_each_other_without_a_gap(house, ernst):
    for number in range(30):
        await house.alice.invite(f"Maker {number} GmbH", "DE", f"maker-{number}")
        await house.bob.invite(f"Maker {number} AG", "DE", f"other-{number}")
    seen, path = [], "/audit/log"
    while path:
        page = await ernst.page(path)
        seen += [int(row["index"].replace(",", "")) for row in page.rows("entries")]
        path = next((one for one in page.links() if "after=" in one and "format" not in one), "")
    assert seen == list(range(len(house.entries())))[::-1]


async def test_what_a_grant_opens_is_shown_once_the_log_says_so_and_to_nobody_else(house, ernst):
    await house.member("kita")
    index = next(i for i, one in enumerate(house.entries()) if one.type is EntryType.ORG_ONBOARDED)
    assert not (await ernst.page(f"/audit/log/{index}")).has_form(f"/audit/log/{index}/open")
    await granted(house, await enrolled(house), ["org"])
    page = await ernst.page(f"/audit/log/{index}")
    done = await ernst.post(page.form(f"/audit/log/{index}/open"))
    assert done.fact("secret").startswith('org = "org_')
    assert house.kinds()[-2:] == ["access.used", "disclosure.made"]
    other = await PersonSim.enter(house, "erika", role="auditor")
    assert not (await other.page(f"/audit/log/{index}")).has_form(f"/audit/log/{index}/open")


async def test_a_long_digest_of_an_entry_is_whole_and_may_be_broken(house, ernst):
    await house.member("kita")
    index = next(i for i, one in enumerate(house.entries()) if one.type is EntryType.KEY_ADDED)
    page = await ernst.page(f"/audit/log/{index}")
    said = page.panel("fields").first("code", **{"class": "long"}).text
    assert said in {str(one) for one in house.entries()[index].pub.values()}
    trail = page.root.first("nav", **{"class": "trail"})
    assert trail.text == f"The log Entry {index}"
    assert trail.first("span", aria_current="page").text == f"Entry {index}"


async def test_the_same_form_again_shows_nothing_also_under_a_grant_that_came_between(house, ernst):
    await house.member("kita")
    index = next(i for i, one in enumerate(house.entries()) if one.type is EntryType.ORG_ONBOARDED)
    auditor = await enrolled(house)
    await granted(house, auditor, ["org"])
    form = (await ernst.page(f"/audit/log/{index}")).form(f"/audit/log/{index}/open")
    assert (await ernst.post(form)).fact("secret").startswith("org")
    await granted(house, auditor, None)
    before = len(house.entries())
    again = await ernst.post(form)
    assert "org_" not in again.text
    assert "It was shown before." in again.text
    assert len(house.entries()) == before


async def test_a_grant_that_ended_after_the_page_was_shown_opens_nothing(house, ernst):
    await house.member("kita")
    index = next(i for i, one in enumerate(house.entries()) if one.type is EntryType.ORG_ONBOARDED)
    grant = await granted(house, await enrolled(house), ["org"])
    form = (await ernst.page(f"/audit/log/{index}")).form(f"/audit/log/{index}/open")
    await house.alice.post(f"/operator/audit/grants/{grant}/revoke", {})
    assert "0 values were opened." in (await ernst.post(form)).text
    assert "disclosure.made" not in house.kinds()


async def test_the_bundle_that_is_taken_verifies_and_stands_in_the_log(house, ernst):
    await house.member("kita")
    refused = await ernst.page("/audit/bundle.zip")
    assert refused.code == "audit.grant-unknown"
    shut = await ernst.page("/audit/bundle")
    assert (shut.panels()[0], "/audit/bundle.zip" in shut.links()) == ("bundle", False)
    assert (
        "iriai-broker auditor add ernst --auditor-key ed25519:… --dir DIR --key FILE "
        "iriai-broker audit grant ernst --fields '*' --dir DIR --key FILE" in shut.text
    )
    await granted(house, await enrolled(house))
    assert "/audit/bundle.zip" in (await ernst.page("/audit/bundle")).links()
    answer = await ernst.send("GET", "/audit/bundle.zip")
    policy = await ernst.send("GET", "/audit/policy.txt")
    report = run.verify(answer.content, parse_policy(policy.text))
    assert report.exit_code == 0, report.findings
    assert house.entries()[-1].pub["bundle"] == digest(answer.content)


async def test_a_sample_is_the_one_that_anybody_draws_from_the_root(house, ernst):
    for number in range(12):
        await house.alice.invite(f"Maker {number} GmbH", "DE", f"maker-{number}")
    head = house.services.writer.head()
    page = await ernst.page("/audit/sample?n=5&seed=mine")
    drawn = draw(head.root, "mine", range(head.size), 5)
    assert [int(row["index"]) for row in page.rows("sample")] == drawn
    assert (await ernst.page("/audit/sample?n=0")).code == "console.form"


async def test_what_operators_did_stands_with_who_and_result(house, ernst):
    await house.member("kita")
    acts = [one for one in house.entries() if one.type is EntryType.CONSOLE_ACTION]
    rows = (await ernst.page("/audit/operators")).rows("acts")
    assert [(row["operator"], row["action"]) for row in rows] == [
        (one.pub["operator"], one.pub["action"]) for one in acts[::-1]
    ]


async def test_an_act_says_what_it_was_about_to_whom_a_grant_opens_all(house, ernst):
    await house.member("kita")
    rows = (await ernst.page("/audit/operators")).rows("acts")
    approved = next(row for row in rows if row["action"] == "org.approve")
    assert approved["subject"].startswith("sha256:")
    assert len({row["about"] for row in rows}) == 1  # nothing, whatever it was about
    assert "Kita" not in approved["about"]
    await granted(house, await enrolled(house))
    opened = await ernst.page("/audit/operators")
    seen = next(row for row in opened.rows("acts") if row["action"] == "org.approve")
    assert (seen["subject"], seen["about"]) == (approved["subject"], "Kita GmbH")
    assert not [one for one in opened.links() if one.startswith(("/console/members", "/console/prop"))]
    japanese = await ernst.page("/audit/operators", lang="ja")
    heads = [one.text for one in japanese.main.first("table", data_table="acts").first("thead").all("th")]
    assert (len(heads), len(set(heads)), "操作" in heads) == (7, 7, True)


async def test_witnesses_are_heard_or_missing_as_the_status_says(house, ernst, monkeypatch):
    told = house.services.witnessing.status()
    seen = [
        {"name": f"w{age}", "legal_name": "Kita", "size": 3, "age_s": age, "missing": age > MAX_AGE_S}
        for age in (300, MAX_AGE_S, MAX_AGE_S + 1)
    ]
    monkeypatch.setattr(house.services.witnessing, "status", lambda: told | {"witnesses": seen})
    rows = (await ernst.page("/audit")).rows("witnesses")
    assert [row["state"] for row in rows] == ["heard", "heard", "missing"]


async def test_csv_and_json_say_what_the_page_says(house, ernst):
    nodes = await pool(house, "kita", "nord", "iber")
    await final_contract(house, nodes)
    page = await ernst.page("/audit/log")
    data = json.loads((await ernst.send("GET", "/audit/log?format=json")).content)
    assert [str(row["index"]) for row in data["tables"]["entries"]] == [
        row["index"] for row in page.rows("entries")
    ]
    lines = (await ernst.send("GET", "/audit/log?format=csv")).text.splitlines()
    assert len(lines) - 1 == len(page.rows("entries"))
