# SPDX-License-Identifier: Apache-2.0
"""Screens about training, budgets, releases, decisions, incidents, keys, health and people: right facts, to whom they belong.

One broker is made for all: a federation trained on it, a node lied and another one was silent; then the rest happened by hand.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from broker.backup import remembered
from broker.backup.remembered import Kept, Passed
from broker.console.operator import releases
from broker.console.rooms import ROOMS
from broker.contracts.decisions import judge
from broker.membership.directory import Operator
from broker.store.tables import ledger_mirror, organisation, round_, run
from policies.contract import Contract
from policies.encoding import digest
from policies.log.entries import EntryType, Event
from tests.brokersim import HandClock, House, SeedEntropy, final_contract, open_house
from tests.consolesim import PersonSim
from tests.contractsim import train_round
from tests.federationsim import ROUNDS, Pool, Said, simulate

NASTY = "<img src=x onerror=alert(1)> GmbH"
HOUR_MS = 3_600_000
OURS = (
    "runs",
    "run",
    "rounds",
    "budgets",
    "releases",
    "decisions",
    "incidents",
    "keys",
    "health",
    "operators",
)


@dataclass(frozen=True)
class Made:
    """What the pool left on the disk."""

    folder: Path
    run: str
    model: str
    now_ms: int


def lie(said: Said) -> Said | None:
    """In the second round iber sends what is no number; in the third nothing of nord arrives."""
    name, number = said.node.name, said.header.round
    if said.contributes and (name, number) == ("iber", 2):
        return said.sealed(tensor=b"\xff" * len(said.tensor or b""))
    return None if said.contributes and (name, number) == ("nord", 3) else said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pool = Pool(tmp_path_factory.mktemp("pool"))

    async def train() -> str:
        await pool.open()
        for one in pool.nodes.values():
            one.lies.append(lie)
        name = await pool.run()
        await pool.close()
        return name

    with simulate(pool.clock) as go:
        run_id = go(train())
    with sqlite_of(pool.folder / "broker") as rows:
        model = rows.execute("select digest from candidate").fetchone()[0]
    return Made(folder=pool.folder / "broker", run=run_id, model=model, now_ms=pool.clock.ms)


def sqlite_of(folder: Path) -> Any:
    import sqlite3
    from contextlib import closing

    return closing(sqlite3.connect(folder / "broker.db"))


@pytest.fixture
async def house(tmp_path: Path, made: Made) -> AsyncIterator[House]:
    shutil.copytree(made.folder, tmp_path / "broker")
    async with open_house(tmp_path / "broker", clock=HandClock(made.now_ms)) as found:
        for who in (found.alice, found.bob):
            who.entropy = SeedEntropy(f"{who.name} again".encode())
        yield found


@pytest.fixture
async def alice(house: House) -> PersonSim:
    return await PersonSim.enter(house, "alice")


async def member(house: House, legal_name: str) -> PersonSim:
    """A person of one of the pool's organisations."""
    org = next(one.org for one in house.services.directory.members() if one.legal_name == legal_name)
    name = legal_name.partition(" ")[0].lower()
    return await PersonSim.enter(house, name, role="member", org=org)


async def write(house: House, work: Any) -> None:
    await house.services.writer.run(work)


def contract_of(house: House, run_id: str) -> Contract:
    with house.services.store.read() as session:
        name = session.scalar(select(run.c.contract).where(run.c.run_id == run_id))
    return house.services.contracts.get(str(name))


# --- runs ---


async def test_runs_are_what_the_service_lists(house: House, alice: PersonSim, made: Made) -> None:
    opened = (
        await house.alice.post(
            "/operator/runs", {"contract": contract_of(house, made.run).digest, "recipe": "pick"}
        )
    ).json()["run"]
    page = await alice.page("/console/runs")
    rows = page.rows("runs")
    rows = sorted(rows, key=lambda one: one["run"] == made.run)  # opened in one moment: ordered by id
    assert [one["run"] for one in rows] == [opened, made.run]
    assert rows[0]["state"] == "stands still"
    assert rows[0]["waits"].startswith("nodes: 0 of 3 groups")
    assert rows[1]["state"] == "completed"
    listed = (await house.alice.get("/operator/runs")).json()["runs"]
    assert {one["run"]: one["round"] for one in listed} == {
        one["run"]: int(one["round"]) for one in (await alice.csv("/console/runs", "runs"))
    }
    only = await alice.page("/console/runs?state=closed")
    assert [one["run"] for one in only.rows("runs")] == [made.run]
    none = await alice.page(f"/console/runs?contract={digest(b'another')}")
    assert none.empty("list").startswith("No run fits these filters.")
    assert (await alice.get("/console/runs?state=strange")).status_code == 200
    assert (await alice.page("/console/runs?state=strange")).code == "console.form"


async def test_runs_come_in_pages_by_a_cursor(house: House, alice: PersonSim, made: Made) -> None:
    contract = contract_of(house, made.run)

    def work(session: Any, _tx: Any) -> None:
        row = dict(session.execute(select(run).where(run.c.run_id == made.run)).mappings().one())
        for number in range(60):  # of one moment: the id orders them
            name = "run_" + f"{number:016d}".translate(str.maketrans("0123456789", "abcdefghij"))
            session.execute(insert(run).values(row | {"run_id": name, "opened_ms": 5}))

    await write(house, work)
    seen: list[str] = []
    path = "/console/runs"
    while path:
        page = await alice.page(path)
        seen += [one["run"] for one in page.rows("runs")]
        path = next((one for one in page.links() if "after=" in one and "format" not in one), "")
    assert len(seen) == len(set(seen)) == 61
    listed = [one.body["run"] for one in _listed(house)]
    assert seen == listed[::-1]
    wrong = await alice.page("/console/runs?after=x")
    assert wrong.code == "console.form"
    assert contract.title in page.text


def _listed(house: House) -> list[Any]:
    with house.services.store.read() as session:
        return house.services.runs.views.list_for(session, Operator(name="alice", key=b"", active=True))


async def test_opening_a_run_says_first_what_it_does_and_does_it_once(
    house: House, alice: PersonSim, made: Made
) -> None:
    contract = contract_of(house, made.run)
    page = await alice.page("/console/runs")
    asked = await alice.post(page.form("/console/runs", "What would happen?"))
    form = asked.form("/console/runs/open")
    effect = " ".join(form.effect)
    assert "4 members of 4 groups are asked to train; 0 are online now." in effect
    assert f"It plans {ROUNDS} rounds; the contract has {100 - ROUNDS} left of 100." in effect
    before = len(_listed(house))
    done = await alice.post(form)
    assert done.screen == "run"
    assert len(_listed(house)) == before + 1
    again = await alice.submit(form)  # the same form once more: no second run
    assert again.status_code == 303
    assert len(_listed(house)) == before + 1
    assert house.entries(EntryType.RUN_OPENED)[-1].pub["contract"] == contract.digest


async def test_a_run_shows_where_it_is_and_why_it_stands_still(
    house: House, alice: PersonSim, made: Made
) -> None:
    answer = await house.alice.post(
        "/operator/runs", {"contract": contract_of(house, made.run).digest, "recipe": "pick"}
    )
    name = answer.json()["run"]
    page = await alice.page(f"/console/runs/{name}")
    assert "It stands still: too few nodes are online." in page.text
    assert page.fact("groups") == "0 of 3"
    assert page.fact("round") == f"0 of {ROUNDS}"
    assert [one["state"] for one in page.rows("away")] == ["offline"] * 4
    assert page.fact("loss").startswith("hidden from you by clause dp-1")
    told = (await house.alice.get(f"/operator/runs/{name}")).json()
    assert [one["party"] for one in page.rows("away")] == [one["name"] for one in told["away"]]
    paused = await alice.post(page.form(f"/console/runs/{name}/pause"))
    assert "4 members are asked for no further round" in " ".join(
        page.form(f"/console/runs/{name}/pause").effect
    )
    assert "an operator paused it" in paused.text
    gone_on = await alice.post(paused.form(f"/console/runs/{name}/resume"))
    assert gone_on.said == "The run goes on within a minute."
    stop = gone_on.form(f"/console/runs/{name}/stop")
    assert f"0 of {ROUNDS} rounds have a model; {ROUNDS} will not be trained." in stop.effect
    stopped = await alice.post(stop)
    assert "An operator ended it" in stopped.text
    assert not any(one.method == "post" for one in stopped.forms)
    actions = [one.pub["action"] for one in house.entries(EntryType.CONSOLE_ACTION)][-3:]
    assert actions == ["run.pause", "run.continue", "run.stop"]


async def test_a_finished_run_shows_its_rounds_as_the_api_does(
    house: House, alice: PersonSim, made: Made
) -> None:
    page = await alice.page(f"/console/runs/{made.run}")
    told = (await house.alice.get(f"/operator/runs/{made.run}")).json()
    rows = page.rows("rounds")
    assert [(int(one["round"]), int(one["accepted"])) for one in rows] == [
        (one["round"], one["accepted"]) for one in reversed(told["rounds"])
    ]
    assert [one["model"] for one in rows] == [one["model"] for one in reversed(told["rounds"])]
    assert page.main.all("svg")
    shown = await alice.json(f"/console/runs/{made.run}")
    assert shown["tables"]["timeline"][0]["outcome"] == "aggregated"
    assert shown["facts"]["learning"]["loss"]["value"] == {"hidden_by": "dp-1"}
    assert page.rows("out")[0]["party"] == "Iber GmbH" if "out" in page.panels() else True


async def test_equal_rounds_stand_in_one_row_of_the_page_and_each_in_json_with_a_link_to_each(
    house: House, alice: PersonSim, made: Made
) -> None:
    def more(session: Any, _tx: Any) -> None:
        of = (round_.c.run_id == made.run) & (round_.c.round == 1)
        row = dict(session.execute(select(round_).where(of)).mappings().one())
        for number in range(ROUNDS + 1, ROUNDS + 9):
            session.execute(insert(round_).values(row | {"round": number, "model": digest(b"%d" % number)}))

    await write(house, more)
    page = await alice.page(f"/console/runs/{made.run}")
    first, *rest = page.main.first("table", data_table="rounds").first("tbody").all("tr")
    assert first.first("summary").text == f"{ROUNDS + 1} to {ROUNDS + 8}"
    assert len(rest) == ROUNDS
    links = [one.attrs["href"] for one in first.all("a", href=None)]
    assert links == [f"/console/runs/{made.run}/rounds/{n}" for n in range(ROUNDS + 1, ROUNDS + 9)]
    told = (await alice.json(f"/console/runs/{made.run}"))["tables"]["rounds"]
    assert [one["round"] for one in told] == list(range(ROUNDS + 8, 0, -1))
    assert len(await alice.csv(f"/console/runs/{made.run}", "rounds")) == ROUNDS + 8
    drawn = page.main.first("svg", **{"class": "chart"})
    assert {"1", str(ROUNDS + 8), "Round"} <= {one.text for one in drawn.all("text")}
    assert "a model came of it / in the model" in drawn.text
    cells = [float(one.attrs["width"]) for one in drawn.all("rect") if one.attrs["height"] == "18.0"]
    assert len(set(cells)) == 1


async def test_an_approver_looks_and_has_no_buttons_and_is_refused_by_address(
    house: House, alice: PersonSim, made: Made
) -> None:
    ann = await PersonSim.enter(house, "ann", role="approver")
    page = await ann.page("/console/runs")
    assert not any(one.method == "post" for one in page.forms)
    assert "open" not in page.panels()
    form = (await alice.page("/console/health")).form("/console/health/check")
    form.fields["csrf"] = ann.csrf
    assert (await ann.post(form)).code == "console.role"


# --- one round ---


async def test_a_round_shows_who_contributed_and_who_was_refused(
    house: House, alice: PersonSim, made: Made
) -> None:
    page = await alice.page(f"/console/runs/{made.run}/rounds/2")
    assert "A model came of it, with the updates of 3 members." in page.text
    verdicts = {one["party"]: (one["verdict"], one["reason"]) for one in page.rows("contributions")}
    assert verdicts["Kita GmbH"] == ("in the model", "none")
    assert verdicts["Iber GmbH"] == ("refused", "submission-differs")
    assert {one["epsilon"] for one in page.rows("accounting")} == {"hidden from you by clause dp-1"}
    third = await alice.page(f"/console/runs/{made.run}/rounds/3")
    silent = {one["party"]: one["verdict"] for one in third.rows("contributions")}
    assert silent["Nord GmbH"] == "did not answer"
    log = house.entries()
    for one in page.rows("entries"):
        entry = log[int(one["entry"])]
        assert (entry.type.value, entry.round) == (one["type"], 2)
    as_csv = await alice.csv(f"/console/runs/{made.run}/rounds/2", "accounting")
    assert as_csv[0]["epsilon"] == "hidden by dp-1"
    for number in ("9", "0", "x", "99999999999999999999"):
        assert (await alice.page(f"/console/runs/{made.run}/rounds/{number}")).status == 404


async def test_a_member_sees_its_own_lines_of_a_round_and_nobody_elses(house: House, made: Made) -> None:
    kita = await member(house, "Kita GmbH")
    page = await kita.page(f"/console/runs/{made.run}/rounds/2")
    assert [one["party"] for one in page.rows("contributions")] == ["Kita GmbH"]
    assert [one["party"] for one in page.rows("accounting")] == ["Kita GmbH"]
    text = json.dumps(await kita.json(f"/console/runs/{made.run}/rounds/2"))
    run_page = await kita.page(f"/console/runs/{made.run}")
    budget = await kita.page("/console/budgets")
    released = await kita.page(f"/console/releases/{made.model}")
    for shown in (page.text, text, run_page.text, budget.text, released.text):
        assert "Kita" in shown or shown == run_page.text
        for other in ("Iber", "Nord", "Hanbit"):
            assert other not in shown, other


# --- who may see what ---


@pytest.mark.parametrize("path", ["runs/{run}", "runs/{run}/rounds/1", "releases/{model}"])
async def test_what_belongs_to_others_is_not_there(house: House, made: Made, path: str) -> None:
    zoe = await stranger(house)
    page = await zoe.page("/console/" + path.format(run=made.run, model=made.model))
    assert page.status == 404
    nothing = await zoe.page("/console/" + path.format(run="run_zzzzzzzzzzzzzzzz", model=digest(b"none")))
    assert (page.status, page.code) == (nothing.status, nothing.code)


async def stranger(house: House) -> PersonSim:
    """A person of an organisation that is no party of the contract."""
    node = await house.member("zoe", legal_name=NASTY)
    return await PersonSim.enter(house, "zoe", role="member", org=node.org)


async def test_a_stranger_has_empty_lists_that_say_what_comes_next(house: House, made: Made) -> None:
    zoe = await stranger(house)
    assert (await zoe.page("/console/runs")).empty("list").startswith("Runs of your contracts would be here.")
    assert (await zoe.page("/console/releases")).empty("list").startswith("Models would be here")
    assert "Budgets of a contract would be here" in (await zoe.page("/console/budgets")).text
    contract = contract_of(house, made.run).digest
    for path in (f"runs?contract={contract}", f"releases?contract={contract}"):
        assert made.run not in (await zoe.get("/console/" + path)).text
    assert (await zoe.page(f"/console/budgets?contract={contract}")).status == 404
    for name in ("decisions", "incidents", "keys", "health", "operators"):
        assert (await zoe.page(f"/console/{name}")).code == "console.role"
    statement = (await PersonSim.enter(house, "alice")).page(f"/console/releases/{made.model}")
    for link in [one for one in (await statement).links() if "/statements/" in one or "/reports/" in one]:
        assert (await zoe.get(link)).status_code == 404


def test_every_route_of_ours_says_who_may_have_it() -> None:
    mine = [one for room in ROOMS if room.name in OURS for one in room.routes]
    assert {room.name for room in ROOMS} >= set(OURS)
    for one in mine:
        assert one.roles
        assert one.kind == "act" or one.kind in {"screen", "events", "file"}
        if one.kind == "act":
            assert one.roles == {"operator"}


async def test_a_view_that_the_contract_refuses_is_told_with_the_clause_and_recorded_once(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path / "other") as house:
        nodes = [await house.member(one) for one in ("kita", "nord", "iber")]
        clause = {"clause": "query-1", "allow": ["own-receipts"], "min_groups": 3}
        contract = await final_contract(house, nodes, queries=clause)
        house.clock.ms = 1_796_500_000_000
        answer = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
        name = answer.json()["run"]
        kim = await PersonSim.enter(house, "kim", role="member", org=nodes[0].org)
        listed = await kim.json("/console/runs")
        assert listed["tables"]["runs"][0]["state"] == {"hidden_by": "query-1"}
        page = await kim.page(f"/console/runs/{name}")
        assert (page.status, page.code) == (403, "contract.refused")
        assert "query-1" in page.text
        assert (await kim.page(f"/console/runs/{name}/rounds/1")).status == 403
        hidden = await kim.json("/console/budgets")
        assert hidden["prose"]["parties"] == [{"hidden_by": "query-1"}]
        assert "parties" not in hidden["tables"]
        said = [one for one in house.entries(EntryType.DECISION_RECORDED) if one.run == name]
        await kim.page(f"/console/runs/{name}")
        again = [one for one in house.entries(EntryType.DECISION_RECORDED) if one.run == name]
        assert len(said) == len(again) == 2  # the status and the own budget, once each
        api = await nodes[0].get(f"/runs/{name}")
        assert (api.status_code, api.json()["code"]) == (403, "contract.refused")


# --- budgets ---


async def test_budgets_are_those_of_the_api_with_a_forecast(
    house: House, alice: PersonSim, made: Made
) -> None:
    contract = contract_of(house, made.run)

    def work(session: Any, _tx: Any) -> None:  # a round an hour
        for number in range(1, ROUNDS + 1):
            at_ms = made.now_ms - (ROUNDS - number) * HOUR_MS
            session.execute(update(round_).where(round_.c.round == number).values(at_ms=at_ms))

    await write(house, work)
    idle = await alice.page("/console/budgets")
    assert "No run is open, so nothing is being spent and there is no date." in idle.text
    assert {one["ends"] for one in idle.rows("parties")} == {"no run is open"}
    assert int(idle.rows("recipes")[0]["runs"]) >= 1
    asked = {"contract": contract.digest, "recipe": "pick"}
    answer = await house.alice.post("/operator/runs", asked)
    assert answer.status_code == 201
    told = (await house.alice.get(f"/operator/budgets/{contract.digest}")).json()
    shown = await alice.json("/console/budgets")
    rows = {one["party"]: one for one in shown["tables"]["parties"]}
    for one in told["parties"]:
        row = rows[f"{one['party'].title()} GmbH"]
        assert row["spent"] == one["epsilon_spent"]
        whole = float(row["spent"]) + float(row["reserved"])
        assert whole == pytest.approx(float(one["epsilon_with_reserved"]), abs=2e-6)
        assert row["cap"] == one["epsilon_total"]
        assert row["ends"] > shown["at"]
    assert shown["facts"]["choice"]["ledger"]["value"] == {"hidden_by": "dp-1"}
    assert shown["tables"]["recipes"][0]["used"] == told["recipes"][0]["rounds_used"]
    kita = await member(house, "Kita GmbH")
    own = (await kita.json("/console/budgets"))["tables"]["parties"]
    assert [one["party"] for one in own] == ["Kita GmbH"]
    assert "runs" not in (await kita.json("/console/budgets"))["tables"]["recipes"][0]


async def test_seconds_of_a_run_are_no_rate_of_a_day(house: House, alice: PersonSim) -> None:
    page = await alice.page("/console/budgets")
    assert {one["rate"] for one in page.rows("parties")} == {"too short for a rate"}
    first = page.panel("parties").first("p").text
    assert first.startswith("Whole runs of pick that can still begin: ")


async def test_no_whole_run_fits_exactly_when_the_gate_refuses_the_next(
    house: House, alice: PersonSim, made: Made
) -> None:
    contract = contract_of(house, made.run)
    asked = {"contract": contract.digest, "recipe": "pick"}

    def spent(session: Any, _tx: Any) -> None:
        session.execute(update(ledger_mirror).values(steps=10_000_000))

    await write(house, spent)
    page = await alice.page("/console/budgets")
    left = page.rows("recipes")[0]
    assert "No further run can begin: no whole one fits any more." in page.panel("parties").first("p").text
    assert (left["runs"], left["left"] != "0") == ("0", True)
    refused = await house.alice.post("/operator/runs", asked)
    assert refused.json()["code"] == "budget.exhausted"


# --- releases ---


async def test_a_release_shows_tests_votes_tiers_and_who_has_it(
    house: House, alice: PersonSim, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = await alice.page("/console/releases")
    assert [one["model"] for one in listed.rows("candidates")] == [made.model]
    page = await alice.page(f"/console/releases/{made.model}")
    told = (await house.alice.get("/candidates")).json()["candidates"][0]
    assert page.fact("state") == "released"
    assert page.fact("privacy") == "private"
    assert "NOT PRIVATE" not in page.panel("gate").text
    with monkeypatch.context() as patch:
        patch.setattr(releases, "told", lambda *_given: {"verdict": "NOT PRIVATE"})
        bare = await alice.page(f"/console/releases/{made.model}")
    assert bare.fact("privacy") == "not private"
    assert bare.panel("gate").first("p").text.startswith("NOT PRIVATE")
    assert {one["party"].partition(" ")[0].lower() for one in page.rows("votes")} == set(told["votes"])
    assert page.rows("tests")[0]["outcome"] == "passed"
    tiers = {one["tier"]: one for one in page.rows("tiers")}
    assert tiers["consortium"]["state"] == "released"
    assert tiers["private"]["state"] == "private"
    link = next(one for one in page.links() if "/statements/" in one)
    answer = await alice.get(link)
    assert digest(answer.content) == link.rpartition("/")[2]
    assert "attachment" in answer.headers["content-disposition"]
    report = await alice.get(next(one for one in page.links() if "/reports/" in one))
    assert digest(report.content) == told["report"]
    assert (await alice.get("/console/statements/" + digest(b"none"))).status_code == 404
    assert page.empty("given").startswith("Nobody downloaded it.")
    assert "votes" not in (await alice.json("/console/releases?state=waiting"))["tables"]


async def test_the_lineage_of_a_released_model_counts_the_votes_about_it(house: House, made: Made) -> None:
    ernst = await PersonSim.enter(house, "ernst", role="auditor")
    log = list(enumerate(house.entries()))
    at = next(index for index, one in log if one.type is EntryType.MODEL_RELEASED)
    cast = [i for i, one in log if one.type is EntryType.VOTE_CAST and i < at]
    page = await ernst.page(f"/audit/lineage?entry={at}")
    assert len(cast) == 4
    assert [int(row["index"]) for row in page.rows("votes")] == cast[::-1]
    assert page.fact("votes") == "4: 4 for it, 0 against"


# --- decisions ---


async def refuse(house: House, made: Made) -> int:
    """A decision of the broker that refuses; the index of its entry."""
    services, contract = house.services, contract_of(house, made.run)
    asked = train_round("nobody")
    at: list[int] = []

    def work(session: Any, tx: Any) -> None:
        state = services.contracts.state(contract, session)
        judged = judge(contract, point="broker", request=asked, state=state, entropy=services.entropy)
        assert not judged.allow
        at.append(judged.record(session, tx, run=made.run))

    await write(house, work)
    return at[0]


async def test_what_a_contract_refused_is_listed_counted_and_explained(
    house: House, alice: PersonSim, made: Made
) -> None:
    index = await refuse(house, made)
    shown = await alice.json("/console/decisions")
    row = next(one for one in shown["tables"]["decisions"] if one["entry"] == str(index))
    assert row["subject"] == "TrainRound"
    counted = {one["clause"]: one["count"] for one in shown["tables"]["clauses"]}
    for clause in row["clause"].split(", "):
        assert counted[clause] >= 1
        only = await alice.json(f"/console/decisions?clause={clause}")
        assert str(index) in [one["entry"] for one in only["tables"]["decisions"]]
    page = await alice.page(f"/console/decisions/{index}")
    assert page.fact("outcome") == "refused"
    assert page.fact("clauses") == row["clause"]
    assert any(one["outcome"] == "does not hold" for one in page.rows("findings"))
    assert {one["fact"] for one in page.rows("request")} >= {"party", "type"}
    for name in ("0", "x", "9" * 30):
        assert (await alice.page(f"/console/decisions/{name}")).status == 404
    house.clock.ms += 25 * HOUR_MS
    later = await (await PersonSim.enter(house, "alice")).json("/console/decisions")
    assert later["tables"]["clauses"] == []
    assert later["tables"]["decisions"] == shown["tables"]["decisions"]


async def test_decisions_that_refused_are_paged_without_a_gap(
    house: House, alice: PersonSim, made: Made
) -> None:
    made_at = [await refuse(house, made) for _ in range(53)]
    first = await alice.json("/console/decisions")
    rest = await alice.json(f"/console/decisions?after={first['more']['decisions']['after']}")
    seen = [int(one["entry"]) for page in (first, rest) for one in page["tables"]["decisions"]]
    assert seen[:53] == made_at[::-1]
    assert len(seen) == len(set(seen))
    in_log = [
        index
        for index, one in enumerate(house.entries())
        if one.type is EntryType.DECISION_RECORDED and one.pub["outcome"] == "refuse"
    ]
    assert seen == in_log[::-1]


# --- incidents ---


async def test_an_incident_is_closed_once_with_a_reason(house: House, alice: PersonSim, made: Made) -> None:
    scope = contract_of(house, made.run).digest
    pub = {"kind": "sum-wrong", "evidence": digest(b"evidence")}
    event = Event(type=EntryType.INCIDENT_DECLARED, scope=scope, run=made.run, round=1, pub=pub)
    await write(house, lambda _session, tx: tx.add(event))
    page = await alice.page("/console/incidents")
    index = str(house.services.writer.head().size - 1)
    assert page.rows("incidents")[0]["entry"] == index
    form = page.form("/console/incidents/close")
    refused = await alice.post(form, index=index, reason="No Code")
    assert refused.code == "request.invalid"
    done = await alice.post(form, index=index, reason="node.repaired")
    assert done.said == f"The incident of entry {index} is closed."
    assert done.rows("incidents")[0]["state"] == "closed"
    assert house.entries(EntryType.INCIDENT_CLOSED)[-1].refs == (int(index),)
    shown = (await house.alice.get("/operator/incidents")).json()["incidents"]
    assert {str(one["index"]) for one in shown} == {one["entry"] for one in done.rows("incidents")}
    assert (await alice.page("/console/incidents?state=strange")).code == "console.form"


# --- keys, health, people ---


async def test_keys_say_what_they_are_for_how_old_they_are_and_how_to_replace_them(
    house: House, alice: PersonSim
) -> None:
    page = await alice.page("/console/keys")
    purposes = [one["purpose"] for one in page.rows("broker-keys")]
    assert "signs the log's heads" in purposes
    assert "certificate of the port" in purposes
    assert {one["owner"] for one in page.rows("people-keys")} >= {"alice", "bob"}
    assert len(page.rows("node-keys")) == 4
    assert all(one["since"] != "not in this log" for one in page.rows("broker-keys"))
    assert page.text.count("No quorum is asked for") == 1
    house.clock.ms += 810 * 24 * HOUR_MS
    later = await (await PersonSim.enter(house, "alice")).page("/console/keys")
    tls = next(one for one in later.rows("broker-keys") if one["purpose"] == "certificate of the port")
    assert tls["state"] != "in order"


async def test_health_answers_whether_a_restore_would_work(house: House, alice: PersonSim) -> None:
    settings = house.services.settings
    assert "No: there is no backup." in (await alice.page("/console/health")).text
    size = house.services.writer.head().size
    kept = {"path": "/srv/backup/1", "at_ms": house.clock.ms, "manifest": digest(b"m"), "size": size - 5}
    remembered.add(settings, Kept(**kept, bytes=1_000, private_until_ms=None))
    assert "Perhaps: no backup was ever restored on trial." in (await alice.page("/console/health")).text
    remembered.tested(settings, Passed(**kept))
    page = await alice.page("/console/health")
    assert "Yes: a backup is fresh and was tested. The newest 5 entries are not in it." in page.text
    assert page.fact("chain") == "in order"
    assert int(page.fact("size")) == size
    house.clock.ms += 30 * HOUR_MS
    late = await (await PersonSim.enter(house, "alice")).page("/console/health")
    assert "Perhaps: the last backup was made 30 hours ago" in late.text
    assert late.age("backup").startswith("unknown since")
    assert late.fact("day") == "0"


@pytest.mark.enable_socket
async def test_the_numbered_checks_run_when_asked_and_say_how_old_they_are(
    house: House, alice: PersonSim
) -> None:
    page = await alice.page("/console/health")
    assert page.empty("doctor").startswith("The checks were not run since the broker started.")
    done = await alice.post(page.form("/console/health/check"))
    codes = [one["code"] for one in done.rows("checks")]
    assert "doctor.log" in codes
    failed = sum(one["state"] == "broken" for one in done.rows("checks"))
    assert done.fact("failed") == str(failed)
    assert done.age("failed")


async def test_the_operator_log_has_every_action_and_its_people(
    house: House, alice: PersonSim, made: Made
) -> None:
    shown = await alice.json("/console/operators")
    log = [
        (str(index), one.pub["operator"], one.pub["action"], one.pub["result"])
        for index, one in enumerate(house.entries())
        if one.type is EntryType.CONSOLE_ACTION
    ]
    rows = [(one["entry"], one["who"], one["action"], one["result"]) for one in shown["tables"]["acts"]]
    assert rows == log[::-1][: len(rows)]
    about = {one["action"]: one["about"] for one in shown["tables"]["acts"]}
    assert about["org.approve"] in {one.legal_name for one in house.services.directory.members()}
    assert about["run.open"] == "recipe pick"
    bob = await alice.json("/console/operators?name=bob")
    assert {one["who"] for one in bob["tables"]["acts"]} == {"bob"}
    people = {one["name"]: one["role"] for one in shown["tables"]["people"]}
    assert people["alice"] == "operator"
    assert shown["facts"]["people"]["wrong"]["value"] == 0
    none = await alice.page("/console/operators?action=nothing.like.it")
    assert none.empty("acts").startswith("No action fits these filters.")


# --- hostile names, panels without a source ---


async def test_names_of_others_are_text_wherever_they_stand(
    house: House, alice: PersonSim, made: Made
) -> None:
    def work(session: Any, _tx: Any) -> None:
        session.execute(update(organisation).values(legal_name=NASTY))

    await write(house, work)
    house.services.refresh()
    for path in ("keys", "runs", "operators", "decisions", f"runs/{made.run}", "budgets"):
        answer = await alice.get(f"/console/{path}")
        assert answer.status_code == 200
        assert "<img" not in answer.text, path
    page = await alice.page("/console/keys")
    assert {one["owner"] for one in page.rows("node-keys")} == {NASTY}


async def test_a_panel_whose_source_is_gone_says_so_and_the_others_are_shown(
    house: House, alice: PersonSim
) -> None:
    shutil.move(house.services.settings.keys, house.services.settings.keys.with_name("gone"))
    (house.services.settings.dir / "backups.json").mkdir()
    page = await alice.page("/console/health")
    assert page.status == 200
    assert "Unknown: what the broker remembers of its backups cannot be read." in page.text
    assert page.fact("state") == "growing"


async def test_every_screen_says_the_same_in_both_languages(
    house: House, alice: PersonSim, made: Made
) -> None:
    for path in ("runs", f"runs/{made.run}", "budgets", "releases", "keys", "health", "operators"):
        english = await alice.page(f"/console/{path}", lang="en")
        japanese = await alice.page(f"/console/{path}", lang="ja")
        assert english.facts() == japanese.facts()
        assert english.panels() == japanese.panels()
        assert japanese.root.first("html").attrs["lang"] == "ja"


async def test_an_empty_federation_says_the_next_step_everywhere(tmp_path: Path) -> None:
    async with open_house(tmp_path / "empty") as house:
        ada = await PersonSim.enter(house, "alice")
        for path, panel, words in (
            ("runs", "list", "Runs of all contracts would be here."),
            ("releases", "list", "Models would be here"),
            ("decisions", "list", "Refusals would be here."),
            ("incidents", "list", "Incidents would be here"),
            ("keys", "nodes", "Keys of members' nodes would be here."),
            ("keys", "quorum", "Nobody witnesses this log."),
            ("health", "backup", "Backups would be here."),
        ):
            assert (await ada.page(f"/console/{path}")).empty(panel).startswith(words), path
        assert "Negotiate one first" in (await ada.page("/console/runs")).panel("open").text
