# SPDX-License-Identifier: Apache-2.0
"""``iriai-verify`` as a person and a script meet it."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.log.checkpoint import VerifierKey
from policies.log.kinds import REASON, Kind
from policies.log.policy import policy_text
from policies.verify.cli import main
from policies.verify.report import FINDINGS_PER_RULE, Report, plain
from policies.verify.rules import RULES
from policies.verify.tables import cell
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


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_with_one_line_and_its_code(files, jobs) -> None:
    code = (
        "import os, signal, sys\n"
        "from policies.verify import cli, parallel\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job is born deaf to it
        "def work(part):\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    signal.pause()\n"
        "def asked(options):\n"
        f"    list(parallel.in_order(work, [1, 2, 3], {jobs}))\n"
        "cli._command = lambda name: asked\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    line = [sys.executable, "-c", code, files["bundle"], "--policy", files["policy"]]
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted: there is no verdict\n")


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
    said = capsys.readouterr()
    envelope = json.loads(said.out)
    assert (envelope["status"], envelope["error"]["code"]) == ("error", "log.audit-findings")
    assert "fetch it again and compare its sha256" in envelope["error"]["remedy"]
    assert said.err.splitlines()[-1].startswith("to do     this file is not, or no longer, the bundle")
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


# --- outputs ---


def test_report_and_tables_are_written_once(files, capsys) -> None:
    folder = Path(files["dir"])
    asked = [files["bundle"], "--policy", files["policy"]]
    outputs = ["--report", str(folder / "r.html"), "--csv", str(folder / "tables")]
    assert main([*asked, *outputs, "--lang", "ja"]) == 0
    page = (folder / "r.html").read_text("utf-8")
    assert '<html lang="ja">' in page
    assert "監査報告書" in page
    assert sorted(one.name for one in (folder / "tables").iterdir()) == [
        "entries.csv",
        "epsilon.csv",
        "findings.csv",
        "operator_actions.csv",
    ]
    assert "サイズ 82 まで完全" in capsys.readouterr().err
    assert main([*asked, "--report", str(folder / "r.html")]) == 2
    assert main([*asked, "--csv", str(folder / "tables")]) == 2
    assert capsys.readouterr().err.count("never overwritten") == 2
    assert (folder / "r.html").read_text("utf-8") == page


def test_tables_hold_the_whole_history(files, tmp_path) -> None:
    assert main([files["bundle"], "--policy", files["policy"], "--csv", str(tmp_path / "t")]) == 0
    rows = {}
    for name in ("entries", "epsilon", "operator_actions", "findings"):
        with (tmp_path / "t" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows["entries"]] == list(range(len(SIM.bodies)))
    index = SIM.names["submission kita 1"]
    assert rows["entries"][index]["party"] == "kita"
    assert rows["entries"][index]["leaf"] == SIM.tree.leaf(index).hex()
    assert json.loads(rows["entries"][index]["opened"])["seq"] >= 0
    assert {row["party"] for row in rows["epsilon"]} == {"hanbit", "kita", "nord"}
    assert all(row["rho_nano"].isdecimal() for row in rows["epsilon"])
    assert {row["who"] for row in rows["operator_actions"]} == {"anna", "ben"}
    assert rows["findings"] == []


def test_a_bundle_that_cannot_be_read_still_gives_findings(files, tmp_path) -> None:
    Path(files["bundle"]).write_bytes(b"PK no")
    outputs = ["--csv", str(tmp_path / "t"), "--report", str(tmp_path / "r.html")]
    assert main([files["bundle"], "--policy", files["policy"], *outputs]) == 3
    assert [one.name for one in (tmp_path / "t").iterdir()] == ["findings.csv"]
    assert "AUD-001" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " =", "\n+"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(start) -> None:
    shown = cell(f"{start}HYPERLINK(1)")
    assert shown.startswith("'")
    assert shown.isprintable()
    assert cell("plain-text") == "plain-text"
    assert cell(None) == ""
    assert cell(-1) == "'-1"


def test_a_control_mapping_that_is_none_is_a_usage_error(files, tmp_path, capsys) -> None:
    own = tmp_path / "controls.json"
    own.write_text("{}", encoding="utf-8")
    asked = [files["bundle"], "--policy", files["policy"], "--report", str(tmp_path / "r.html")]
    assert main([*asked, "--controls", str(own)]) == 2
    assert "Remedy" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


# --- single entries ---


def test_a_sample_is_what_anybody_draws_again(files, capsys) -> None:
    asked = ["sample", files["bundle"], "--policy", files["policy"], "--n", "7", "--seed", "told on Monday"]
    assert main([*asked, "--json"]) == 0
    shown = capsys.readouterr()
    drawn = [one["index"] for one in json.loads(shown.out)["data"]["entries"]]
    root, seed = SIM.tree.root(), b"told on Monday"
    ranks = {
        index: hashlib.sha256(root + seed + index.to_bytes(8, "big")).digest()
        for index in range(len(SIM.bodies))
    }
    assert drawn == sorted(sorted(ranks, key=ranks.__getitem__)[:7])
    assert shown.err.count("[ ]") == 7
    assert main([*asked[:-2], "--json"]) == 0
    assert [one["index"] for one in json.loads(capsys.readouterr().out)["data"]["entries"]] != drawn


def test_a_sample_can_be_of_one_type_or_round(files, capsys) -> None:
    asked = ["sample", files["bundle"], "--policy", files["policy"], "--json"]
    assert main([*asked, "--type", "vote.cast"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]["entries"]
    assert {one["type"] for one in told} == {"vote.cast"}
    assert main([*asked, "--round", "2", "--n", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)["data"]["entries"]) == 3
    assert main([*asked, "--type", "no.such\x1b"]) == 2
    assert main([*asked, "--n", "0"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_explain_tells_entries_types_and_rules(files, capsys, lang) -> None:
    rest = [files["bundle"], "--policy", files["policy"], "--lang", lang, "--json"]
    index = str(SIM.names["vote kita"])
    assert main(["explain", index, *rest]) == 0
    assert "kita" in json.loads(capsys.readouterr().out)["data"]["lines"][1]
    assert main(["explain", "AUD-020", *rest]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["lines"][-1].endswith(" 0")
    assert main(["explain", "round.closed", "--lang", lang]) == 0
    assert "received" in capsys.readouterr().err
    assert main(["explain", "100000", *rest]) == 2
    assert main(["explain", index]) == 2
    assert main(["explain", index, files["bundle"]]) == 2


def test_explain_runs_a_rule_on_a_bundle(files, capsys) -> None:
    bad = PoolSim(tamper=lambda name, event: None if name == "vote kita" else event).build()
    Path(files["bundle"]).write_bytes(bad.bundle())
    rest = [files["bundle"], "--policy", files["policy"]]
    assert main(["explain", "aud-076", *rest]) == 7
    assert "no vote of kita" in capsys.readouterr().err
    assert main(["explain", "AUD-059", *rest]) == 3
    assert main(["explain", "AUD-020", *rest]) == 0


def test_show_gives_everything_as_json_too(files, capsys) -> None:
    index = SIM.names["submission kita 1"]
    assert main(["show", files["bundle"], str(index), "--policy", files["policy"], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["body"].encode() == SIM.bodies[index]
    assert told["leaf"] == SIM.tree.leaf(index).hex()
    assert told["receipt"].startswith("c2sp.org/tlog-proof@v1")
    assert told["disclosed"]["seq"] >= 0


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01T00:00:00Z", "2026-12-05"])
def test_a_time_that_is_none_is_a_usage_error(files, capsys, time) -> None:
    assert main([files["bundle"], "--policy", files["policy"], "--as-of", time]) == 2
    assert "2026-12-05T10:04:00Z" in capsys.readouterr().err


# --- slips ---


def test_a_time_before_the_last_entry_is_a_slip_and_no_pass(files, capsys) -> None:
    asked = [files["bundle"], "--policy", files["policy"], "--json", "--as-of"]
    assert main([*asked, "2026-01-06T10:04:00Z"]) == 2
    shown = capsys.readouterr()
    assert "after the last entry of 2026-12-07T" in shown.err
    assert json.loads(shown.out)["error"]["code"] == "verify.input"
    last = json.loads(SIM.bodies[-1])["ts"]
    assert main([*asked, last]) == 0


def test_a_file_that_is_no_receipt_spoils_no_audit(files, tmp_path, capsys) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "junk.tlog-proof").write_text("see attachment \u2014 thanks", encoding="utf-8")
    asked = [files["bundle"], "--policy", files["policy"], "--receipts", str(kept)]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "junk.tlog-proof" in told
    assert "\\u" not in told
    (kept / "1.tlog-proof").write_text(SIM.receipt(SIM.names["vote kita"]), encoding="utf-8")
    assert main(asked) == 0
    told = capsys.readouterr().err
    assert "not checked: AUD-016: 1 of 2 files given as receipts, which are none" in told
    assert "remark    no receipts: junk.tlog-proof" in told
    assert "receipts  1 of 2 given were checked: witnessed 0, signed 1" in told


def test_a_file_of_another_kind_is_no_bundle_and_half_a_bundle_is_a_finding(files, capsys) -> None:
    whole = Path(files["bundle"]).read_bytes()
    for data, expected in ((b"# README\n", 2), (b"", 2), (whole[: len(whole) // 2], 3)):
        Path(files["bundle"]).write_bytes(data)
        assert main([files["bundle"], "--policy", files["policy"]]) == expected
    assert "a bundle, which is a ZIP archive" in capsys.readouterr().err


def test_a_members_bundle_gets_one_finding_and_the_way_on(files, capsys) -> None:
    Path(files["bundle"]).write_bytes(SIM.bundle(grade="member", envelopes={}))
    assert main([files["bundle"], "--policy", files["policy"], "--json"]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out)["data"]["counts"] == {"AUD-004": 1}
    assert "--grade member" in shown.err
    assert "refused: 1 finding\n" in shown.err


@pytest.mark.parametrize("option", [["--seed", "x"], ["--sample", "7"]])
def test_a_sample_without_its_page_is_a_usage_error(files, capsys, option) -> None:
    assert main([files["bundle"], "--policy", files["policy"], *option]) == 2
    assert "--report" in capsys.readouterr().err


def test_a_sample_of_nothing_is_told_in_words(files, capsys) -> None:
    asked = ["sample", files["bundle"], "--policy", files["policy"], "--type", "erasure.performed"]
    assert main(asked) == 2
    assert "none of type erasure.performed" in capsys.readouterr().err


def test_explain_tells_what_of_a_rule_was_not_checked(files, capsys) -> None:
    assert main(["explain", "AUD-015", files["bundle"], "--policy", files["policy"]]) == 0
    assert "Not checked: AUD-015: that this history extends" in capsys.readouterr().err


def test_a_policy_that_was_mistyped_says_in_which_line_and_how(files, capsys) -> None:
    path = Path(files["policy"])
    name, hashed, key = SIM.policy.logs[0].text().split("+", 2)
    wrong = f"{name}+{int(hashed, 16) ^ 1:08x}+{key}"
    path.write_text(path.read_text("utf-8").replace(SIM.policy.logs[0].text(), wrong), encoding="utf-8")
    assert main([files["bundle"], "--policy", files["policy"]]) == 2
    told = capsys.readouterr().err
    assert "line 1: key hash" in told
    assert "one was mistyped or changed" in told


def test_the_terminal_says_not_private_and_what_stays_english() -> None:
    report = Report(size=1, facts={"privacy": "NOT PRIVATE"})
    assert report.lines()[-2].startswith("PRIVACY   NOT PRIVATE: ")
    assert not any(one.startswith("language") for one in report.lines())
    report.not_checked("x")
    assert "NOT PRIVATE" in report.lines("ja")[-2]
    assert [one for one in report.lines("ja") if one.startswith("language")]
