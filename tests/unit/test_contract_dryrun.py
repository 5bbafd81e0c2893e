# SPDX-License-Identifier: Apache-2.0
"""Dry run: a proposal judged on the past, at the broker and at home. What is not on record is not allowed."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from broker.cli import app as broker_app
from broker.commands import Where
from broker.commands.comparing import contract_diff, contract_dry_run
from broker.contracts.decisions import judge
from broker.errors import AnsweredError
from broker.remote import OperatorClient, Target
from client.contract.dryrun import dry_run_at_home
from policies.contract import (
    Contract,
    ContractState,
    Request,
    evaluate,
    from_tree,
    request_to_json,
    state_to_json,
)
from policies.contract.dryrun import DryRun, RecordedRequest, dry_run
from policies.encoding import canonical, digest
from policies.log.entries import EntryType
from tests.amendsim import named, successor
from tests.brokersim import RECIPE, URL, House, SeedEntropy, final_contract, open_house, operator_key, pool
from tests.contractsim import (
    STATE,
    WELD,
    aggregate,
    allowed,
    authored,
    contract,
    deliver,
    join,
    key,
    query,
    release,
    train_round,
)
from tests.nodehouse import open_street
from tests.nodeworld import World, ready_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD = contract()
RUN = "run_aaaaaaaaaaaaaaaa"


def recorded(
    request: Request,
    *,
    state: ContractState = STATE,
    run: str | None = RUN,
    round: int | None = None,  # noqa: A002  the record's own word
    lacks: tuple[str, ...] = (),
) -> RecordedRequest:
    """What the old contract said about a request, and what is kept of it."""
    found = evaluate(OLD, state, request)
    facts = request_to_json(request)
    for name in lacks:
        del facts[name]
    return RecordedRequest(
        contract=OLD.digest,
        request=facts,
        state=state_to_json(state),
        allowed=found.allow,
        clauses=found.clauses,
        run=run,
        round=round,
    )


def tried(new: Contract, *records: RecordedRequest) -> DryRun:
    return dry_run(new, records, contracts={OLD.digest: OLD})


def changed(apply: Any) -> Contract:
    tree = authored()
    apply(tree)
    return from_tree(tree)


# --- what would have been ---


def test_the_past_under_the_same_terms_is_as_it_was() -> None:
    report = tried(OLD, *(recorded(one) for one in allowed().values()))
    assert report.by_clause == ()
    assert report.unchanged == report.records == len(allowed())
    assert report.lines == (f"{len(allowed())} of {len(allowed())} recorded decisions as before",)


def test_a_tighter_cap_names_the_rounds_that_it_would_have_refused_and_what_it_cannot_tell() -> None:
    rounds = [
        recorded(train_round("nord", epsilon_after_total=spent), round=number, lacks=lacks)
        for number, spent, lacks in (
            (3, "2.5", ()),
            (12, "3.5", ()),
            (40, "3.9", ()),
            (41, "1", ("epsilon_after_total",)),
            (42, "1", ("epsilon_after_total",)),
            (43, "1", ("epsilon_after_total",)),
        )
    ]
    report = tried(successor(named("nord's total cap is lowered")), *rounds)
    assert "dp-2: would have refused rounds 12, 40 · 3 cannot tell" in report.lines
    assert report.unchanged == 1


def test_a_record_that_lacks_a_fact_of_a_later_version_counts_as_cannot_tell_and_never_as_allowed() -> None:
    report = tried(OLD, recorded(train_round(), round=1, lacks=("group_mac", "seed_set")))
    assert {one.clause: len(one.cannot_tell) for one in report.by_clause} == {"k-1": 1, "recipe-1": 1}
    assert not any(one.allowed or one.refused for one in report.by_clause)
    assert report.unchanged == 0


def test_an_early_state_lacks_what_was_not_known_then() -> None:
    record = recorded(train_round(), round=1)
    early = replace(
        record, state={name: record.state[name] for name in ("now", "executed", "halted", "exited_parties")}
    )
    report = tried(OLD, early)
    assert {one.clause for one in report.by_clause} == {"@standing", "party-kita"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: {**facts, "type": "Burn"},
        lambda facts: {**facts, "colour": "red"},
        lambda facts: {**facts, "round": "seven"},
        lambda facts: {name: value for name, value in facts.items() if name != "type"},
    ],
)
def test_a_record_that_nobody_can_read_is_counted(spoil: Any) -> None:
    record = recorded(train_round(), round=1)
    report = tried(OLD, replace(record, request=spoil(record.request)))
    assert report.lines == ("@record: 1 cannot tell", "0 of 1 recorded decisions as before")


def test_what_was_refused_and_would_be_allowed_is_told_under_the_clause_that_refused() -> None:
    before = recorded(train_round("nord", epsilon_after_total="5"), round=9)
    assert before.clauses == ("dp-2",)
    report = tried(successor(named("nord's total cap is raised")), before)
    assert report.lines[0] == "dp-2: would have allowed round 9"


def test_what_was_refused_and_would_be_refused_is_as_before() -> None:
    before = recorded(train_round("nord", epsilon_after_total="7"), round=9)
    report = tried(successor(named("nord's total cap is raised")), before)
    assert report.unchanged == 1


def test_other_requests_are_counted_by_their_kind() -> None:
    def closed(tree: Any) -> None:
        tree["aggregation"]["min_parties"] = 3
        tree["aggregation"]["update_norm_max"] = "5"
        tree["aggregation"]["delay_hours"] = 8_784
        tree["export_control"]["embargoed"] = ["JP"]

    report = tried(
        changed(closed),
        recorded(aggregate(), round=4),
        recorded(release()),
        recorded(deliver("kita", made_at="2026-12-03T00:00:00Z")),
        recorded(deliver("hanbit", country="KR")),
        recorded(query(made_at="2027-11-01T00:00:00Z")),
    )
    assert report.lines[:2] == (
        "export-1: would have refused 1 delivery",
        "k-1: would have refused the averaging of round 4, 1 release, 2 deliveries, 1 query",
    )


def test_rounds_of_several_runs_are_told_apart() -> None:
    later = "run_bbbbbbbbbbbbbbbb"
    spent = train_round("nord", epsilon_after_total="3.5")
    report = tried(
        successor(named("nord's total cap is lowered")),
        recorded(spent, round=2),
        recorded(spent, round=3, run=later),
        recorded(spent, round=5),
    )
    assert report.lines[0] == f"dp-2: would have refused rounds 2, 5 of {RUN}; 3 of {later}"


# --- the proposal's names and times ---


def test_parties_are_matched_by_name_and_recipes_by_id() -> None:
    def renewed(tree: Any) -> None:
        tree["parties"][0]["key"] = key("kita's new key")
        tree["recipes"][0]["recipe_digest"] = "sha256:" + "7" * 64

    new = changed(renewed)
    record = recorded(train_round("kita"), round=1)
    assert tried(new, record).unchanged == 1
    assert dry_run(new, [record], contracts={}).lines[0].startswith("forbid-5: would have refused round 1")


def test_a_recipe_that_is_gone_would_have_been_refused() -> None:
    report = tried(successor(named("a recipe is gone")), recorded(train_round("nord", recipe=WELD), round=1))
    assert report.lines[0] == "forbid-5: would have refused round 1"


def test_a_term_that_begins_later_does_not_refuse_the_whole_past() -> None:
    def next_year(tree: Any) -> None:
        tree["term"] = {
            "clause": "term-1",
            "effective": "2030-01-01T00:00:00Z",
            "expires": "2031-01-01T00:00:00Z",
        }

    records = [recorded(one) for name, one in allowed().items() if not name.startswith("Deliver")]
    assert tried(changed(next_year), *records).unchanged == len(records)
    fresh = recorded(release(made_at="2027-12-01T00:00:00Z"))
    older = tried(changed(lambda tree: (next_year(tree), tree["aggregation"].update(delay_hours=48))), fresh)
    assert older.lines[0] == "k-1: would have refused 1 release"  # distances are kept


def test_a_term_that_ends_earlier_refuses_what_came_after_its_end() -> None:
    new = changed(lambda tree: tree["term"].update(expires="2027-06-01T00:00:00Z"))
    assert tried(new, recorded(train_round(), round=1)).lines[0] == "term-1: would have refused round 1"


def test_a_recorded_amendment_means_its_own_contract() -> None:
    new = successor(named("more witnesses"))
    assert tried(new, recorded(join())).unchanged == 1


def test_the_report_is_json() -> None:
    report = tried(
        successor(named("nord's total cap is lowered")),
        recorded(train_round("nord", epsilon_after_total="3.5"), round=2),
    )
    assert report.to_json() == {
        "proposal": report.proposal,
        "records": 1,
        "unchanged": 0,
        "by_clause": [
            {
                "clause": "dp-2",
                "refused": [{"type": "TrainRound", "party": "nord", "run": RUN, "round": 2}],
                "allowed": [],
                "cannot_tell": [],
            }
        ],
    }


# --- at the broker ---


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


async def with_past(house: House) -> tuple[Contract, list[Any]]:
    """A contract in force, four rounds of nord on record, one averaging and somebody else's decision."""
    nodes = await pool(house)
    agreed = await final_contract(house, nodes)
    house.clock.ms = 1_796_500_000_000  # 2026-12-05
    keys = {one.party: one.key for one in agreed.parties}
    common = {
        "recipe_digest": digest(RECIPE),
        "fields": ("tcp_pos",),
        "cohort": ("iber", "kita", "nord"),
        "seed_set": "none",
        "secure_aggregation": "off",
        "group_mac": "off",
    }
    state = house.services.contracts.state(agreed)

    def work(session: Any, tx: Any) -> None:
        for number, spent in enumerate(("1.5", "2.5", "3.5", "9"), start=1):
            asked = train_round("nord", key=keys["nord"], round=number, epsilon_after_total=spent, **common)
            found = judge(agreed, point="broker", request=asked, state=state, entropy=house.services.entropy)
            found.record(session, tx, run=RUN, round=number)
        own = train_round("kita", key=keys["kita"], round=1, epsilon_after_total="7", **common)
        found = judge(agreed, point="node", request=own, state=state, entropy=house.services.entropy)
        found.record(session, tx, run=RUN, round=1)

    await house.services.writer.run(work)
    return agreed, nodes


def lower(agreed: Contract, total: str) -> Contract:
    tree = agreed.document
    tree["privacy"] |= {"epsilon_total": total}
    return from_tree(tree)


async def test_an_operator_tries_a_proposal_on_the_brokers_past_and_nothing_is_written(house: House) -> None:
    agreed, _ = await with_past(house)
    before = len(house.entries())
    body = {"contract": lower(agreed, "3").canonical.decode(), "against": agreed.digest}
    answer = await house.alice.post("/operator/contracts/dry-run", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["lines"] == [
        "dp-1: would have refused round 3",
        "3 of 4 recorded decisions as before",
    ]
    assert len(house.entries()) == before
    every = await house.alice.post(
        "/operator/contracts/dry-run", {"contract": lower(agreed, "10").canonical.decode()}
    )
    assert every.json()["lines"][0] == "dp-1: would have allowed round 4"


async def test_a_dry_run_is_for_operators_and_about_contracts_that_are_here(house: House) -> None:
    agreed, nodes = await with_past(house)
    body = {"contract": lower(agreed, "3").canonical.decode(), "against": "sha256:" + "0" * 64}
    assert (await nodes[0].post("/operator/contracts/dry-run", body)).status_code == 403
    assert (await house.alice.post("/operator/contracts/dry-run", body)).status_code == 404
    spoiled = await house.alice.post("/operator/contracts/dry-run", {"contract": "schema: nothing"})
    assert spoiled.json()["code"] == "contract.unknown-schema"
    assert len(house.entries(EntryType.DECISION_RECORDED)) == 5


async def test_the_same_signed_question_is_not_answered_twice(house: House) -> None:
    agreed, _ = await with_past(house)
    asked = house.alice.signed(
        "POST", "/operator/contracts/dry-run", canonical({"contract": agreed.canonical.decode()})
    )
    assert (await house.http.send(asked)).status_code == 200
    assert (await house.http.send(asked)).json()["code"] == "identity.replayed"


# --- two texts at the operator's desk ---


def written(folder: Path, name: str, text: Contract) -> str:
    path = folder / name
    path.write_bytes(text.canonical)
    return str(path)


def test_the_broker_compares_two_files(tmp_path: Path) -> None:
    old = written(tmp_path, "old.json", OLD)
    tighter = written(tmp_path, "tighter.json", successor(named("the quorum is higher")))
    done = CliRunner().invoke(broker_app, ["contract", "diff", old, tighter])
    assert done.exit_code == 0
    assert done.stderr.splitlines()[-2:] == ["validate-1 TIGHTER quorum 0.67 -> 0.75", "NO LOOSER"]


def test_the_broker_shows_a_witness_for_what_is_looser(tmp_path: Path) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    old = written(tmp_path, "old.json", OLD)
    looser = written(tmp_path, "looser.json", successor(named("nord's total cap is raised")))
    done = CliRunner().invoke(broker_app, ["contract", "diff", old, looser])
    lines = done.stderr.splitlines()
    assert done.exit_code == 3
    assert lines[0] == "dp-2 LOOSER epsilon_total 4 -> 6"
    assert lines[1].startswith("  witness: TrainRound nord, epsilon-total ")
    assert lines[1].endswith("version 1 refuses, version 2 allows")
    assert lines[-1] == "LOOSER"


@pytest.mark.parametrize(
    ("edit", "answer", "code"),
    [("the quorum is higher", "tighter", 0), ("nord's total cap is raised", "looser", 3)],
)
def test_the_prover_says_what_it_proved_or_shows_a_case(
    tmp_path: Path, edit: str, answer: str, code: int
) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    old = written(tmp_path, "old.json", OLD)
    new = written(tmp_path, "new.json", successor(named(edit)))
    done = CliRunner().invoke(broker_app, ["contract", "prove", old, new, "--json"])
    data = json.loads(done.stdout)["data"]
    assert (done.exit_code, data["answer"]) == (code, answer)
    assert bool(data["verdict"]["witnesses"]) == (answer == "looser")
    lines = CliRunner().invoke(broker_app, ["contract", "prove", old, new]).stderr.splitlines()
    assert lines[-1].startswith(answer.upper())
    assert any("version 1 refuses, version 2 allows" in line for line in lines) == (answer == "looser")


def test_what_the_prover_can_neither_show_nor_refute_is_unknown(tmp_path: Path) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    tree = OLD.document
    tree["parties"][0]["legal_name"] += " Holding"  # words: no request is about them
    old = written(tmp_path, "old.json", OLD)
    new = written(tmp_path, "new.json", from_tree(tree | {"version": 2, "supersedes": OLD.digest}))
    done = CliRunner().invoke(broker_app, ["contract", "prove", old, new, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["data"]["answer"]) == (3, "unknown")


def test_without_the_prover_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    names = [written(tmp_path, f"{at}.json", one) for at, one in enumerate((OLD, successor()))]
    done = CliRunner().invoke(broker_app, ["contract", "prove", *names])
    assert (done.exit_code != 0, "install iriai[prove]" in done.stderr) == (True, True)


def test_an_operator_cannot_let_a_halted_contract_go_on_and_hears_who_can(tmp_path: Path) -> None:
    old = written(tmp_path, "old.json", OLD)
    done = CliRunner().invoke(broker_app, ["contract", "resume", old, "--json"])
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["code"], error["clause"]) == (
        4,
        "contract.resume-not-ours",
        OLD.halt.clause,
    )
    assert f"iriai-node contract resume {OLD.digest}" in error["remedy"]


def test_a_field_that_is_looser_taken_alone_is_told_so_where_the_proof_shows_that_nothing_is_won(
    tmp_path: Path,
) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    names = []
    for share in ("0.95", "0.96"):  # with equal weights no share is ever so large
        tree = OLD.document
        tree["aggregation"]["max_share"] = share
        tree |= {"version": 2, "supersedes": OLD.digest} if names else {}
        names.append(written(tmp_path, f"{share}.json", from_tree(tree)))
    done = CliRunner().invoke(broker_app, ["contract", "diff", *names])
    lines = done.stderr.splitlines()
    assert "k-1 LOOSER max_share 0.95 -> 0.96" in lines
    assert lines[-1] == (
        "NO LOOSER: k-1 max_share is looser taken alone, but it is proven that there is no request that only"
        " the new text allows"
    )
    assert done.exit_code == 0


def test_a_name_that_is_neither_file_nor_digest_is_refused(tmp_path: Path) -> None:
    old = written(tmp_path, "old.json", OLD)
    done = CliRunner().invoke(broker_app, ["contract", "diff", old, "nowhere.yaml"])
    assert done.exit_code == 2


def test_the_commands_ask_a_broker_for_what_is_not_a_file(tmp_path: Path) -> None:
    with open_street(tmp_path / "broker") as street:
        agreed, _ = street.run(with_past(street.house))
        drawn = SeedEntropy(b"desk")

        class Here(Where):
            def client(self) -> OperatorClient:
                return OperatorClient(
                    Target(url=URL, certificate=""),
                    key=operator_key("alice"),
                    clock=street.house.clock,
                    entropy=drawn,
                    transport=street.transport,
                )

        here = Here(directory=None, url=None, tls_sha256=None, key=None)
        file = Path(written(tmp_path, "proposal.json", lower(agreed, "3")))
        told = contract_dry_run(here, file, against=None)
        assert told.text == ("dp-1: would have refused round 3", "3 of 4 recorded decisions as before")
        compared = contract_diff(here, agreed.digest, str(file))
        assert compared.text == ("dp-1 TIGHTER epsilon_total 8 -> 3", "NO LOOSER")
        assert compared.exit_code == 0
        with pytest.raises(AnsweredError):
            contract_diff(here, "sha256:" + "0" * 64, str(file))


# --- at home ---


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def test_a_node_tries_a_proposal_on_its_own_rounds_at_home(world: World) -> None:
    for number in (1, 2, 3):
        world.ask(round=number)
    spent = world.contract.document
    spent["recipes"][0]["max_rounds"] = 2
    with contextlib.closing(world.outbox()) as outbox:
        told = dry_run_at_home(outbox, world.shelf(), from_tree(spent).canonical.decode())
        assert told.text == ("recipe-1: would have refused round 3", "2 of 3 recorded decisions as before")
        same = dry_run_at_home(
            outbox, world.shelf(), world.contract.canonical.decode(), against=world.contract.digest
        )
        assert same.text == ("3 of 3 recorded decisions as before",)
        other = dry_run_at_home(
            outbox, world.shelf(), world.contract.canonical.decode(), against="sha256:" + "0" * 64
        )
        assert other.data["records"] == 0
