# SPDX-License-Identifier: Apache-2.0
"""Commands that a message proposes can be typed as they stand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from broker.answers import Result
from broker.cli import app as broker_app
from broker.cli import options as broker_options
from client.answers import Answer
from client.cli import app as node_app
from client.cli.options import command, end, group
from client.errors import UsageError
from client.page.typed import typed
from client.page.values import Command, Empty, Link, Panel, Problem, Screen, Spoken, msg
from client.settings import Home
from policies.command_lines import Given, Tree, completed, typeable

if TYPE_CHECKING:
    from broker.commands import Where

NODE = Tree.of("iriai-node", typer.main.get_command(node_app))
BROKER = Tree.of("iriai-broker", typer.main.get_command(broker_app))
HERE = [Given(values={"--dir": "my iber"}, enough=frozenset({"--config"}))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iriai-node doctor", "iriai-node doctor --dir 'my iber'"),
        (
            "next: iriai-node data check pick --page q.html",
            "next: iriai-node data check --dir 'my iber' pick --page q.html",
        ),
        ("`iriai-node run`; iriai-node status", "`iriai-node run --dir 'my iber'`; iriai-node status --dir 'my iber'"),
        ("iriai-node init --dir other; again", "iriai-node init --dir other; again"),
        ("iriai-node run --config n.toml", "iriai-node run --config n.toml"),
        ("iriai-node data pick, iriai-nodes run, my-iriai-node run", "iriai-node data pick, iriai-nodes run, my-iriai-node run"),
        ("iriai-broker org list", "iriai-broker org list"),
        ("iriai-node contract list.", "iriai-node contract list --dir 'my iber'."),
    ],
)  # fmt: skip
def test_a_line_gets_the_folder_that_was_named_unless_it_names_one(text, expected):
    assert typeable(text, NODE, HERE) == expected


def test_a_command_that_does_not_take_an_option_does_not_get_it():
    given = [Given(values={"--dir": "b"}), Given(values={"--key": "k"}, takes=frozenset({"--url"}))]
    assert typeable("iriai-broker serve", BROKER, given) == "iriai-broker serve --dir b"
    assert typeable("iriai-broker openapi", BROKER, given) == "iriai-broker openapi"
    assert typeable("iriai-broker org list", BROKER, given) == "iriai-broker org list --dir b --key k"


def test_only_what_is_proposed_is_completed_in_data():
    told = completed(
        {"next": ["iriai-node doctor"], "title": "iriai-node doctor", "rows": [{"fix": "iriai-node run", "n": 1}]},
        lambda text: typeable(text, NODE, HERE),
    )  # fmt: skip
    assert told["next"] == ["iriai-node doctor --dir 'my iber'"]
    assert told["title"] == "iriai-node doctor"
    assert told["rows"] == [{"fix": "iriai-node run --dir 'my iber'", "n": 1}]


def _node_app() -> typer.Typer:
    made = group("A program with one command, and another that is proposed.")

    @command(made, "add")
    def add(home: Home, *, fail: bool = False) -> Answer:
        """Adds."""
        if fail:
            raise UsageError(need="more", found=str(home.root), remedy="iriai-node check")
        return Answer(data={"next": "iriai-node check"}, text=("next: iriai-node check pick",))

    @command(made, "check")
    def check(home: Home) -> Answer:
        """Checks."""
        return Answer(data={}, text=(str(home.root),))

    return made


def test_a_node_command_proposes_what_can_be_typed(tmp_path):
    where, run = ["--dir", str(tmp_path / "a b")], CliRunner().invoke
    named = shlex.join(where)
    assert run(_node_app(), ["add", *where]).stderr == f"next: iriai-node check {named} pick\n"
    assert f'"next": "iriai-node check {named}"' in run(_node_app(), ["add", *where, "--json"]).stdout
    assert f"remedy: iriai-node check {named}\n" in run(_node_app(), ["add", "--fail", *where]).stderr
    assert run(_node_app(), ["add"]).stderr == "next: iriai-node check pick\n"


def test_a_broker_command_proposes_broker_and_key_and_says_where_one_has_to_be_filled_in(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(broker_options, "place_of", lambda one, two: one or two)
    made = broker_options.typer_group("A program.")
    lines = (
        "next: iriai-broker ask x",
        "next: iriai-broker serve",
        "a second person: iriai-broker ask x --dir DIR --key FILE",
    )
    said = Result(data={}, text=lines)

    @broker_options.command(made, "ask")
    def ask(where: Where) -> Result:
        """Asks."""
        return said

    @broker_options.command(made, "serve")
    def serve(directory: broker_options.Home) -> Result:
        """Serves."""
        return said

    run = CliRunner().invoke
    assert run(made, ["ask", "--dir", "b", "--key", "k"]).stderr.splitlines() == [
        "next: iriai-broker ask --dir b --key k x",
        "next: iriai-broker serve --dir b",
        "a second person: iriai-broker ask --dir b x --key FILE",
    ]
    url = ["--url", "https://b.example", "--tls-sha256", "00"]
    assert run(made, ["ask", *url, "--key", "k"]).stderr.splitlines()[:2] == [
        "next: iriai-broker ask --url https://b.example --tls-sha256 00 --key k x",
        "next: iriai-broker serve",
    ]
    assert run(made, ["serve", "--dir", "b"]).stderr.splitlines()[0] == (
        "next: iriai-broker ask --dir b --key FILE x"
    )
    assert run(made, ["ask"]).stderr.splitlines()[0] == "next: iriai-broker ask --dir DIR --key FILE x"


def test_a_screen_of_the_node_shows_commands_that_can_be_typed():
    panel = Panel(
        name="p",
        title=msg("Data"),
        empty=Empty(msg("Data"), msg("none {x}", x=Spoken("iriai-node run")), Command("iriai-node doctor")),
        problem=Problem("c", "n", "f", "iriai-node doctor"),
        links=(Link("/", msg("Home"), {"a": "b"}),),
    )
    screen = Screen(name="s", title=msg("T"), question=msg("Q"), command="iriai-node status", panels=(panel,))
    shown = typed(screen, lambda text: typeable(text, NODE, HERE))
    assert shown.command == "iriai-node status --dir 'my iber'"
    assert shown.panels[0].empty.next == Command("iriai-node doctor --dir 'my iber'")
    assert shown.panels[0].problem.remedy == "iriai-node doctor --dir 'my iber'"
    assert shown.panels[0].empty.why.values["x"] == Spoken("iriai-node run --dir 'my iber'")
    assert shown.panels[0].links == panel.links
    assert typed(screen, str) is screen


def test_a_line_outside_of_a_command_stays_as_it_is(capsys):
    with pytest.raises(typer.Exit):
        end(lambda: Answer(data={}, text=("iriai-node doctor",)), as_json=False)
    assert capsys.readouterr().err == "iriai-node doctor\n"
