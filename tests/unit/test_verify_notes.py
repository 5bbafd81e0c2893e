# SPDX-License-Identifier: Apache-2.0
"""``iriai-verify`` on single notes and receipts, and the conclusion that enters the log."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from policies.encoding import digest
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.envelope import open_envelope
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import policy_text, pool_policy
from policies.log.proofs import receipt_text
from policies.ports import iso_s
from policies.signing import Envelope
from policies.verify.cli import main
from tests.auditsim import ORIGIN, PoolSim, seeded

SIM = PoolSim().build()
WITNESSES = {
    name: (SigningKey.from_seed(seeded(f"witness {name}")), f"{name}/witness")
    for name in ("hanbit", "kita", "nord")
}
POLICY = pool_policy(
    logs=SIM.policy.logs,
    broker=SIM.policy.broker,
    witnesses={name: [cosigner_vkey(key, vkey)] for name, (key, vkey) in WITNESSES.items()},
)
INDEX = SIM.names["vote kita"]


def cosigned(note: str, *names: str, time_s: int = 1_796_600_000) -> str:
    text = note.partition("\n\n")[0] + "\n"
    return merge(
        note,
        [cosign(WITNESSES[name][0], name=WITNESSES[name][1], text=text, time_s=time_s) for name in names],
    )


def receipt(note: str, index: int = INDEX) -> str:
    return receipt_text(index=index, proof=SIM.tree.inclusion(index), note=note)


def forged(size: int) -> str:
    """A note by the log's own key about another history."""
    tree = MemoryTree(leaf_hash(b"other %d" % number) for number in range(size))
    return sign_checkpoint(SIM.log_key, Checkpoint(ORIGIN, size, tree.root()))


@pytest.fixture
def at(tmp_path: Path):
    def put(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    put("policy.txt", policy_text(POLICY))
    put("own.txt", policy_text(SIM.policy))
    put("bundle.zip", SIM.bundle())
    put("entry.json", SIM.bodies[INDEX])
    return put


def run(capsys, *words: object) -> tuple[int, str, dict]:
    code = main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    return code, shown.err, json.loads(shown.out)


# --- receipts ---


def test_a_receipt_with_its_entry_proves_its_grade(at, tmp_path, capsys) -> None:
    signed = at("a.tlog-proof", receipt(SIM.notes[-1]))
    witnessed = at("b.tlog-proof", receipt(cosigned(SIM.notes[-1], "hanbit", "kita", "nord")))
    rest = ["--policy", tmp_path / "policy.txt", "--entry", tmp_path / "entry.json"]
    code, told, envelope = run(capsys, "receipt", signed, *rest)
    assert (code, envelope["data"]["grade"], envelope["data"]["votes"]) == (0, "signed", [])
    assert f"stands at index {INDEX}" in told
    code, told, envelope = run(capsys, "receipt", witnessed, *rest, "--grade", "witnessed")
    assert (code, envelope["data"]["grade"], envelope["data"]["needed"]) == (0, "witnessed", 3)
    assert "GRADE     witnessed, 3 of 3 votes, needed 3" in told
    assert "cosigned  kita/witness at 2026-12-06" in told
    assert run(capsys, "receipt", signed, *rest, "--grade", "witnessed")[0] == 6


def test_a_receipt_without_its_entry_says_that_it_names_none(at, tmp_path, capsys) -> None:
    path = at("a.tlog-proof", receipt(SIM.notes[-1]))
    code, told, envelope = run(capsys, "receipt", path, "--policy", tmp_path / "own.txt")
    assert (code, envelope["data"]["included"]) == (7, None)
    assert "NOT CHECKED" in told


@pytest.mark.parametrize("planted", ["entry", "index", "cosignature", "key", "form", "large"])
def test_a_receipt_that_does_not_hold_is_refused(at, tmp_path, capsys, planted) -> None:
    text, policy = receipt(cosigned(SIM.notes[-1], "kita")), tmp_path / "policy.txt"
    if planted == "entry":
        at("entry.json", SIM.bodies[INDEX - 1])
    elif planted == "index":
        text = receipt(SIM.notes[-1], INDEX - 1)
    elif planted == "cosignature":
        line = cosign(WITNESSES["kita"][0], name="kita/witness", text="x\n1\nAA==\n", time_s=5)
        text = receipt(merge(SIM.notes[-1], [line]))
    elif planted == "key":
        stranger = VerifierKey(ORIGIN, SigningKey.from_seed(seeded("stranger")).public)
        at("policy.txt", policy_text(POLICY).replace(SIM.policy.logs[0].text(), stranger.text()))
    elif planted == "form":
        text = "\x1b[2J" + text
    else:
        text += "x" * 100_000
    path = at("a.tlog-proof", text)
    code, told, envelope = run(
        capsys, "receipt", path, "--policy", policy, "--entry", tmp_path / "entry.json"
    )
    assert code == {"key": 6, "large": 2}.get(planted, 3)
    assert envelope["status"] == "error"
    assert "\x1b" not in told


# --- notes ---


def test_notes_of_one_history_can_all_be_true(at, tmp_path, capsys) -> None:
    notes = [at(f"{number}.txt", note) for number, note in enumerate(SIM.notes[:3])]
    asked = ["compare-checkpoints", *notes, "--policy", tmp_path / "own.txt", "--out", tmp_path / "e.proof"]
    code, told, _ = run(capsys, *asked)
    assert code == 7
    assert "AUD-101 sizes" in told
    code, told, envelope = run(capsys, *asked, "--bundle", tmp_path / "bundle.zip")
    assert code == 0
    assert told.count("is a prefix of the bundle") == 3
    assert envelope["data"]["evidence"] is None
    assert not (tmp_path / "e.proof").exists()
    same = [notes[0], at("again.tlog-proof", receipt(SIM.notes[0], 0))]
    assert run(capsys, "compare-checkpoints", *same, "--policy", tmp_path / "own.txt")[0] == 0


@pytest.mark.parametrize("size", [8, 11, len(SIM.bodies)])
def test_two_histories_are_convicted_by_one_file(at, tmp_path, capsys, size) -> None:
    other, evidence = at("other.txt", forged(size)), tmp_path / "e.proof"
    asked = ["--policy", tmp_path / "own.txt", "--out", evidence]
    code, told, envelope = run(
        capsys, "compare-checkpoints", other, *asked, "--bundle", tmp_path / "bundle.zip"
    )
    assert code == 3
    assert "AUD-100" in told
    assert "two histories" in told
    assert envelope["data"]["evidence"] == str(evidence)
    assert evidence.read_text("utf-8").startswith("iriai-equivocation/v1\n")
    alone = ["compare-checkpoints", evidence, other, "--policy", tmp_path / "own.txt"]
    assert run(capsys, *alone, "--out", tmp_path / "never")[0] == 3
    assert not (tmp_path / "never").exists()
    kept = evidence.read_bytes()
    code, told, _ = run(capsys, "compare-checkpoints", other, *asked, "--bundle", tmp_path / "bundle.zip")
    assert code == 2
    assert "never overwritten" in told
    assert evidence.read_bytes() == kept


def test_two_notes_of_one_size_need_no_bundle(at, tmp_path, capsys) -> None:
    ours = at("ours.txt", SIM.notes[-1])
    other = at("other.txt", forged(len(SIM.bodies)))
    out = tmp_path / "e.proof"
    code, told, _ = run(
        capsys, "compare-checkpoints", ours, other, "--policy", tmp_path / "own.txt", "--out", out
    )
    assert code == 3
    assert "two roots" in told
    assert out.exists()


def test_evidence_that_proves_nothing_is_refused(at, tmp_path, capsys) -> None:
    from policies.log.equivocation import Evidence

    path = at("e.proof", Evidence(SIM.notes[-1], SIM.notes[-1]).to_text())
    code, told, _ = run(
        capsys, "compare-checkpoints", path, at("n.txt", SIM.notes[0]), "--policy", tmp_path / "own.txt"
    )
    assert code == 3
    assert "log.proof-invalid" in told


@pytest.mark.parametrize("planted", ["one", "unsigned", "beyond", "other log"])
def test_notes_that_cannot_be_compared_are_named(at, tmp_path, capsys, planted) -> None:
    notes, policy = [at("a.txt", SIM.notes[-1])], SIM.policy
    expected = {"one": 2, "unsigned": 6, "beyond": 7, "other log": 2}[planted]
    more: list[object] = []
    if planted == "unsigned":
        tree = SIM.tree
        note = sign_checkpoint(SigningKey.from_seed(seeded("x")), Checkpoint(ORIGIN, tree.size, tree.root()))
        notes.append(at("b.txt", note))
    elif planted == "beyond":
        notes, more = [at("b.txt", forged(200))], ["--bundle", tmp_path / "bundle.zip"]
    elif planted == "other log":
        key = SigningKey.from_seed(seeded("second log"))
        notes.append(at("b.txt", sign_checkpoint(key, Checkpoint("b.example/log", 1, bytes(32)))))
        policy = pool_policy(
            logs=(*SIM.policy.logs, VerifierKey("b.example/log", key.public)),
            broker=SIM.policy.broker,
            witnesses={},
        )
    at("own.txt", policy_text(policy))
    code = run(capsys, "compare-checkpoints", *notes, "--policy", tmp_path / "own.txt", *more)[0]
    assert code == expected


# --- the conclusion ---


def with_auditor(tmp_path: Path, capsys) -> PoolSim:
    """A log that has enrolled the auditor whose key file is ``auditor.pem``."""
    code, _, envelope = run(capsys, "key", tmp_path / "auditor.pem")
    assert code == 0
    text = envelope["data"]["key"]
    sim = PoolSim().build()
    public = bytes.fromhex(text.removeprefix("ed25519:"))
    pub = {"role": "auditor", "alg": "ed25519", "kid": digest(public), "vkey": None}
    sim.append(Event(type=EntryType.KEY_ADDED, pub=pub, private={"key": text}))
    sim.publish()
    return sim


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path, capsys) -> None:
    path = tmp_path / "auditor.pem"
    first = run(capsys, "key", path)[2]["data"]["key"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run(capsys, "key", path)[2]["data"]["key"] == first
    assert first == key_text(SigningKey.from_pem(path.read_bytes()).public)
    path.chmod(0o644)
    code, told, _ = run(capsys, "key", path)
    assert code == 2
    assert "chmod 600" in told


def test_a_conclusion_enters_the_log_and_the_next_audit_begins_with_it(at, tmp_path, capsys) -> None:
    sim = with_auditor(tmp_path, capsys)
    key = SigningKey.from_pem((tmp_path / "auditor.pem").read_bytes())
    bundle, since = tmp_path / "bundle.zip", None
    for turn, seq in (("one", 0), ("two", 1)):
        bundle.write_bytes(sim.bundle())
        out = tmp_path / f"{turn}.dsse"
        asked = [bundle, "--policy", tmp_path / "own.txt", *([] if since is None else ["--since", since])]
        code, told, envelope = run(
            capsys,
            *("conclude", *asked, "--key", tmp_path / "auditor.pem", "--conclusion", "clean", "--out", out),
        )
        assert code == 0, told
        sealed = Envelope.from_bytes(out.read_bytes())
        payload = open_envelope(sealed, key.public)
        written = (tmp_path / f"{turn}.dsse.report.json").read_bytes()
        assert payload["body"]["report"] == digest(written) == envelope["data"]["report"]
        assert json.loads(written)["verdict"].startswith("complete up to size")
        since = tmp_path / f"{turn}.dsse.checkpoint"
        assert payload["body"]["checkpoint"] == digest(since.read_bytes())
        assert (payload["seq"], payload["seen"]["size"]) == (seq, sim.tree.size)
        sim.append(from_envelope(sealed, payload, actor="auditor"))
        sim.publish()
    bundle.write_bytes(sim.bundle())
    code, told, envelope = run(capsys, bundle, "--policy", tmp_path / "own.txt", "--since", since)
    assert code == 0, told
    assert envelope["data"]["facts"]["concluded"] == 2
    first = tmp_path / "one.dsse.checkpoint"
    assert "AUD-120" in run(capsys, bundle, "--policy", tmp_path / "own.txt", "--since", first)[1]


def test_a_conclusion_is_no_better_than_the_audit(at, tmp_path, capsys) -> None:
    def drop(name: str, event: Event) -> Event | None:
        return None if name == "vote kita" else event

    run(capsys, "key", tmp_path / "k.pem")
    bundle = at("bad.zip", PoolSim(tamper=drop).build().bundle())
    asked = ["conclude", bundle, "--policy", tmp_path / "own.txt", "--key", tmp_path / "k.pem"]
    for conclusion, expected in (("clean", 3), ("reservations", 3), ("adverse", 0)):
        out = tmp_path / f"{conclusion}.dsse"
        code, told, _ = run(capsys, *asked, "--conclusion", conclusion, "--out", out)
        assert code == expected, told
        assert out.exists() == (expected == 0)
    code, told, _ = run(capsys, *asked, "--conclusion", "adverse", "--out", tmp_path / "adverse.dsse")
    assert code == 2
    assert "never overwritten" in told


def test_nothing_is_concluded_about_a_history_that_nobody_signed(at, tmp_path, capsys) -> None:
    run(capsys, "key", tmp_path / "k.pem")
    rest = ["--key", tmp_path / "k.pem", "--conclusion", "adverse", "--out", tmp_path / "c.dsse"]
    code, told, _ = run(
        capsys, "conclude", tmp_path / "bundle.zip", "--policy", tmp_path / "policy.txt", *rest
    )
    assert code == 3  # no quorum of that policy cosigned
    assert "your policy trusts" in told
    assert not (tmp_path / "c.dsse").exists()


def test_a_witnessed_checkpoint_is_told_with_its_votes(at, tmp_path, capsys) -> None:
    note = cosigned(SIM.notes[-1], "hanbit", "kita", "nord")
    at("w.zip", SIM.bundle(note=note, notes=[*SIM.notes[:-1], note]))
    code, told, envelope = run(capsys, tmp_path / "w.zip", "--policy", tmp_path / "policy.txt")
    assert code == 7  # the log names no witnesses: AUD-084
    assert "witnessed 3/3 at 2026-12-06" in told
    assert envelope["data"]["witnessed"]["have"] == 3
    at("two.zip", SIM.bundle(note=(two := cosigned(SIM.notes[-1], "kita")), notes=[*SIM.notes[:-1], two]))
    assert run(capsys, tmp_path / "two.zip", "--policy", tmp_path / "policy.txt")[0] == 6


# --- slips ---


@pytest.mark.parametrize("name", ["last.dsse", "last.txt", "kept.tlog-proof"])
def test_what_is_no_note_is_a_slip_and_no_finding(at, tmp_path, capsys, name) -> None:
    told_by = {"last.dsse": '{"payload":"x"}', "last.txt": "x\n1\nAA==\n\n\u2014 x y\n"}
    path = at(name, told_by.get(name, receipt(SIM.notes[0], 0)))
    asked = [tmp_path / "bundle.zip", "--policy", tmp_path / "own.txt", "--since", path]
    code, told, envelope = run(capsys, *asked)
    assert (code, envelope["error"]["code"]) == (2, "verify.input")
    assert name in told
    assert "\\u" not in told
    assert ("give last.dsse.checkpoint" in told) == (name == "last.dsse")
    if name != "kept.tlog-proof":
        asked = ["compare-checkpoints", path, path, "--policy", tmp_path / "own.txt"]
        assert run(capsys, *asked)[0] == 2
    torn = at("torn.tlog-proof", receipt(SIM.notes[0], 0)[:60])
    assert run(capsys, "compare-checkpoints", torn, torn, "--policy", tmp_path / "own.txt")[0] == 2


def test_nobody_looked_at_a_bundle_before_it_was_cosigned(at, tmp_path, capsys) -> None:
    note = cosigned(SIM.notes[-1], "hanbit", "kita", "nord", time_s=1_796_900_000)
    at("w.zip", SIM.bundle(note=note, notes=[*SIM.notes[:-1], note]))
    asked = [tmp_path / "w.zip", "--policy", tmp_path / "policy.txt", "--as-of"]
    code, told, _ = run(capsys, *asked, "2026-12-09T00:00:00Z")
    assert code == 2
    assert "after the newest cosignature of 2026-12-10T" in told
    assert run(capsys, *asked, iso_s((1_796_900_000 - 200) * 1000))[0] == 7


def test_a_key_is_one_line_on_standard_output(tmp_path, capsys) -> None:
    assert main(["key", str(tmp_path / "a.pem")]) == 0
    shown = capsys.readouterr()
    assert shown.out == key_text(SigningKey.from_pem((tmp_path / "a.pem").read_bytes()).public) + "\n"
    assert "fingerprint" in shown.err
