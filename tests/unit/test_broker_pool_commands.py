# SPDX-License-Identifier: Apache-2.0
"""Commands about the pool: invitations, nodes, recipes, budgets, witnesses, releases, a run that is watched, entries."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest
import typer
from click.testing import CliRunner

from broker import commands as work
from broker.answers import Result
from broker.cli import app
from broker.commands import watching
from broker.commands.pool import recipe_check
from policies.contract import from_tree
from policies.encoding import digest
from policies.identity import SigningKey, fingerprint, key_text
from policies.log.bundle import join_tile
from sandbox.recipes import private_recipe
from tests.brokersim import HandClock
from tests.contractsim import runnable

PROGRAM = typer.main.get_command(app)
NODE_KEY = SigningKey.from_seed(b"n" * 32).public
MODEL = "sha256:" + "ab" * 32
KITA = {
    "org": "org_aaaaaaaaaaaaaaaa",
    "node": "node_aaaaaaaaaaaaaaaa",
    "state": "active",
    "since_ms": 0,
    "seen_ms": 61_000,
    "online": True,
    "node_key": key_text(NODE_KEY),
    "node_fingerprint": fingerprint(NODE_KEY),
    "legal_name": "Kita \x1b[2J KK",
    "country": "JP",
    "group": "kita",
}


class Wire:
    """A broker's answers without a broker; keeps what was posted."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.posted: list[tuple[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def get(self, path: str) -> Any:
        found = self.answers[path]
        return found.pop(0) if isinstance(found, list) else found

    get_bytes = published = get

    def post(self, path: str, body: Any) -> Any:
        self.posted.append((path, body))
        return self.answers[path]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    one = Wire()
    monkeypatch.setattr(work.Where, "client", lambda _self: one)
    return one


def run(*words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(PROGRAM, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == code, (done.stdout, done.stderr)
    envelope = json.loads(done.stdout)
    return envelope.get("data") or envelope["error"], done.stderr


def test_invitations_are_listed_and_taken_back(wire):
    one = {"id": "inv_a", "state": "open", "legal_name": "Kita KK", "country": "JP", "group": "kita"}
    wire.answers["/operator/invites"] = {"invites": [one | {"expires_ms": 0, "created_by": "alice"}]}
    wire.answers["/operator/invites/inv_a/revoke"] = {"id": "inv_a", "state": "revoked"}
    assert "1970-01-01T00:00:00Z  alice" in run("invite", "list")[1]
    assert run("invite", "revoke", "inv_a")[0]["state"] == "revoked"


def test_nodes_are_listed_with_their_state_and_other_peoples_text_is_harmless(wire):
    away = KITA | {"node": "node_b", "online": False}
    new = KITA | {"node": "node_c", "online": False, "seen_ms": None}
    out = KITA | {"node": "node_d", "state": "suspended"}
    wire.answers["/operator/organisations"] = {"organisations": [KITA, away, new, out]}
    data, words = run("node", "list")
    assert [one["state"] for one in data["nodes"]] == ["online", "stale", "not heard", "suspended"]
    assert "\x1b" not in words
    assert run("node", "show", KITA["node"])[0]["org"] == KITA["org"]
    assert run("node", "show", "node_x", code=2)[0]["code"] == "broker.usage"


def proposal(**more: Any) -> dict[str, Any]:
    return {"proposal": {"id": "prop_a", "kind": "x", "state": "proposed", "proposer": "alice"} | more}


def test_the_end_of_a_node_and_of_a_witness_is_proposed_and_not_done(wire, monkeypatch):
    monkeypatch.setattr("broker.commands.pool.proposed", lambda answer: Result(data=answer["proposal"]))
    wire.answers |= {
        "/operator/organisations": {"organisations": [KITA]},
        f"/operator/organisations/{KITA['org']}/revoke": proposal(),
        "/operator/proposals": proposal(),
    }
    assert run("node", "revoke", KITA["node"], "--reason", "key-lost")[0]["id"] == "prop_a"
    assert run("witness", "remove", "kita/w1")[0]["id"] == "prop_a"
    assert wire.posted == [
        (f"/operator/organisations/{KITA['org']}/revoke", {"reason": "key-lost", "left": False}),
        (
            "/operator/proposals",
            {"kind": "witness.remove", "payload": {"witness": "kita/w1", "reason": "operator-decision"}},
        ),
    ]


def test_a_recipe_is_read_as_the_broker_would_and_a_broken_one_is_refused(tmp_path):
    data = private_recipe("1.5")
    (tmp_path / "recipe.json").write_bytes(data)
    found = recipe_check(tmp_path / "recipe.json").data
    assert (found["digest"], found["plan"] is not None) == (digest(data), True)
    (tmp_path / "recipe.json").write_bytes(data[:-1])
    assert run("recipe", "check", str(tmp_path / "recipe.json"), code=3)[0]["code"] == "recipe.invalid"


def test_recipes_of_contracts_are_listed_and_one_is_shown_by_id_or_digest(wire):
    contract = from_tree(runnable())
    recipe = contract.recipes[0]
    data = private_recipe("1.5")
    wire.answers |= {
        "/contracts": {"contracts": [{"digest": contract.digest, "state": "offered"}]},
        f"/contracts/{contract.digest}": contract.canonical,
        f"/contracts/{contract.digest}/annexes/{recipe.recipe_digest}": data,
    }
    assert recipe.id in {one["id"] for one in run("recipe", "list")[0]["recipes"]}
    for name in (recipe.id, recipe.recipe_digest, recipe.recipe_digest[7:19]):
        assert run("recipe", "show", name)[0]["contracts"][0]["contract"] == contract.digest
    assert run("recipe", "show", "nothing", code=2)[0]["code"] == "broker.usage"


def test_budgets_are_shown_with_what_is_left(wire):
    found = {
        "contract": MODEL,
        "parties": [
            {"party": "kita", "steps": 9, "epsilon_spent": "1.0", "epsilon_with_reserved": "2.0"}
            | {"epsilon_total": "8.0", "epsilon_per_release": "4.0", "delta": "0.00001"}
        ],
        "recipes": [
            {"recipe": MODEL, "recipe_id": "pick", "clause": "recipe-1", "rounds_used": 3, "rounds_left": 7}
            | {"runs_left": 2, "first_spent": "kita"}
        ],
    }
    wire.answers[f"/operator/budgets/{MODEL}"] = found
    data, words = run("budget", "show", MODEL)
    assert data == found
    assert "pick    3            7            2                kita" in words


CANDIDATE = {
    "candidate": MODEL,
    "run": "run_a",
    "contract": MODEL,
    "state": "waiting",
    "votes": {"kita": "approve"},
    "report": MODEL,
    "refused_by": [],
    "waits_for": [{"clause": "release-1", "check": "votes", "need": "3", "found": "1"}],
    "opens_ms": 0,
}


def test_the_gate_shows_each_test_with_its_evidence_and_what_is_missing(wire):
    wire.answers |= {
        "/candidates": {"candidates": [CANDIDATE]},
        "/releases": {"releases": []},
        f"/reports/{MODEL}": {"leakage": {"verdict": "passed", "auc": "0.51"}, "schema": "1", "parts": []},
    }
    data, words = run("release", "gate", MODEL[7:19])
    assert data["tests"][0] == {"test": "leakage", "result": "passed", "evidence": "auc 0.51, verdict passed"}
    assert "waits for    release-1 votes 3 1" in words
    assert "opens        at 1970-01-01T00:00:00Z" in words
    assert run("release", "show", MODEL)[0]["candidate"]["state"] == "waiting"
    assert run("release", "show", "abab", code=2)[0]["code"] == "broker.usage"


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ("approve", "iriai-node release approve"),
        ("veto", "iriai-node release veto"),
        ("publish", "release gate"),
        ("withdraw", "contract halt"),
    ],
)
def test_what_the_contract_gives_to_parties_alone_is_refused_with_their_command(what, remedy):
    found, _ = run("release", what, MODEL, code=4)
    assert found["code"] == "release.not-ours"
    assert remedy in found["remedy"]


def line(**more: Any) -> dict[str, Any]:
    names = ("waiting", "rejected", "short", "model", "outcome", "paused_ms")
    return dict.fromkeys(names) | {"state": "running", "round": 1, "stopping": False, "rounds": []} | more


def test_a_run_is_followed_until_it_is_over_one_line_for_each_change(wire, capsys):
    wire.answers["/operator/runs/run_a"] = [
        line(),
        line(),
        line(round=2, model=MODEL, paused_ms=0, state="suspended"),
        line(round=2, short={"names": ["Kita KK"]}, stopping=True),
        line(round=3, outcome="stopped", state="stopped"),
    ]
    clock = HandClock(0)
    where = work.Where(directory=None, url=None, tls_sha256=None, key=None)
    done = watching.run_watch(where, "run_a", every_s=5, lines=True, timer=clock)
    told = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
    assert [one["round"] for one in told] == [1, 2, 2, 3]
    assert told[-1]["at"] == "1970-01-01T00:00:20Z"
    assert (done.exit_code, done.data["outcome"]) == (3, "stopped")
    assert done.text == ("over         stopped",)
    wire.answers["/operator/runs/run_a"] = [
        line(waiting={"reason": "no"}, rejected={"rounds": 2}),
        line(outcome="completed"),
    ]
    done = watching.run_watch(where, "run_a", every_s=5, lines=False, timer=clock)
    shown = capsys.readouterr()
    assert (done.exit_code, shown.out) == (0, "")
    assert done.text[-1] == "the gate decides next: iriai-broker release list"
    assert "waits: no, 2 models rejected in a row" in shown.err


def test_entries_are_read_from_the_static_log_and_chosen_by_type(wire):
    bodies = [
        json.dumps({"type": f"t{n % 2}", "ts": "2026", "run": None, "round": n, "pub": {"a": n}}).encode()
        for n in range(300)
    ]
    wire.answers |= {
        "/log/checkpoint": {"size": 300},
        "/log/tile/entries/000": join_tile(bodies[:256]),
        "/log/tile/entries/001.p/44": join_tile(bodies[256:]),
    }
    found, words = run("log", "entries", "--count", "50")
    assert [one["index"] for one in found["entries"]] == list(range(250, 300))
    assert "299" in words
    found, _ = run("log", "entries", "--from", "254", "--count", "4", "--type", "t1")
    assert [one["index"] for one in found["entries"]] == [255, 257]
    assert run("log", "entries", "--from", "1000")[0]["entries"] == []


def test_freezing_says_what_opens_the_log_again(wire):
    wire.answers["/operator/log/freeze"] = {"frozen": "ordered by alice: drill", "size": 9}
    _, words = run("log", "freeze", "--reason", "drill", "--yes")
    assert "log repair" in words
    assert wire.posted == [("/operator/log/freeze", {"reason": "drill"})]


def test_data_sets_are_listed_and_one_is_shown(wire):
    view = {
        "embodiment_class": "6r-arm",
        "tasks": ["weld"],
        "episodes": "100-299",
        "fields": ["q"],
        "quality": "",
    }
    one = {"org": "org_a", "legal_name": "Kita KK", "dataset": "welds", "view": view, "certified": False}
    wire.answers["/catalogue"] = {"datasets": [one, one | {"org": "org_b", "legal_name": "Nord"}]}
    assert len(run("catalogue", "list")[0]["datasets"]) == 2
    assert run("catalogue", "show", "welds", code=2)[0]["code"] == "broker.usage"
    data, words = run("catalogue", "show", "org_b/welds")
    assert data["legal_name"] == "Nord"
    assert "embodiment_class   6r-arm" in words
