# SPDX-License-Identifier: Apache-2.0
"""What the documents tell a newcomer to type works: the README's blocks are run in order, examples are loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.commandlines import blocks, documents
from tests.docs.facts import ROOT

README = ROOT / "README.md"
EXAMPLE = ROOT / "docs/how-to/example"
TOUR_S = 900
BASH = shutil.which("bash") or "/bin/bash"


def test_the_readme_begins_with_what_it_is_and_two_commands():
    text = README.read_text("utf-8")
    assert text.startswith("# iriai\n\nManufacturers train common robot models together and keep their data.")
    assert [one.text.strip() for one in blocks(text)[:2]] == ["make demo", "make test"]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_that_a_document_names_exists(path):
    made = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[0].split()
    text = path.read_text("utf-8")
    named = [
        name
        for one in blocks(text)
        if one.language == "sh"
        for name in re.findall(r"^make (\w+)", one.text, re.MULTILINE)
    ]
    named += re.findall(r"`make (\w+)", text)
    assert [name for name in named if name not in made] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_extra_and_pin_that_a_document_installs_is_ours(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = path.read_text("utf-8")
    extras = {name for found in re.findall(r"(?:\.|iriai)\[([a-z,]+)\]", text) for name in found.split(",")}
    assert extras <= set(project["optional-dependencies"])
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert [pin for pin in re.findall(r"install (\w+==[\d.]+)", text) if pin not in pins] == []


def test_every_fenced_block_is_closed_and_has_a_known_mark():
    for path in documents():
        text = path.read_text("utf-8")
        assert text.count("\n```") == 2 * len(blocks(text)) - text.startswith("```"), path
        assert {(one.language, one.mark) for one in blocks(text)} <= {
            ("", ""),
            ("sh", ""),
            ("sh", "run"),
            ("yaml", ""),
            ("toml", ""),
            ("python", ""),
        }, path


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shell_block_is_shell(path):
    for one in blocks(path.read_text("utf-8")):
        if one.language == "sh":
            done = subprocess.run([BASH, "-n"], input=one.text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"line {one.line}: {done.stderr}"


# --- the tour ---


def script_of(text: str) -> str:
    """The run blocks in order, as one script that stops at the first error and says where."""
    runs = [one for one in blocks(text) if one.mark == "run"]
    parts = ["set -euo pipefail"]
    parts += [f'printf "%s\\n" "== README.md line {one.line}" >&2\n{one.text}' for one in runs]
    return "\n".join(parts)


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script as a reader would in the activated environment, in an empty folder."""
    binary = Path(sys.executable).parent
    env = {name: value for name, value in os.environ.items() if not name.startswith(("IRIAI_", "PYTEST"))}
    env["PATH"] = f"{binary}{os.pathsep}{env['PATH']}"
    return subprocess.run(
        [BASH, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=env,
        timeout=TOUR_S,
    )


def test_a_script_stops_where_a_block_fails(tmp_path):
    text = (
        "```sh run\ntrue\n```\n\n```sh\nexit 9\n```\n\n```sh run\nfalse\n```\n\n```sh run\ntouch after\n```\n"
    )
    done = run(script_of(text), tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["== README.md line 1", "== README.md line 9"]
    assert not (tmp_path / "after").exists()


VISIT = """
import json, httpx
told = json.load(open("up.json"))["data"]
people = [one["login"] for one in (*told["operators"], told["auditor"])]
typed = {"Sec-Fetch-Site": "none"}
found = [httpx.get(one, verify=False, headers=typed).status_code for one in people]  # each in a browser of their own
with httpx.Client(headers=typed) as browser:
    found += [browser.get(one["page"], follow_redirects=True).status_code for one in told["nodes"]]
json.dump(found, open("visits.json", "w"))
"""


def with_doors(script: str) -> str:
    """The tour, with what a program is told of it, and a visit of everything that `up` says to open."""
    up, down = "iriai-sandbox up --dir build/tour\n", "iriai-sandbox down --dir build/tour\n"
    assert (script.count(up), script.count(down)) == (1, 1)
    asked = "".join(
        f"iriai-sandbox {name} --dir build/tour --json > {name}.json\n" for name in ("status", "open")
    )
    return script.replace(up, f"{up.strip()} --json > up.json\npython - <<'END'\n{VISIT}END\n").replace(
        down, asked + down
    )


def check_doors(data: dict[str, Any]) -> None:
    """Where people go in: the console, a login for each, a page for each node."""
    assert re.fullmatch(r"https://localhost:[0-9]+/console", data["console"])
    people = [data["operator"], data["approver"], data["auditor"]]
    assert [one["role"] for one in people] == ["operator", "operator", "auditor"]
    assert len({one["name"] for one in people}) == len({one["login"] for one in people}) == 3
    assert all(one["login"].startswith(data["console"] + "/enter/") for one in people)
    assert [one["name"] for one in data["nodes"]] == ["kita", "nord", "iber", "hanbit"]
    assert all(one["page"].startswith("http://127.0.0.1:") for one in data["nodes"])


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.mujoco
def test_the_readmes_tour_works_in_order(tmp_path):
    pytest.importorskip("mujoco", reason="the sandbox extra is not installed")
    try:
        done = run(with_doors(script_of(README.read_text("utf-8"))), tmp_path)
    finally:
        if (tmp_path / "build/tour/processes.json").exists():
            run("iriai-sandbox down --dir build/tour", tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4_000:]
    assert "VERDICT   complete up to size" in said
    assert "contract.signed" in said
    assert re.search(r"\brun_[a-z2-7]{16}\b", said)
    assert "completed" in said
    assert "hanbit-page, kita, nord, iber, hanbit, broker" in said
    told = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("up", "open", "status")}
    assert {one["status"] for one in told.values()} == {"ok"}
    for name in ("up", "open"):
        check_doors(told[name]["data"])
    assert told["up"]["data"]["operator"]["login"] != told["open"]["data"]["operator"]["login"]
    assert (told["status"]["data"]["ended"], len(told["status"]["data"]["nodes"])) == ([], 4)
    assert json.loads((tmp_path / "visits.json").read_text()) == [303, 303, 303, 200, 200, 200, 200]


# --- the examples ---


def test_the_example_contract_is_one_that_this_version_takes():
    from policies.contract import load, parse, plain_words
    from policies.recipe import load as load_recipe

    contract = load((EXAMPLE / "contract.yaml").read_text("utf-8"))
    assert parse(contract.canonical).digest == contract.digest
    recipe = load_recipe((EXAMPLE / "recipe.json").read_bytes())
    assert [one.recipe_digest for one in contract.recipes] == [recipe.digest]
    assert set(recipe.fields) <= set(contract.fields.allow)
    assert recipe.plan is not None
    assert recipe.plan.epsilon_rdp <= 8
    assert not any("NOT PRIVATE" in words for clause, words in plain_words(contract) if clause == "dp-1")


def test_the_example_recipe_has_the_digest_that_sha256sum_prints():
    """The how-to tells operators to take it that way."""
    import hashlib

    from policies.recipe import load

    data = (EXAMPLE / "recipe.json").read_bytes()
    assert load(data).digest == "sha256:" + hashlib.sha256(data).hexdigest()


def test_the_example_signal_map_is_one_that_this_version_takes():
    from client.data.signalmap import load_map
    from policies.recipe import load

    fields = {one.field for one in load_map(EXAMPLE / "signalmap.toml").signals}
    assert fields == set(load((EXAMPLE / "recipe.json").read_bytes()).fields)


def test_the_auditors_example_policy_is_one_that_the_verifier_takes():
    from policies.log.policy import parse_policy

    text = (ROOT / "docs/how-to/auditor.md").read_text("utf-8")
    (block,) = [one for one in blocks(text) if one.text.startswith("log ")]
    policy = parse_policy(block.text)
    assert policy.broker is not None


def test_the_figures_of_the_privacy_page_are_computed():
    from policies.privacy.accounting import calibrate
    from policies.recipe import load
    from sandbox.recipes import private_recipe

    text = (ROOT / "docs/explanation/privacy.md").read_text("utf-8")
    recipe = load(private_recipe("8", 250))
    plan, judge = recipe.plan, recipe.evaluation
    assert plan is not None
    for figure in (
        f"`epsilon_rdp` {plan.epsilon_rdp:.4f}",
        f"\N{GREEK SMALL LETTER SIGMA} = {plan.noise_multiplier}, C = {plan.clip_norm}, K = {plan.frames_per_unit}",
        f"| {plan.steps}, q = {plan.sampling_prob}, of 250 episodes per maker |",
        f"| {recipe.rounds}; the other steps",
        f"(\N{GREEK SMALL LETTER SIGMA} = {judge.noise_multiplier}), at most {judge.steps} in all: ε {judge.epsilon_rdp:.2f}",
        *(f"{calibrate(epsilon=float(e), delta=1e-5, q=0.2, steps=200)} (ε {e})" for e in (4, 2, 1)),
    ):
        assert figure in text, figure


@pytest.mark.slow
def test_the_tight_figure_of_the_privacy_page_is_computed():
    from policies.privacy.tight import epsilon_pld
    from policies.recipe import load
    from sandbox.recipes import private_recipe

    plan = load(private_recipe("8", 250)).plan
    assert plan is not None
    assert f"`epsilon_pld` {epsilon_pld(plan):.2f}" in (ROOT / "docs/explanation/privacy.md").read_text(
        "utf-8"
    )
