# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker proposal`` and ``iriai-broker org`` before a broker that answers: two people at two terminals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.commands import Where
from broker.remote import OperatorClient, Target
from tests.brokersim import RECIPE, URL, NodeSim, SeedEntropy, draft, operator_key, pool
from tests.nodehouse import Street, open_street

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from policies.contract import Contract


@dataclass
class Desk:
    """Two operators, each at a terminal, and a member."""

    street: Street
    folder: Path
    kita: NodeSim
    name: str = "alice"

    def command(self, *words: str, by: str = "alice") -> Result:
        self.name = by
        return CliRunner().invoke(app, list(words))

    def told(self, *words: str, by: str = "alice") -> dict[str, Any]:
        done = self.command(*words, "--json", by=by)
        assert done.exit_code == 0, done.stderr
        return dict(json.loads(done.stdout)["data"])

    def state(self) -> str:
        return self.street.house.services.directory.member(self.kita.org).state


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with open_street(tmp_path / "broker") as street:
        street.house.second_person = False
        (kita,) = street.run(pool(street.house, "kita"))
        one = Desk(street, tmp_path, kita)
        entropy = SeedEntropy(b"proposal desk")

        def client(where: Where) -> OperatorClient:
            return OperatorClient(
                Target(url=URL, certificate=""),
                key=operator_key(one.name),
                clock=street.house.clock,
                entropy=entropy,
                transport=street.transport,
                dry_run=where.dry_run,
            )

        monkeypatch.setattr(Where, "client", client)
        yield one


def test_a_membership_ends_by_two_people_at_two_terminals(desk: Desk):
    proposed = desk.command("org", "remove", desk.kita.org, "--reason", "key-lost")
    assert proposed.exit_code == 0, proposed.stderr
    name = proposed.stdout.strip()
    assert "nothing was done yet" in proposed.stderr
    assert desk.state() == "active"
    listed = desk.command("proposal", "list", by="bob")
    assert name in listed.stderr
    assert "org.remove" in listed.stderr
    shown = desk.told("proposal", "show", name, by="bob")
    asked = desk.command("proposal", "approve", name, by="bob")
    assert asked.exit_code == 7
    assert "broker.not-confirmed" in asked.stderr
    for words in ("Kita GmbH", shown["digest"], desk.kita.org, "key-lost"):
        assert words in asked.stderr
    wrong = desk.command("proposal", "approve", name, "--digest", "sha256:" + "0" * 64, by="bob")
    assert (wrong.exit_code, desk.state()) == (3, "active")
    assert "proposal.digest" in wrong.stderr
    own = desk.command("proposal", "approve", name, "--yes", by="alice")
    assert own.exit_code == 4
    assert "proposal.own" in own.stderr
    done = desk.told("proposal", "approve", name, "--digest", shown["digest"], by="bob")
    assert (done["proposal"]["state"], done["result"]["state"], desk.state()) == (
        "approved",
        "revoked",
        "revoked",
    )
    repeated = desk.command("proposal", "approve", name, "--yes", by="bob")
    assert (repeated.exit_code, "proposal.closed" in repeated.stderr) == (3, True)
    assert "remedy: nothing is left to do" in repeated.stderr
    assert desk.told("proposal", "list")["proposals"] == []
    assert [one["id"] for one in desk.told("proposal", "list", "--all")["proposals"]] == [name]


def test_a_proposal_that_somebody_refuses_is_over(desk: Desk):
    name = desk.command("org", "remove", desk.kita.org).stdout.strip()
    refused = desk.told("proposal", "refuse", name, "--reason", "not-agreed", by="bob")
    assert refused["proposal"]["state"] == "refused"
    late = desk.command("proposal", "approve", name, "--yes", by="bob")
    assert (late.exit_code, desk.state()) == (3, "active")
    assert "remedy: propose it again" in late.stderr
    assert "not-agreed" in desk.command("proposal", "show", name).stderr


def test_one_operator_suspends_and_two_let_in_again(desk: Desk):
    told = desk.command("org", "suspend", desk.kita.org, "--yes")
    assert told.exit_code == 0, told.stderr
    assert "restore" in told.stderr
    assert desk.state() == "suspended"
    assert "suspended" in desk.command("org", "show", desk.kita.org).stderr
    name = desk.command("org", "restore", desk.kita.org).stdout.strip()
    assert desk.told("proposal", "approve", name, "--yes", by="bob")["result"]["state"] == "active"
    assert desk.state() == "active"
    assert desk.command("org", "show", "org_" + "a" * 16).exit_code == 2


def _offer(desk: Desk) -> tuple[Contract, list[NodeSim], Result]:
    nodes = [desk.kita, *desk.street.run(pool(desk.street.house, "nord", "iber"))]
    contract = draft(desk.street.house, nodes)
    text, recipe = desk.folder / "contract.json", desk.folder / "recipe.json"
    text.write_bytes(contract.canonical)
    recipe.write_bytes(RECIPE)
    return contract, nodes, desk.command("contract", "offer", str(text), "--recipe", str(recipe))


def test_a_contract_says_that_its_second_person_is_missing_until_it_is_not(desk: Desk):
    contract, nodes, offered = _offer(desk)
    assert offered.stdout.strip() == contract.digest
    (waiting,) = desk.told("proposal", "list")["proposals"]
    for text in (offered.stderr, desk.command("contract", "list").stderr):
        assert f" {waiting['id']} --key FILE" in text
    for step in ("accept", "verify"):
        for node in nodes:
            assert desk.street.run(getattr(node, step)(contract)).status_code == 200
    (row,) = desk.told("contract", "list")["contracts"]
    assert (row["state"], row["approved"], row["waiting_for"]) == ("offered", False, [contract.broker.party])
    shown = desk.command("contract", "show", contract.digest)
    assert "not yet by the broker's second person" in shown.stderr
    assert "legal_name" in desk.command("proposal", "show", waiting["id"]).stderr
    done = desk.told("proposal", "approve", waiting["id"], "--yes", by="bob")
    assert done["result"]["state"] == "finalized"
    (row,) = desk.told("contract", "list")["contracts"]
    assert (row["state"], row["approved"], row["waiting_for"], row["proposal"]) == (
        "finalized",
        True,
        [],
        None,
    )


def test_a_contract_approved_before_the_last_signature_is_said_to_be_final_later_and_in_short(desk: Desk):
    contract, _, _ = _offer(desk)
    (waiting,) = desk.told("proposal", "list")["proposals"]
    done = desk.command("proposal", "approve", waiting["id"], "--yes", by="bob")
    assert done.exit_code == 0, done.stderr
    assert f"{waiting['id']}: approved; final once all have signed" in done.stderr
    assert "contract.activate is done" not in done.stderr
    for words in (contract.title, waiting["digest"], f"iriai-broker proposal show {waiting['id']}"):
        assert words in done.stderr
    assert "legal_name" not in done.stderr


def test_a_broker_that_shows_other_words_than_its_bytes_gets_no_signature(desk: Desk, monkeypatch):
    """What a person reads is what they sign, or nothing is signed."""
    name = desk.command("org", "remove", desk.kita.org).stdout.strip()
    honest = OperatorClient.get

    def lying(client: OperatorClient, path: str) -> Any:
        found = honest(client, path)
        return (
            found | {"what": found["what"] | {"legal_name": "Another GmbH"}} if path.endswith(name) else found
        )

    monkeypatch.setattr(OperatorClient, "get", lying)
    done = desk.command("proposal", "approve", name, "--yes", by="bob")
    assert (done.exit_code, desk.state()) == (2, "active")
    monkeypatch.setattr(OperatorClient, "get", honest)
    assert desk.command("proposal", "approve", name, "--yes", by="bob").exit_code == 0


def test_a_dry_run_proposes_nothing(desk: Desk):
    done = desk.command("org", "remove", desk.kita.org, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "nothing was changed" in done.stderr
    assert desk.told("proposal", "list", "--all")["proposals"] == []
