# SPDX-License-Identifier: Apache-2.0
"""The tutorial's blocks, in order and word for word, in an empty folder: a signed contract and a finished run.

Three things are not the reader's: the port (a free one), how long the contract waits before it begins (the reader
has ten minutes to read), and that the links for a browser are opened.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sandbox.processes import free_port
from tests.docs.commandlines import blocks
from tests.docs.facts import ROOT
from tests.docs.test_docs_readme import run, script_of

TUTORIAL = ROOT / "docs/tutorial"
TEXT = (TUTORIAL / "README.md").read_text("utf-8")

VISIT = """
import json, re, sys, httpx
link = re.search(r"https?://[^ \\n]+/(?:console/enter|open)/[^ \\n]+", open(sys.argv[1]).read()).group()
typed = {"Sec-Fetch-Site": "none"}  # as browsers say of an address that somebody typed
with httpx.Client(verify=False, follow_redirects=True, headers=typed) as browser:
    found = browser.get(link)
    again = httpx.get(link, verify=False, headers=typed)
json.dump([found.status_code, found.text, again.status_code], open(sys.argv[1] + ".seen", "w"))
"""
LOGIN = "iriai-broker operator login $alice\n"
PAGE = "for second in $(seq 30); do grep open kita.page && break; sleep 1; done\n"
# as long as the steps before took, and half as long again: a busy machine is given more
SOON = "minutes=$(python3 -c 'import sys; print(max(40, 1.8 * float(sys.argv[1])) / 60)' $SECONDS)\n"
END = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"


def played(port: int) -> str:
    """The tutorial as a script, with what is not the reader's."""
    script = script_of(TEXT).replace("README.md line", "tutorial line")
    changes = {
        "https://localhost:8443": f"https://localhost:{port}",
        "minutes=10\n": SOON,
        LOGIN: f"{LOGIN.strip()} > login\ncat login\npython visit.py login\n",
        PAGE: f"{PAGE}python visit.py kita.page\n",
    }
    for old, new in changes.items():
        assert old in script, old
        script = script.replace(old, new)
    return script.replace("set -euo pipefail\n", f"set -euo pipefail\n{END}", 1)


def test_the_tutorial_names_its_terminals_and_every_step_in_order():
    steps = re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)
    assert steps == [str(number) for number in range(1, len(steps) + 1)]
    assert all(f"erminal {number}" in TEXT for number in (1, 2, 3))


def test_every_command_of_the_tutorial_is_played_except_installing():
    asides = [one.text for one in blocks(TEXT) if one.language == "sh" and one.mark != "run"]
    assert asides == ["make venv\n. .venv/bin/activate\n", ". .venv/bin/activate\ncd build/pool\n"]


def test_the_tutorials_recipe_carries_its_promise_and_its_answers_hold_one_run():
    import yaml

    from policies.privacy.accounting import epsilon_text
    from policies.recipe import load

    recipe = load((TUTORIAL / "recipe.json").read_bytes())
    answers = yaml.safe_load((TUTORIAL / "answers.yaml").read_text("utf-8"))
    assert recipe.plan is not None
    assert epsilon_text(recipe.plan.epsilon_rdp) in (TUTORIAL / "answers.yaml").read_text("utf-8")
    assert recipe.plan.epsilon_rdp <= float(answers["epsilon_per_release"])
    noise = recipe.evaluation.noise_std / float(recipe.evaluation.normalizer)
    assert 5 * noise < float(recipe.evaluation.threshold)  # the model decides the vote, not chance


def test_the_figures_of_who_may_do_what_are_the_programs():
    from policies import limits

    text = (ROOT / "docs/explanation/who-may-do-what.md").read_text("utf-8")
    for figure in (
        f"for {limits.LINK_TTL_H} hours; then add",
        f"a password of {limits.PASSWORD_CHARS_MIN} characters",
        f"{limits.SESSION_IDLE_MIN} minutes without use and {limits.SESSION_H} hours in all",
        f"at most {limits.SESSIONS_PER_PERSON} for each person",
        f"it counts for {limits.STEP_UP_MIN} minutes",
        f"after {limits.LOGIN_FREE_TRIES} tries",
        f"up to {limits.LOGIN_PAUSE_MAX_S // 60} minutes",
    ):
        assert figure in text, figure


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.mujoco
@pytest.mark.enable_socket
def test_the_tutorial_reaches_a_signed_contract_and_a_finished_run(tmp_path: Path):
    pytest.importorskip("mujoco", reason="the sandbox extra is not installed")
    shutil.copytree(TUTORIAL, tmp_path / "docs/tutorial")
    (tmp_path / "build/pool").mkdir(parents=True)
    (tmp_path / "build/pool/visit.py").write_text(VISIT, "utf-8")
    done = run(played(free_port()), tmp_path)
    said, pool = done.stdout + done.stderr, tmp_path / "build/pool"
    assert done.returncode == 0, said[-4_000:]
    assert "executed: everybody signed" in said
    assert re.search(r"^over +completed$", said, re.MULTILINE)
    assert "3: 3 approve" in said
    assert re.search(r"^statement +PRIVATE$", said, re.MULTILINE)
    assert "VERDICT   complete up to size" in said
    assert "AUD-096: 30 of 30 opened sums redone from masked vectors" in said
    assert said.count("refused, exit 4") == 1  # nobody approves what they proposed
    assert re.search(r"refused, exit [36]", said)  # one byte of the bundle was changed
    assert re.findall(r"<(?:link|script|img)\b", (pool / "audit.html").read_text("utf-8")) == []
    for name, screen in (("login", "overview"), ("kita.page", "home")):
        first, text, again = json.loads((pool / f"{name}.seen").read_text("utf-8"))
        assert (first, f'data-screen="{screen}"' in text) == (200, True), name
        assert again >= 400, name
    assert (pool / "broker.log").read_text("utf-8").rstrip().endswith("stopped")
