# SPDX-License-Identifier: Apache-2.0
"""The reference pages say everything that the code has, and nothing else. Planted: what nobody documented."""

from __future__ import annotations

import dataclasses
import difflib
import shutil
from enum import StrEnum

import pytest
from fastapi import APIRouter

from tests.docs import facts, generate
from tests.docs.facts import ROOT, typer


def page(name: str) -> str:
    return (ROOT / "docs/reference" / name).read_text("utf-8")


def undocumented(names, text: str) -> list[str]:
    """Names that no page shows in code quotes or as a heading."""
    return [name for name in names if f"`{name}`" not in text and f"### {name}\n" not in text]


# --- the pages are those of this code ---


def test_everything_in_the_code_has_its_words():
    assert generate.missing_words() == []


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_a_page_is_the_one_that_the_code_gives(name):
    made = generate.PAGES[name]()
    lines = difflib.unified_diff(
        page(name).splitlines(), made.splitlines(), "docs/reference", "the code", n=0, lineterm=""
    )
    changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    assert changed == [], "run: python tests/docs/generate.py"


def test_every_code_is_documented():
    assert undocumented({one.code for one in facts.errors()}, page("errors.md")) == []


def test_every_command_is_documented():
    assert undocumented([one.line for one in facts.commands()], page("cli.md")) == []


def test_every_route_is_documented():
    text = page("http-api.md")
    assert undocumented([one.path for one in facts.routes()], text) == []
    assert len(facts.fleet_operations()) == 9
    assert undocumented([f"/v1/fleet/{one}" for one in facts.fleet_operations()], text) == []


def test_every_entry_type_is_documented():
    from policies.log.schema import EntryType

    assert undocumented([str(one) for one in EntryType], page("entries.md")) == []


def test_every_setting_and_every_environment_variable_is_documented():
    text = page("settings.md")
    assert undocumented([one.name for one in facts.settings()], text) == []
    assert undocumented(facts.environment_names(), text) == []


def test_every_bound_is_documented():
    names = [one.name for one in facts.bounds()]
    source = (ROOT / "policies/limits.py").read_text("utf-8")
    assert len(names) == source.count(": Final = ")
    assert undocumented(names, page("settings.md")) == []


def test_the_types_that_are_written_are_found():
    """The two tables of entries.md rest on this search: what a whole run leaves in a log is in it."""
    from policies.log.schema import EntryType

    written = facts.written_types()
    assert written <= {str(one) for one in EntryType}
    assert {
        "log.genesis",
        "contract.signed",
        "epsilon.spent",
        "vote.cast",
        "model.released",
        "export.audit_bundle",
    } <= written


# --- planted ---


@pytest.fixture
def tree(tmp_path):
    """The sources that a planted file needs."""
    for file in ("broker/errors.py", "policies/errors.py"):
        (tmp_path / file).parent.mkdir()
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_a_planted_code_is_named(tree):
    (tree / "broker/planted.py").write_text(
        "# SPDX-License-Identifier: Apache-2.0\n"
        "from broker.errors import BrokerError as Above\n\n\n"
        'class PlantedError(Above):\n    """Planted."""\n\n    code = "broker.planted"\n',
        "utf-8",
    )
    codes = {one.code for one in facts.errors(tree)}
    assert undocumented(codes, page("errors.md")) == ["broker.planted"]
    lacking = generate.missing_words({**generate.words(), "remedies": {}})
    assert "internal.invariant: no words in [remedies]" in lacking


def test_a_planted_command_is_named():
    from client.cli import app

    planted = typer.Typer()
    planted.command("planted")(lambda: None)
    planted.command("other")(lambda: None)
    found = [*facts.click_commands("iriai-node", app), *facts.click_commands("iriai-node", planted)]
    assert undocumented([one.line for one in found], page("cli.md")) == [
        "iriai-node planted",
        "iriai-node other",
    ]


def test_a_planted_route_is_named_and_has_no_role():
    planted = APIRouter()

    @planted.get("/planted")
    async def one() -> None:
        """Planted."""

    found = facts.routes([*facts.routers(), planted])
    assert undocumented([route.path for route in found], page("http-api.md")) == ["/api/v1/planted"]
    assert found[-1].role == "UNKNOWN"


def test_a_planted_entry_type_is_named():
    class Planted(StrEnum):
        ONE = "planted.happened"

    assert undocumented([str(one) for one in Planted], page("entries.md")) == ["planted.happened"]


def test_a_planted_setting_is_named():
    from client.settings import NodeSettings

    planted = dataclasses.make_dataclass(
        "Planted", [("planted_s", int, 3)], bases=(NodeSettings,), frozen=True, kw_only=True
    )
    found = facts._settings("node.toml", "", planted, skip={"local"})
    assert undocumented([one.name for one in found], page("settings.md")) == ["planted_s"]


def test_a_planted_environment_variable_is_named(tree):
    (tree / "broker/planted.py").write_text('import os\n\nos.environ.get("IRIAI_PLANTED")\n', "utf-8")
    assert undocumented(facts.environment_names(tree), page("settings.md")) == ["IRIAI_PLANTED"]


def test_what_left_the_code_is_named():
    said = generate.words()
    said["remedies"]["gone.away"] = "x"
    assert generate.missing_words(said) == ["gone.away: words in [remedies], but nothing in the code"]
