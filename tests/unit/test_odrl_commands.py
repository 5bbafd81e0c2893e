# SPDX-License-Identifier: Apache-2.0
"""``contract export``, ``contract import`` and ``dsp counterparty``: with a broker that answers, and without one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.commands import Where
from broker.commands import dsp as dsp_work
from broker.commands import odrl as work
from broker.errors import AnsweredError, UnreachableError, UsageError
from broker.remote import OperatorClient, Target
from policies.contract.errors import NotExecutedError, OdrlRefusedError, ViewDisagreesError
from policies.contract.odrl import export
from tests.brokersim import URL, SeedEntropy, operator_key
from tests.connectorsim import made_once
from tests.contractsim import contract
from tests.dspsim import CATENAX
from tests.nodehouse import Street, open_street

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Here(Where):
    """The broker of a street, without a network."""

    street: Street
    entropy = SeedEntropy(b"odrl desk")

    def client(self) -> OperatorClient:
        return OperatorClient(
            Target(url=URL, certificate=""),
            key=operator_key("alice"),
            clock=self.street.house.clock,
            entropy=self.entropy,
            transport=self.street.transport,
        )


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    source, _, _ = made_once()
    shutil.copytree(source, tmp_path / "broker")
    with (tmp_path / "broker/broker.toml").open("a", encoding="utf-8") as file:
        file.write("dsp.enabled = true\n")
    with open_street(tmp_path / "broker") as one:
        yield one


@pytest.fixture
def here(street: Street) -> Where:
    found = type("HereNow", (Here,), {"street": street})
    return found(directory=None, url=None, tls_sha256=None, key=None)


def written(path: Path, tree: object) -> Path:
    path.write_text(json.dumps(tree), "utf-8")
    return path


def test_an_export_is_one_file_for_each_policy_and_comes_back(here, tmp_path):
    final = made_once()[1]
    done = work.contract_export(here, final.digest, form="odrl", out=tmp_path / "view")
    assert done.data["counts"] == {"ContractAgreementMessage": 6, "ContractOfferMessage": 1}
    assert sorted(one.name for one in (tmp_path / "view").iterdir()) == sorted(done.data["files"])
    for name in done.data["files"]:
        back = work.contract_import(here, tmp_path / "view" / name)
        assert (back.plain_output, back.data["compared"]) == (final.digest, True)
        assert back.data["policies"][0]["terms"]
    with pytest.raises(UsageError):
        work.contract_export(here, final.digest, form="odrl", out=tmp_path / "view")
    with pytest.raises(UsageError):
        work.contract_export(here, final.digest, form="yaml", out=None)


def test_a_text_that_is_not_final_is_not_exported_as_agreements(here, tmp_path):
    draft = made_once()[2]
    with pytest.raises(NotExecutedError) as refused:
        work.contract_export(here, draft.digest, form="odrl", out=tmp_path / "view")
    assert refused.value.found == f"{draft.digest}: offered"
    assert not (tmp_path / "view").exists()


def test_an_export_to_standard_output_is_a_bundle_that_imports(here, tmp_path):
    final = made_once()[1]
    done = work.contract_export(here, final.digest, form="odrl", out=None)
    bundle = tmp_path / "bundle.json"
    bundle.write_text(str(done.plain_output), "utf-8")
    back = work.contract_import(here, bundle)
    assert len(back.data["policies"]) == 7
    assert back.text[-1] == "every policy says what the contract says"


def test_a_policy_that_the_brokers_contract_does_not_say_is_refused(here, tmp_path):
    message = export(made_once()[1])[0]
    message["agreement"]["permission"][0]["constraint"].pop()
    with pytest.raises(ViewDisagreesError):
        work.contract_import(here, written(tmp_path / "x.json", message))
    with pytest.raises(AnsweredError):
        work.contract_import(here, written(tmp_path / "y.json", export(contract())[0]))


def test_a_broker_that_gives_another_contract_is_not_believed(here, monkeypatch):
    class Liar:
        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

        def get_bytes(self, _path):
            return contract().canonical

    monkeypatch.setattr(type(here), "client", lambda _self: Liar())
    with pytest.raises(UnreachableError):
        work.contract_export(here, made_once()[1].digest, form="odrl", out=None)


def test_an_import_needs_no_broker_and_says_that_nothing_was_compared(tmp_path):
    file = written(tmp_path / "bundle.json", export(contract()))
    done = CliRunner().invoke(app, ["contract", "import", str(file)])
    assert (done.exit_code, done.stdout.strip()) == (0, contract().digest)
    assert "nothing was compared" in done.stderr
    told = json.loads(CliRunner().invoke(app, ["contract", "import", str(file), "--json"]).stdout)["data"]
    assert told["compared"] is False
    assert len(told["policies"]) == 15
    assert told["policies"][0]["terms"][0] == {
        "rule": "permission",
        "action": "iriai:train",
        "clause": "party-hanbit",
        "left": "iriai:key",
        "operator": "eq",
        "value": contract().party("hanbit").key,
    }


def test_a_foreign_policy_is_refused_by_path_and_nothing_is_printed(tmp_path):
    message = export(contract())[0]
    message["agreement"]["permission"][0] |= {"action": "nuke", "duty": []}
    done = CliRunner().invoke(app, ["contract", "import", str(written(tmp_path / "x.json", message))])
    assert (done.exit_code, done.stdout) == (3, "")
    assert "contract.odrl-refused" in done.stderr
    assert "agreement.permission[0].action: nuke" in done.stderr
    assert "agreement.permission[0].duty: duty" in done.stderr


@pytest.mark.parametrize("data", [b"\xff", b"{", b"[]", b"[1]", b'{"a":1,"a":1}'])
def test_a_file_that_holds_no_policy_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    done = CliRunner().invoke(app, ["contract", "import", str(tmp_path / "x.json")])
    assert done.exit_code == 3
    assert done.stdout == ""


def test_a_file_that_is_not_there_is_named(tmp_path):
    done = CliRunner().invoke(app, ["contract", "import", str(tmp_path / "nothing.json")])
    assert done.exit_code == 2


def test_a_catenax_policy_is_only_listed(tmp_path):
    file = written(tmp_path / "cx.json", CATENAX)
    done = CliRunner().invoke(app, ["contract", "import", str(file), "--catenax"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "3 of 7 have a kind of clause" in done.stderr
    told = json.loads(
        CliRunner().invoke(app, ["contract", "import", str(file), "--catenax", "--json"]).stdout
    )
    assert (told["data"]["maps"], told["data"]["does_not_map"]) == (3, 4)
    with pytest.raises(OdrlRefusedError):
        work.contract_import(None, file)


def test_a_connector_is_registered_listed_and_removed(here):
    made = dsp_work.counterparty_add(
        here, "acme", callback="https://acme.example/dsp", participant=None, org=None
    )
    assert made.plain_output is not None
    assert made.plain_output.startswith("dsp_")
    assert len(made.plain_output) == 47
    shown = dsp_work.counterparty_list(here)
    assert "acme" in shown.text[1]
    assert made.plain_output not in str(shown)
    assert dsp_work.counterparty_remove(here, "acme").data["state"] == "removed"
    with pytest.raises(AnsweredError) as refused:
        dsp_work.counterparty_add(here, "x", callback="http://x.example", participant=None, org=None)
    assert refused.value.code == "dsp.callback-invalid"


def test_the_commands_of_connectors_are_these():
    for line in ("add", "list", "remove"):
        done = CliRunner().invoke(app, ["dsp", "counterparty", line, "--help"])
        assert done.exit_code == 0
    done = CliRunner().invoke(app, ["dsp", "counterparty", "list"])
    assert done.exit_code == 6  # no operator key
