# SPDX-License-Identifier: Apache-2.0
"""What whoever takes a bundle is told of its end: size, quorum and age, and what an old quorum means."""

from __future__ import annotations

from pathlib import Path

from policies.identity import SigningKey
from policies.limits import WITNESS_MAX_AGE_MIN
from policies.log.bundle import pack
from policies.log.bundle_head import BundleHead, look
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.policy import policy_text, pool_policy
from tests.auditsim import ORIGIN, seeded

NOW_S = 1_796_600_000
LOG = SigningKey.from_seed(seeded("log key"))
WITNESSES = {name: SigningKey.from_seed(seeded(name)) for name in ("org_a", "org_b")}


def _bundle(folder: Path, *names: str) -> BundleHead:
    keys = {name: (cosigner_vkey(key, f"{name}/witness"),) for name, key in WITNESSES.items()}
    policy = pool_policy(logs=(VerifierKey(ORIGIN, LOG.public),), broker=b"\1" * 32, witnesses=keys)
    note = sign_checkpoint(LOG, Checkpoint(ORIGIN, 7, b"\2" * 32))
    text = note.split("\n\n")[0] + "\n"
    lines = [
        cosign(WITNESSES[name], name=f"{name}/witness", text=text, time_s=NOW_S - at)
        for at, name in enumerate(names)
    ]
    path = folder / "b.zip"
    path.write_bytes(
        pack(
            {
                "checkpoint": merge(note, lines).encode(),
                "policy": policy_text(policy).encode(),
                "BUNDLE": b"{}",
            }
        )
    )
    found = look(path)
    assert found is not None
    return found


def test_a_fresh_quorum_is_said_with_its_age_and_without_advice(tmp_path: Path) -> None:
    found = _bundle(tmp_path, "org_a", "org_b")
    (line,) = found.words((NOW_S + 4) * 1000, "look")
    assert line == "reaches      7 entries; cosigned by the 2 witnesses that are needed, 5 s ago"
    assert found.to_json(NOW_S * 1000) == {"size": 7, "quorum": True, "age_s": 1, "old": False}


def test_an_old_quorum_says_that_newer_entries_wait_and_what_to_do(tmp_path: Path) -> None:
    lines = _bundle(tmp_path, "org_a", "org_b").words((NOW_S + 60 * WITNESS_MAX_AGE_MIN + 60) * 1000, "look")
    assert "ends before the newest entries" in lines[1]
    assert lines[2] == "next: look"


def test_without_the_quorum_it_says_so(tmp_path: Path) -> None:
    assert "NOT cosigned" in _bundle(tmp_path, "org_a").words(NOW_S * 1000, "look")[0]


def test_of_what_is_no_bundle_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK")
    assert look(tmp_path / "x") is None
    assert look(tmp_path / "absent") is None
