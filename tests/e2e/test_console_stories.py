# SPDX-License-Identifier: Apache-2.0
"""What people do with the console and a node's page, from the first click to the last, in a real browser.

Behind them is one federation of real processes (`tests.consolepool`); what a person types into a terminal is a
command here. Each story makes its own invitation, contract or run, and leaves the nodes as it found them.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox.clock import now_ms
from sandbox.processes import command, script, wait_for
from tests.browsersim import Watched, needs_browser
from tests.consolepool import PASSWORD, RUN_S, ConsolePool
from tests.passkeybrowser import Authenticator, trusting

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, pytest.mark.slow, needs_browser]
CHANGES = {"k-1": "tighter", "retain-1": "looser"}
SLOW_MS = 60_000
"""Longest wait for what other processes do; how long it takes is no matter here."""


# --- invitation ---


def test_who_was_invited_in_the_console_is_let_in_by_a_passkey_and_a_password(
    browser: Any, pool: ConsolePool, tmp_path: Path
):
    token = invite(browser, pool, name="Zweigwerk AG", country="DE", group="zweig")
    words = ("--dir", str(tmp_path / "node"))
    command("iriai-node", "init", *words)
    org = command("iriai-node", "join", pool.federation.url, token, "--yes", *words)["org"]
    member = f"/console/members/{org}"

    with trusting(pool.certificate, tmp_path / "profile", browser=browser) as context:
        context.add_cookies(pool.state(browser, "alice")["cookies"])
        page = context.new_page()
        Authenticator(page)
        page.goto(pool.origin + "/console/account")
        confirmed(page)
        page.get_by_label("What you call it").fill("blue key")
        page.get_by_role("button", name="Add a passkey").click()
        page.get_by_text("The passkey is added.").wait_for()
        page.goto(pool.origin + member)
        assert fact(page, "state") == "waits for approval"
        page.get_by_role("button", name="Confirm with a passkey").click()
        page.get_by_text("Your approval of Zweigwerk AG is kept.").wait_for()
        assert page.get_by_role("button", name="I compared it: approve").count() == 0
        page.goto(pool.origin + "/console/account")
        page.get_by_role("button", name="Remove this passkey").click()
        page.get_by_text("The passkey is removed.").wait_for()

    with pool.visit(browser, "bob") as bob:
        bob.go(member)
        assert fact(bob.page, "approvals") == "1 of 2"
        bob.page.get_by_label("Your password, if you have no passkey").fill(PASSWORD)
        bob.page.get_by_role("button", name="I compared it: approve").click()
        bob.page.get_by_text("Zweigwerk AG takes part now.").wait_for()
        assert fact(bob.page, "state") != "waits for approval"
        assert bob.quiet() == []
        acts = bob.context.request.get(f"{pool.origin}/audit/operators?format=json").json()
    approved = [one for one in acts["tables"]["acts"] if one["action"] == "org.approve"][:2]
    assert [(one["operator"], one["result"]) for one in approved] == [("bob", "ok"), ("alice", "ok")]
    assert len({one["subject"] for one in approved}) == 1


def confirmed(page: Any) -> None:
    """Shows with the password that it is still them, if the account asks for that."""
    if page.get_by_role("button", name="Confirm with the password").count():
        page.get_by_label("Your password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm with the password").click()


def invite(browser: Any, pool: ConsolePool, *, name: str, country: str, group: str) -> str:
    """What alice hands over: the text of an invitation that she makes; the page shows it once."""
    with pool.visit(browser, "alice") as alice:
        alice.go("/console/invitations")
        alice.page.get_by_label("Legal name").fill(name)
        alice.page.get_by_label("Country").fill(country)
        alice.page.get_by_label("Group").fill(group)
        alice.page.get_by_role("button", name="Make an invitation").click()
        token = str(alice.page.locator("[data-fact=secret]").get_attribute("data-copy"))
        alice.page.reload()
        assert token not in alice.page.content()
        assert alice.quiet() == []
        return token


def fact(page: Any, name: str) -> str:
    """What a person reads as the value of a fact: on the console beside its age, on a node's page alone."""
    shown = page.locator(f"main [data-fact={name}]").first
    beside = shown.locator(".value")
    return words_of(beside if beside.count() else shown.locator("dd"))


def words_of(part: Any) -> str:
    """A text without the sign before it, which colours and shapes say too."""
    return re.sub(r"^\W+", "", part.inner_text()).strip()


# --- counter-offer ---


def test_a_counter_offer_is_compared_signed_and_activated_by_two_people(
    browser: Any, pool: ConsolePool, tmp_path: Path
):
    federation = pool.federation
    start_ms = now_ms() + int((20 + 2 * federation.enrol_s) * 1000)
    text = pool.draft(start_ms=start_ms)
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(text, "utf-8")
    text = text.replace('max_share: "0.60"', 'max_share: "0.50"').replace(
        "updates_hours: 72", "updates_hours: 96"
    )
    after.write_text(text, "utf-8")
    old = str(federation.broker("contract", "offer", str(before), "--recipe", str(pool.recipe))["digest"])
    new = str(federation.node(pool.site("nord"), "contract", "counter", str(after), "--yes")["contract"])

    with pool.visit(browser, "alice") as alice:
        alice.go(f"/console/contracts/{new}")
        alice.page.locator("[data-fact=negotiation] a").click()
        assert alice.page.locator("main").get_attribute("data-screen") == "negotiation"
        lanes = table(alice.page, "lanes")
        assert {one["party"] for one in lanes} == {"kita", "nord", "iber"}
        assert directions(alice.page) == CHANGES
        assert fact(alice.page, "approved") == "no"
        alice.go(f"/console/compare?old={old}&new={new}")
        assert (fact(alice.page, "looser"), fact(alice.page, "tighter")) == ("1", "1")
        assert directions(alice.page) == CHANGES
        approve_activation(alice, new)
        assert alice.quiet() == []

    sign = lambda name: federation.node(  # noqa: E731
        pool.site(name), "contract", "sign", new, "--acknowledge-all", "--wait-s", "60", "--yes"
    )
    with ThreadPoolExecutor(3) as nodes, pool.visit(browser, "bob") as bob:
        signing = [nodes.submit(sign, name) for name in ("kita", "nord", "iber")]
        approve_activation(bob, new)
        assert {one.result()["state"] for one in signing} <= {"open", "finalized"}
        bob.go(f"/console/contracts/{new}")
        wait_until(bob, lambda: fact(bob.page, "state") == "active")
        assert {one["signed"] for one in table(bob.page, "parties")} == {"yes"}
        assert bob.quiet() == []
    with pool.node_page(browser, "nord") as nord:
        nord.go("/contract")
        if new[7:19] not in fact(nord.page, "digest"):
            nord.page.get_by_role("link", name=new[7:19]).click()
        assert new in fact(nord.page, "digest")
        assert fact(nord.page, "standing") == "in force"
        assert nord.quiet() == []


def approve_activation(seen: Watched, contract: str) -> None:
    """The way of a person from the contract to the proposal, read and approved with a password."""
    seen.go(f"/console/contracts/{contract}")
    seen.page.get_by_role("link", name="Look at the proposal").click()
    seen.page.get_by_label("Your password, if you have no passkey").fill(PASSWORD)
    seen.page.get_by_role("button", name="Approve", exact=True).click()
    seen.page.locator(".said p").wait_for()


def table(page: Any, name: str) -> list[dict[str, str]]:
    """Rows of a table as a person reads them, by the names of the columns."""
    found = page.locator(f"table[data-table={name}]")
    names = [one.get_attribute("data-column") for one in found.locator("thead th").all()]
    rows = found.locator("tbody tr").all()
    return [dict(zip(names, map(words_of, row.locator("th,td").all()), strict=True)) for row in rows]


def directions(page: Any) -> dict[str, str]:
    """Clause to how it changes."""
    return {one["clause"]: one["direction"] for one in table(page, "changes")}


# --- a live run ---


def test_a_run_is_watched_live_while_an_owner_pauses_a_node_and_lets_it_go_on(
    browser: Any, pool: ConsolePool
):
    code = pool.again("kita")["code"]
    with pool.node_page(browser, "kita") as kita, pool.visit(browser, "alice") as alice:
        with pool.held_up("hanbit"):  # so that the first round waits until it goes on
            run = open_run(alice, pool)
            alice.page.get_by_text(re.compile("^live since")).wait_for()
            alice.page.evaluate("window.unreloaded = true")
            alice.page.get_by_text("It goes on: round 1, attempt 1 is about to be opened.").wait_for()
            assert fact(alice.page, "round") == "0 of 3"
            act(kita, "Pause", code)
            assert "paused" in fact(kita.page, "paused")
        alice.page.get_by_text("It is closed:").wait_for(timeout=SLOW_MS)
        assert fact(alice.page, "round") == "3 of 3"
        assert alice.page.evaluate("window.unreloaded")

        alice.go(f"/console/runs/{run}/rounds/3")
        told = {one["party"]: (one["verdict"], one["reason"]) for one in table(alice.page, "contributions")}
        assert told["Kita Robot KK"] == ("said no", "local.refused")
        assert told["Hanbit Automation"][0] == "in the model"
        act(kita, "Resume", pool.again("kita")["code"])
        assert "not paused" in fact(kita.page, "paused")
        assert alice.quiet() == []
        assert kita.quiet() == []


def open_run(alice: Watched, pool: ConsolePool) -> str:
    """The way from the list of runs to a run that goes on; its page is open then."""
    alice.go("/console/runs")
    choice = alice.page.get_by_label("Contract and recipe")
    offered = choice.locator("option").evaluate_all("found => found.map(one => one.value)")
    choice.select_option(next(one for one in offered if pool.federation.contract[7:19] in one))
    alice.page.get_by_role("button", name="What would happen?").click()
    alice.page.get_by_role("button", name="Open the run").click()
    alice.page.wait_for_url(re.compile("/console/runs/run_"))
    return str(alice.page.url.rpartition("/")[2])


def act(seen: Watched, button: str, code: str, **given: str) -> None:
    """Does something on a node's page with a fresh code; ``given``: hidden fields that name the form."""
    page = seen.page
    form = page.locator("form.act").filter(has=page.get_by_role("button", name=button, exact=True))
    for name, value in given.items():
        form = form.filter(has=page.locator(f'input[name={name}][value="{value}"]'))
    form.get_by_label("Fresh code").fill(code)
    form.get_by_role("button", name=button, exact=True).click()
    page.locator(".told").wait_for(timeout=SLOW_MS)


# --- a veto ---


def test_an_owner_vetoes_a_model_in_the_name_of_a_clause_and_it_is_refused(browser: Any, pool: ConsolePool):
    code = pool.again("nord")["code"]
    with pool.visit(browser, "alice") as alice, pool.node_page(browser, "nord") as nord:
        with pool.rules(vote="manual"):
            run = open_run(alice, pool)
            pool.federation.wait_event("run.closed", run=run, timeout_s=RUN_S)
        alice.go("/console/releases?state=waiting")
        wait_until(alice, lambda: run in alice.page.content())
        alice.page.get_by_role("row").filter(has_text=run).get_by_role("link").first.click()
        assert fact(alice.page, "state") == "waits at the gate"
        assert table(alice.page, "votes") == []
        model = str(alice.page.url.rpartition("/")[2])
        nord.go("/models")
        choice = nord.page.locator(f'form:has(input[value="{model}"]) select[name=choice]')
        choice.select_option("secret-1")
        act(nord, "Veto", code, candidate=model)
        wait_until(alice, lambda: fact(alice.page, "state") != "waits at the gate")
        assert fact(alice.page, "state") == "refused"
        assert fact(alice.page, "refused-by") == "release-1"
        votes = [(one["party"], one["vote"], one["clause"]) for one in table(alice.page, "votes")]
        assert votes == [("Nordschweiss GmbH", "vetoes", "secret-1")]
        assert "released" not in {one["state"] for one in table(alice.page, "tiers")}
        assert alice.quiet() == []
        assert nord.quiet() == []


def wait_until(seen: Watched, holds: Any) -> None:
    """Reloads the page until something holds."""

    def reloaded() -> bool:
        seen.page.reload()
        return bool(holds())

    wait_for("the page to say it", reloaded, timeout_s=SLOW_MS / 1000)


# --- an audit ---


def test_an_auditor_checks_the_log_and_takes_a_bundle_that_verifies(
    browser: Any, pool: ConsolePool, tmp_path: Path
):
    with pool.visit(browser, "carol", accept_downloads=True) as carol:
        carol.go("/audit")
        carol.page.get_by_role("button", name="Check the whole log now").click()
        carol.page.get_by_text("The check has begun.").wait_for()
        wait_until(carol, lambda: carol.page.locator("[data-fact=verdict]").count())
        assert fact(carol.page, "verdict") == "in order"
        carol.go("/audit/findings")
        assert fact(carol.page, "findings") == "0"
        carol.go("/audit/bundle")
        for name in ("bundle.zip", "policy.txt"):
            with carol.page.expect_download() as waiting:
                carol.page.get_by_role("link", name=name).click()
            waiting.value.save_as(tmp_path / name)
        assert carol.quiet() == []
    words = [script("iriai-verify"), "verify", "bundle.zip", "--policy", "policy.txt"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
