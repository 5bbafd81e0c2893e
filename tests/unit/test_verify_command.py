# SPDX-License-Identifier: Apache-2.0
"""``iriai-verify`` as a person and a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.log.checkpoint import VerifierKey, policy_text
from policies.log.kinds import REASON, Kind
from policies.verify.cli import main
from policies.verify.report import FINDINGS_PER_RULE, Report, plain
from policies.verify.rules import RULES
from tests.auditsim import ORIGIN, PoolSim, seeded
from tests.canarysim import CanarySim
from tests.sumsim import SummedSim

SIM = PoolSim().build()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    bundle, policy = tmp_path / "bundle.zip", tmp_path / "policy.txt"
    bundle.write_bytes(SIM.bundle())
    policy.write_text(policy_text(SIM.policy), encoding="utf-8")
    return {"bundle": str(bundle), "policy": str(policy), "dir": str(tmp_path)}


def test_a_bare_bundle_means_verify(files, capsys) -> None:
    assert main([files["bundle"], "--policy", files["policy"]]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"VERDICT   complete up to size {len(SIM.bodies)}" in shown.err
    assert "not checked:" in shown.err
    assert "OK" not in shown.err


def test_json_is_one_object_on_stdout(files, capsys) -> None:
    assert main(["verify", files["bundle"], "--policy", files["policy"], "--json"]) == 0
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["schema"], envelope["status"], "error" in envelope) == ("1", "ok", False)
    told = envelope["data"]
    assert (told["complete"], told["size"], told["origin"]) == (True, len(SIM.bodies), ORIGIN)
    assert told["root"] == SIM.tree.root().hex()
    assert told["facts"]["contributions"] == {"accepted": 5, "refused": 1}
    assert set(told["facts"]["spent"]) == {"hanbit", "kita", "nord"}


def test_opened_sums_are_redone_from_a_folder_of_masked_vectors(files, tmp_path, capsys) -> None:
    sim = SummedSim().build()
    Path(files["bundle"]).write_bytes(sim.bundle())
    Path(files["policy"]).write_text(policy_text(sim.policy), encoding="utf-8")
    folder = tmp_path / "vectors"
    folder.mkdir()
    asked = [files["bundle"], "--policy", files["policy"], "--vectors", str(folder), "--json"]
    assert main(asked) == 2
    assert "iriai-broker audit vectors" in json.loads(capsys.readouterr().out)["error"]["remedy"]
    (folder / "notes.txt").write_text("no vector")
    for name, data in sim.vectors_by_digest().items():
        (folder / name.removeprefix("sha256:")).write_bytes(data)
    assert main(asked) == 0
    shown = capsys.readouterr()
    facts = json.loads(shown.out)["data"]["facts"]
    assert facts["sums"] == {"opened": 2, "redone": 2}
    assert facts["sum_members"] == {"fewest": 3, "most": 3}
    assert "computed  AUD-096: 2 of 2 opened sums redone from masked vectors" in shown.err
    one = folder / next(iter(sim.vectors_by_digest())).removeprefix("sha256:")
    one.write_bytes(bytes(24))
    assert main(asked) == 3
    assert "AUD-096" in capsys.readouterr().err


def test_a_folder_of_another_runs_vectors_is_said_to_be_that(files, tmp_path, capsys) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    for name in ("0" * 64, "1" * 64, "2" * 64):
        (folder / name).write_bytes(bytes(24))
    asked = [files["bundle"], "--policy", files["policy"], "--vectors", str(folder)]
    assert main(asked) == 0
    assert (
        "not checked: AUD-096: 3 masked vectors, as this bundle has no opened sum" in capsys.readouterr().err
    )
    sim = SummedSim().build()
    Path(files["bundle"]).write_bytes(sim.bundle())
    Path(files["policy"]).write_text(policy_text(sim.policy), encoding="utf-8")
    assert main(asked) == 0
    told = capsys.readouterr().err
    assert "2 of 2 opened sums, whose masked vectors are not at hand" in told
    assert "(none of the 3 files belongs to this bundle)" in told
    assert "redone" not in told


def test_a_model_that_the_auditor_brings_is_looked_up_by_its_digest(files, tmp_path, capsys) -> None:
    other = tmp_path / "other.f32"
    other.write_bytes(b"\0" * 16)
    sim = CanarySim().build()
    Path(files["bundle"]).write_bytes(sim.bundle())
    Path(files["policy"]).write_text(policy_text(sim.policy), encoding="utf-8")
    assert main([files["bundle"], "--policy", files["policy"], "--model", str(other)]) == 0
    assert "AUD-078: scores of leak reports" in capsys.readouterr().err
    assert main([files["bundle"], "--policy", files["policy"], "--model", str(tmp_path / "none.f32")]) == 2


def test_a_changed_bundle_is_refused_with_exit_3(files, capsys) -> None:
    data = bytearray(Path(files["bundle"]).read_bytes())
    data[len(data) // 2] ^= 1
    Path(files["bundle"]).write_bytes(data)
    assert main([files["bundle"], "--policy", files["policy"], "--json"]) == 3
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["status"], envelope["error"]["code"]) == ("error", "log.audit-findings")
    told = envelope["data"]
    assert [one["id"] for one in told["findings"]] == ["AUD-001"]
    assert told["findings"][0]["by_hand"]


def test_an_unknown_log_key_exits_6(files, capsys) -> None:
    from policies.identity import SigningKey

    other = SIM.policy.logs[0]
    strange = policy_text(SIM.policy).replace(
        other.text(), VerifierKey(ORIGIN, SigningKey.from_seed(seeded("x")).public).text()
    )
    Path(files["policy"]).write_text(strange, encoding="utf-8")
    assert main([files["bundle"], "--policy", files["policy"], "--json"]) == 6
    shown = capsys.readouterr()
    assert "not trusted" in shown.err
    assert json.loads(shown.out)["error"]["code"] == "log.untrusted"


def test_receipts_of_a_folder_are_checked(files, tmp_path, capsys) -> None:
    kept = tmp_path / "kept"
    (kept / "kita").mkdir(parents=True)
    receipt = SIM.receipt(SIM.names["vote kita"])
    (kept / "kita" / "1.tlog-proof").write_text(receipt, encoding="utf-8")
    arguments = [files["bundle"], "--policy", files["policy"], "--receipts", str(kept)]
    assert main(arguments) == 0
    assert "AUD-016" not in capsys.readouterr().err
    (kept / "kita" / "1.tlog-proof").write_text(receipt.replace("index ", "index 1"), encoding="utf-8")
    assert main(arguments) == 3
    assert "AUD-016" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "/nowhere/bundle.zip"},
        {"policy": "/nowhere/policy.txt"},
        {"policy_text": b"trust me"},
        {"policy_text": b"\xff\xfe"},
        {"receipts": "empty"},
    ],
)
def test_usage_errors_exit_2_and_say_what_to_do(files, change, capsys) -> None:
    if "policy_text" in change:
        Path(files["policy"]).write_bytes(change["policy_text"])
    if "receipts" in change:
        (Path(files["dir"]) / "empty").mkdir()
    arguments = [change.get("bundle", files["bundle"]), "--policy", change.get("policy", files["policy"])]
    if "receipts" in change:
        arguments += ["--receipts", str(Path(files["dir"]) / "empty")]
    assert main([*arguments, "--json"]) == 2
    shown = capsys.readouterr()
    assert "Remedy" in shown.err
    assert json.loads(shown.out)["status"] == "error"


def test_a_missing_policy_is_a_usage_error(files, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([files["bundle"]])
    assert left.value.code == 2
    assert "--policy" in capsys.readouterr().err


def test_show_prints_what_an_auditor_needs_to_redo_it(files, capsys) -> None:
    index = SIM.names["submission kita 1"]
    assert main(["show", files["bundle"], str(index), "--policy", files["policy"]]) == 0
    shown = capsys.readouterr().err
    for word in ("leaf ", "root ", "proof ", "body ", "envelope ", "disclosed seq", "receipt "):
        assert word in shown
    assert main(["show", files["bundle"], "100000", "--policy", files["policy"]]) == 2


def test_explain_knows_every_rule(capsys) -> None:
    for rule in RULES:
        assert main(["explain", rule.lower()]) == 0
        shown = capsys.readouterr().err
        assert rule in shown
        assert "by hand" in shown
    assert main(["explain", "AUD-999\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_control_characters_never_reach_the_terminal() -> None:
    hostile = "\x1b[2J\x07\u202e<b>\u0000" * 50
    assert plain(hostile).isprintable()
    assert plain(hostile).isascii()
    report = Report(origin=hostile)
    report.add("AUD-031", hostile)
    assert all(line.isprintable() and line.isascii() for line in report.lines())


def test_a_hostile_bundle_does_not_fill_the_report() -> None:
    report = Report()
    for _ in range(10 * FINDINGS_PER_RULE):
        report.add("AUD-031", "x")
    assert len(report.findings) == FINDINGS_PER_RULE
    assert "more" in " ".join(report.lines())
    assert report.exit_code == 3


def test_review_findings_alone_exit_7(monkeypatch) -> None:
    from policies.verify import report as module
    from policies.verify.rules import Rule

    monkeypatch.setattr(module, "RULES", {"AUD-064": Rule("review", "x", "y")})
    report = Report(size=1)
    report.add("AUD-064", "x")
    assert report.exit_code == 7
    assert "a person decides" in report.verdict


def test_the_verifier_loads_nothing_but_standard_library_cryptography_and_rfc8785() -> None:
    code = (
        "import sys, policies.verify\n"
        "bad = {'pydantic', 'numpy', 'torch', 'http_message_signatures', 'yaml', 'sqlalchemy', 'flwr', 'broker',"
        " 'client', 'sandbox', 'dp_accounting'}\n"
        "print(sorted(bad & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_runs_as_a_module(files) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "policies.verify", files["bundle"], "--policy", files["policy"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_reason_is_a_code_and_never_a_sentence() -> None:
    assert isinstance(REASON, Kind)
    assert REASON.holds("engine.reply-malformed")
    assert not REASON.holds("Because I say so")
