# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract offer, list, show, withdraw`` before a broker that answers: who is waited for, and with which text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from broker.cli import app
from broker.commands import Where
from broker.remote import OperatorClient, Target
from policies.contract import Contract, from_tree
from policies.encoding import digest
from tests.brokersim import RECIPE, URL, NodeSim, SeedEntropy, all_sign, draft, operator_key, pool
from tests.contractsim import key
from tests.nodehouse import Street, open_street

PDF = b"%PDF-1.7 the text for people"
PROSE = {
    "clause": "prose-1",
    "media_type": "application/pdf",
    "prevails": True,
    "sha256": digest(PDF).removeprefix("sha256:"),
}


@dataclass
class Desk:
    """An operator at a terminal, and the members."""

    street: Street
    folder: Path
    nodes: list[NodeSim]

    def command(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["contract", *words])

    def told(self, *words: str) -> dict[str, Any]:
        done = self.command(*words, "--json")
        assert done.exit_code == 0, done.stderr
        return dict(json.loads(done.stdout)["data"])

    def write(self, **changes: Any) -> tuple[Contract, list[str]]:
        """A contract in a file, and the words that name it and its recipe."""
        contract = draft(self.street.house, self.nodes, **changes)
        text, recipe = self.folder / "contract.json", self.folder / "recipe.json"
        text.write_bytes(contract.canonical)
        recipe.write_bytes(RECIPE)
        return contract, [str(text), "--recipe", str(recipe)]

    def offer(self, **changes: Any) -> Contract:
        contract, words = self.write(**changes)
        assert self.told("offer", *words)["digest"] == contract.digest
        return contract

    def do(self, work: Any) -> Any:
        return self.street.run(work)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch) -> Iterator[Desk]:
    with open_street(tmp_path / "broker") as street:
        entropy = SeedEntropy(b"contract desk")

        def client(_where: Where) -> OperatorClient:
            return OperatorClient(
                Target(url=URL, certificate=""),
                key=operator_key("alice"),
                clock=street.house.clock,
                entropy=entropy,
                transport=street.transport,
            )

        monkeypatch.setattr(Where, "client", client)
        yield Desk(street, tmp_path, street.run(pool(street.house)))


def short(contract: Contract) -> str:
    return contract.digest.removeprefix("sha256:")[:12]


# --- offer ---


def test_the_text_for_people_goes_along_and_must_be_the_bound_one(desk: Desk):
    contract, words = desk.write(prose=PROSE)
    file = desk.folder / "contract.pdf"
    file.write_bytes(PDF + b"!")
    wrong = desk.command("offer", *words, "--prose", str(file))
    assert wrong.exit_code != 0
    assert "contract.annex-mismatch [clause prose-1]" in wrong.stderr
    assert desk.told("list")["contracts"] == []
    file.write_bytes(PDF)
    done = desk.command("offer", *words, "--prose", str(file))
    assert (done.exit_code, done.stdout.strip()) == (0, contract.digest)
    assert "waiting for  iber, kita, nord" in done.stderr
    assert desk.do(desk.nodes[0].get(f"/contracts/{contract.digest}/prose")).content == PDF


def test_a_text_too_large_to_go_along_is_refused_before_anything_is_sent(desk: Desk):
    _, words = desk.write(prose=PROSE)
    file = desk.folder / "contract.pdf"
    file.write_bytes(bytes(1024 * 1024))
    refused = desk.command("offer", *words, "--prose", str(file))
    assert refused.exit_code == 2
    assert "without --prose" in refused.stderr
    assert desk.told("list")["contracts"] == []


# --- lifecycle ---


def test_the_lifecycle_of_a_terminated_offer_says_when_by_whom_and_why(desk: Desk):
    contract, iber = desk.offer(), next(one for one in desk.nodes if one.name == "iber")
    before = desk.command("lifecycle", short(contract)).stderr
    assert "standing  OFFERED\n" in before
    view = desk.do(iber.view(contract))
    desk.do(iber.say(view, "terminate", code="price-too-high", clause="fees-1", text="Too much."))
    shown = desk.command("lifecycle", short(contract)).stderr
    assert "None" not in shown
    assert "standing  TERMINATED since 20" in shown
    assert f"ended     in round 1 of {view['id']} by iber: price-too-high [fees-1]" in shown
    life = desk.told("lifecycle", short(contract))
    assert life["closed"]["round"] == 1
    assert life["terminated"] is None  # no contract was in force


def test_the_broker_halts_by_a_reason_as_a_node_does(desk: Desk):
    contract = desk.offer()
    refused = desk.command("halt", short(contract), "--reason", "log.disputed")
    assert "contract.not-executed" in refused.stderr
    assert desk.command("halt", short(contract), "--code", "log.disputed").exit_code == 2


def test_a_wrong_key_of_a_member_is_told_as_the_list_of_members_shows_keys(desk: Desk):
    contract, _ = desk.write()
    tree = contract.document
    kita = next(one for one in tree["parties"] if one["party"] == "kita")
    right, kita["key"] = kita["key"], key("somebody else")
    text = desk.folder / "wrong.json"
    text.write_bytes(from_tree(tree).canonical)
    refused = desk.command("offer", str(text), "--recipe", str(desk.folder / "recipe.json"))
    assert "contract.party-mismatch [clause party-kita]" in refused.stderr
    assert f"{kita['org']} has {right}" in refused.stderr
    assert f"found:  {kita['key']}" in refused.stderr


# --- list and show ---


def test_the_list_tells_round_lanes_deadlines_and_who_is_waited_for(desk: Desk):
    contract, kita = desk.offer(), desk.nodes[0]
    desk.do(kita.accept(contract))
    shown = desk.command("list").stderr
    assert f"{contract.digest}  offered  OFFERED   1 " in shown
    (negotiation,) = (one["negotiation"] for one in desk.told("list")["contracts"])
    assert f"{short(contract)}: round 1 of {negotiation}, waiting for iber, nord" in shown
    rows = [line.split() for line in shown.splitlines() if short(contract) in line and "sha256" not in line]
    assert [row[:3] for row in rows[1:]] == [
        ["iber", "OFFERED", short(contract)],
        ["kita", "ACCEPTED", short(contract)],
        ["nord", "OFFERED", short(contract)],
    ]
    assert all(len(row) == 4 and row[3].endswith("Z") for row in rows[1:])


def test_a_counter_offer_begins_a_round_whose_lanes_hold_the_new_text(desk: Desk):
    contract, kita = desk.offer(), desk.nodes[0]
    tree = contract.document
    counter = from_tree(tree | {"privacy": tree["privacy"] | {"epsilon_total": "6"}})
    desk.do(kita.counter(desk.do(kita.view(contract)), counter))
    shown = desk.command("list").stderr
    assert contract.digest not in shown
    assert f"{short(counter)}: round 2 of neg_" in shown
    assert "waiting for iber, kita, nord" in shown
    assert "replaced by a counter-offer" in desk.command("show", contract.digest).stderr
    assert "round 2" in desk.command("show", short(counter)).stderr


def test_a_final_contract_shows_where_it_stands_and_nobody_is_waited_for(desk: Desk):
    contract = desk.offer()
    desk.do(all_sign(desk.nodes, contract))
    shown = desk.command("list").stderr
    assert f"{contract.digest}  finalized  PENDING" in shown
    assert "waiting for" not in shown
    words = desk.command("show", short(contract)).stderr
    assert "standing     PENDING" in words
    assert "waiting for  nobody" in words
    assert words.count("FINALIZED") == 3


def test_other_parties_see_only_the_states_of_each_others_lanes(desk: Desk):
    desk.offer()
    (row,) = desk.do(desk.nodes[0].get("/contracts")).json()["contracts"]
    assert (row["every_lane"], row["round"]) == ([], 1)
    assert row["lanes"] == dict.fromkeys(("iber", "kita", "nord"), "OFFERED")


# --- names ---


@pytest.mark.parametrize(("length", "prefix"), [(12, ""), (12, "sha256:"), (30, ""), (64, "sha256:")])
def test_a_digest_may_be_shortened_to_twelve_digits(desk: Desk, length: int, prefix: str):
    contract = desk.offer()
    name = prefix + contract.digest.removeprefix("sha256:")[:length]
    assert desk.told("show", name)["digest"] == contract.digest
    assert desk.told("diff", name, contract.digest)["new"] == contract.digest


@pytest.mark.parametrize("name", ["fafe", "0" * 12, "sha256:" + "0" * 63, "../operator/runs", "K" * 12])
def test_a_name_that_no_one_contract_has_is_refused(desk: Desk, name: str):
    desk.offer()
    for command in (["show", name], ["withdraw", name, "--reason", "x"], ["lifecycle", name]):
        refused = desk.command(*command)
        assert refused.exit_code == 2, command
        assert "contract list" in refused.stderr


def test_a_shortened_digest_with_which_two_contracts_begin_is_refused():
    from broker.commands.contract_names import whole_digest
    from broker.errors import UsageError

    class Two:
        def get(self, _path: str) -> dict[str, Any]:
            return {"contracts": [{"digest": "sha256:" + "ab" * 31 + last} for last in ("01", "02")]}

    with pytest.raises(UsageError) as refused:
        whole_digest(Two(), "ab" * 6)  # type: ignore[arg-type]  a stand-in for the client
    assert refused.value.found == "2"
    assert whole_digest(Two(), "ab" * 31 + "01").endswith("01")  # type: ignore[arg-type]


def test_a_run_is_opened_and_a_policy_printed_by_a_shortened_digest_too(desk: Desk):
    contract = desk.offer()

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--json"])

    for name in (contract.digest, short(contract), "sha256:" + short(contract)):
        refused = json.loads(run("run", "open", "--contract", name, "--recipe", "none").stdout)["error"]
        assert refused["code"] != "broker.usage"  # the broker was asked, about the whole digest
        policy = json.loads(run("audit", "policy", "--contract", name).stdout)["data"]["policy"]
        assert f"\ncontract {contract.digest}\n" in policy
    for command in (["run", "open", "--recipe", "none"], ["audit", "policy"]):
        assert run(*command, "--contract", "0" * 12).exit_code == 2


# --- withdraw ---


@pytest.mark.parametrize("by", ["negotiation", "digest"])
def test_a_withdrawal_ends_the_round_for_all_with_its_reason(desk: Desk, by: str):
    contract = desk.offer()
    (row,) = desk.told("list")["contracts"]
    name = row["negotiation"] if by == "negotiation" else short(contract)
    done = desk.command(
        "withdraw", name, "--reason", "text.mistaken", "--clause", "dp-1", "--text", "a new one follows"
    )
    assert done.exit_code == 0, done.stderr
    assert "round 1: terminated" in done.stderr
    assert "ended        by the broker, text.mistaken [dp-1]: a new one follows" in done.stderr
    for node in desk.nodes:
        view = desk.do(node.view(contract))
        assert (view["state"], view["closed"]["code"]) == ("terminated", "text.mistaken")
    assert f"{contract.digest}  terminated  TERMINATED" in desk.command("list").stderr
    shown = desk.command("show", contract.digest).stderr
    assert "by the broker, text.mistaken [dp-1]: a new one follows" in shown


def test_what_a_member_ended_before_is_told_with_the_members_reason(desk: Desk):
    contract, kita = desk.offer(), desk.nodes[0]
    desk.do(kita.refuse(contract))
    done = desk.command("withdraw", contract.digest, "--reason", "text.mistaken")
    assert done.exit_code == 0
    assert "by kita, price-too-high" in done.stderr


def test_what_is_final_is_not_withdrawn_and_the_exit_code_says_so(desk: Desk):
    contract = desk.offer()
    desk.do(all_sign(desk.nodes, contract))
    done = desk.command("withdraw", contract.digest, "--reason", "text.mistaken")
    assert done.exit_code == 3
    assert "nothing was withdrawn" in done.stderr
    (row,) = desk.told("list")["contracts"]
    assert row["state"] == "finalized"


def test_a_draft_that_was_replaced_is_not_withdrawn_by_its_digest(desk: Desk):
    contract, kita = desk.offer(), desk.nodes[0]
    tree = contract.document
    counter = from_tree(tree | {"privacy": tree["privacy"] | {"epsilon_total": "6"}})
    desk.do(kita.counter(desk.do(kita.view(contract)), counter))
    refused = desk.command("withdraw", contract.digest, "--reason", "text.mistaken")
    assert refused.exit_code == 2
    assert "counter-offer replaced it" in refused.stderr
    assert desk.do(kita.view(counter))["state"] == "open"


@pytest.mark.parametrize("reason", ["", "Not A Code", "x" * 101])
def test_a_reason_that_is_no_code_ends_nothing(desk: Desk, reason: str):
    contract = desk.offer()
    refused = desk.command("withdraw", contract.digest, "--reason", reason)
    assert refused.exit_code == 3
    assert "negotiation.message-malformed" in refused.stderr
    assert desk.do(desk.nodes[0].view(contract))["state"] == "open"
