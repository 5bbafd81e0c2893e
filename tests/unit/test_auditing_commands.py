# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker audit`` and ``auditor`` before a broker that answers: from letting one in to erasing a value."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from broker.auditing import authority
from broker.cli import app
from broker.commands import Where
from broker.commands import audit as commands_audit
from broker.remote import OperatorClient, Target
from policies.encoding import canonical
from policies.identity import SigningKey, key_text
from policies.log.bundle import unpack
from policies.log.cosignature import cosigner_vkey
from policies.log.witness_keys import seal_statement
from tests.auditorsim import AuditorSim
from tests.brokersim import ORIGIN, URL, SeedEntropy, operator_key
from tests.nodehouse import Street, open_street
from tests.tsasim import TsaSim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

AUDITOR = SigningKey.from_seed(hashlib.sha256(b"auditor ernst").digest())


@dataclass
class Desk:
    """An operator at a terminal; as an auditor, where `key` is changed."""

    street: Street
    folder: Path
    key: SigningKey
    transport: httpx.BaseTransport

    def command(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    def told(self, *words: str) -> dict[str, Any]:
        done = self.command(*words, "--json")
        assert done.exit_code == 0, done.stderr
        return dict(json.loads(done.stdout)["data"])

    def let_in(self) -> str:
        """The auditor with a whole grant; its id."""
        self.told("auditor", "add", "ernst", "--auditor-key", key_text(AUDITOR.public))
        return str(self.told("audit", "grant", "ernst", "--fields", "*")["grant"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch) -> Iterator[Desk]:
    with open_street(tmp_path / "broker") as street:
        made = Desk(street, tmp_path, operator_key("alice"), street.transport)
        entropy = SeedEntropy(b"audit desk")

        def client(_where: Where) -> OperatorClient:
            target = Target(url=URL, certificate="")
            clock = street.house.clock
            return OperatorClient(
                target, key=made.key, clock=clock, entropy=entropy, transport=made.transport
            )

        monkeypatch.setattr(Where, "client", client)
        yield made


def test_an_auditor_is_let_in_shown_something_and_put_out(desk: Desk):
    grant = desk.let_in()
    (listed,) = desk.told("audit", "grants")["grants"]
    assert (listed["grant"], listed["fields"], listed["until"]) == (grant, None, None)
    shown = desk.command("audit", "grants").stderr
    assert "every field" in shown
    desk.told("audit", "grant", "ernst", "--fields", "at, key", "--days", "7", "--from", "3")
    desk.key = AUDITOR
    page = desk.told("audit", "disclosures")
    assert {"at", "key"} <= {one["field"] for one in page["disclosures"]}
    lines = desk.command("audit", "disclosures").stdout.splitlines()
    assert {json.loads(one)["index"] for one in lines} >= {one["index"] for one in page["disclosures"]}
    desk.key = operator_key("alice")
    assert "over" in desk.command("audit", "revoke", grant).stderr
    done = desk.told("auditor", "revoke", "ernst")
    assert done == {"name": "ernst", "grants_ended": 1, "votes_on": None}
    assert "revoked" in desk.command("auditor", "list").stderr
    desk.key = AUDITOR
    assert desk.command("audit", "disclosures").exit_code == 6


def test_operators_and_auditors_take_a_bundle_each_with_their_own_key(desk: Desk):
    desk.let_in()
    for name, words in (("all.zip", ()), ("signed.zip", ("--signed",))):
        taken = desk.told("audit", "bundle", "--out", str(desk.folder / name), *words)
        assert (desk.folder / name).stat().st_size == taken["size_bytes"]
        assert taken["head"]["size"] > 2
        assert taken["head"]["quorum"] is None
    desk.key = AUDITOR
    out = desk.folder / "mine.zip"
    desk.told("audit", "bundle", "--out", str(out), "--as-auditor", "--since", "2")
    assert json.loads(unpack(out.read_bytes())["BUNDLE"])["grade"] == "auditor"
    again = desk.command("audit", "bundle", "--out", str(out), "--as-auditor")
    assert (again.exit_code, out.exists()) == (2, True)
    refused = desk.command("audit", "bundle", "--out", str(desk.folder / "no.zip"))
    assert (refused.exit_code, (desk.folder / "no.zip").exists()) == (6, False)
    assert " --as-auditor" in refused.stderr


def test_a_download_that_breaks_off_or_finds_no_room_leaves_no_file(desk: Desk):
    out = desk.folder / "half.zip"

    def half(request: httpx.Request) -> httpx.Response:
        def pieces() -> Iterator[bytes]:
            yield b"PK"
            raise httpx.ReadError("gone", request=request)

        return httpx.Response(200, content=pieces())

    desk.transport = httpx.MockTransport(half)
    assert desk.command("audit", "bundle", "--out", str(out)).exit_code == 5
    assert not out.exists()
    desk.transport = desk.street.transport
    nowhere = desk.command("audit", "bundle", "--out", str(desk.folder / "nowhere" / "x.zip"))
    assert (nowhere.exit_code, "broker.file" in nowhere.stderr) == (2, True)


def test_a_reason_of_another_form_is_told_the_form(desk: Desk):
    done = desk.command("audit", "erase", "--index", "1", "--field", "at", "--reason", "They asked")
    assert done.exit_code != 0
    assert "reason: has to be a code of lower-case words, such as" in done.stderr


def test_a_value_is_erased_and_the_operator_hears_what_is_left_to_do(desk: Desk):
    done = desk.command("audit", "erase", "--index", "1", "--field", "at", "--reason", "request")
    assert done.exit_code == 0, done.stderr
    assert "backups of private.db" in done.stderr
    again = desk.command("audit", "erase", "--index", "1", "--field", "at", "--reason", "request")
    assert (again.exit_code, "audit.already-erased" in again.stderr) == (3, True)


def test_an_auditors_witness_is_registered_by_an_operator_and_votes_once_another_one_approved(desk: Desk):
    held = SigningKey.from_seed(bytes(31) + b"w")
    witness = cosigner_vkey(held, "ernst/witness")
    sealed = seal_statement(AUDITOR, witness=held, log=ORIGIN, org="ernst", vkey=witness.text(), time_ms=0)
    path = desk.folder / "witness.json"
    path.write_bytes(sealed.to_bytes())
    nobody = desk.command("auditor", "witness", str(path))
    assert (nobody.exit_code, " NAME --auditor-key" in nobody.stderr) == (2, True)
    desk.let_in()
    made = desk.command("auditor", "witness", str(path))
    assert "iriai-broker proposal approve " in made.stderr
    done = desk.told("auditor", "witness", str(path))  # the same again is the same proposal
    assert (done["owner"], done["news"], done["votes"]) == ("ernst", False, False)
    assert f" {done['proposal']['id']} --key FILE" in made.stderr
    assert witness.text() not in desk.told("audit", "policy")["policy"]
    assert desk.street.run(desk.street.house.bob.agree(done["proposal"])).status_code == 200
    assert witness.text() in desk.told("audit", "policy")["policy"]
    assert desk.told("auditor", "witness", str(path))["votes"]
    revoked = desk.command("auditor", "revoke", "ernst").stderr
    assert "votes on; next: iriai-broker witness remove " in revoked
    assert " ernst/witness" in revoked
    assert desk.command("auditor", "witness", str(desk.folder / "none")).exit_code == 2


def test_a_conclusion_is_handed_in_from_a_file(desk: Desk):
    desk.let_in()
    envelope = AuditorSim(desk.street.house).conclusion()
    file = desk.folder / "conclusion.json"
    file.write_bytes(canonical(envelope.to_json()))
    desk.key = AUDITOR
    index = desk.told("audit", "conclude", str(file))["index"]
    assert index == desk.street.house.services.writer.head().size - 1
    missing = desk.command("audit", "conclude", str(desk.folder / "none.json"))
    assert (missing.exit_code, "broker.usage" in missing.stderr) == (2, True)
    file.write_bytes(b"{")
    assert desk.command("audit", "conclude", str(file)).exit_code != 0


def test_the_newest_checkpoint_is_stamped_and_the_token_is_in_the_next_bundle(desk: Desk, monkeypatch):
    pytest.importorskip("rfc3161_client", reason="the extra rfc3161 is not installed")
    tsa = TsaSim(now_ms=desk.street.house.clock.ms)
    stamped = functools.partial(authority.stamped, transport=tsa.transport)
    monkeypatch.setattr(commands_audit, "stamped", stamped)
    pem = desk.folder / "tsa.pem"
    pem.write_bytes(tsa.pem)
    size = desk.street.house.services.writer.head().size
    words = ("audit", "timestamp", "--tsa", "http://tsa.example", "--tsa-ca", str(pem))
    assert desk.told(*words)["size"] == size
    out = desk.folder / "stamped.zip"
    desk.told("audit", "bundle", "--out", str(out))
    files = unpack(out.read_bytes())
    assert f"timestamps/{size}.tsr" in files
    tsa.imprint = b"\0" * 32
    lied = desk.command(*words)
    assert (lied.exit_code, "audit.timestamp-invalid" in lied.stderr) == (3, True)
    assert desk.command(*words[:-1], str(desk.folder / "none.pem")).exit_code == 2
