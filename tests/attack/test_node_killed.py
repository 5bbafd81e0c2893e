# SPDX-License-Identifier: Apache-2.0
"""A node that is killed (SIGKILL) while it seals: what it gave away is on disk, and no number is used twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from client.outbox import Outbox
from policies.identity import SigningKey
from policies.log.envelope import ChainState, open_envelope
from tests.nodesim import ORIGIN, HandClock, SeedEntropy

KEY = SigningKey.from_seed(b"n" * 32)
CHILD = Path(__file__).with_name("node_seal_child.py")
KILLS = 8


def _killed(path: Path, after: int) -> list[bytes]:
    """Payloads that the child gave away before it was killed after so many lines."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(path)], stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.readlines()
    whole = [line for line in lines if line.endswith(b"\n")]
    return [bytes.fromhex(one) for line in whole for one in line.decode().split()]


def test_what_was_given_away_is_on_disk_and_the_chain_goes_on(tmp_path: Path):
    path, given = tmp_path / "outbox.db", []
    for number in range(KILLS):
        given += _killed(path, after=1 + number % 3)
    outbox = Outbox(path, key=KEY, origin=ORIGIN, clock=HandClock(), entropy=SeedEntropy(b"after"))
    stored = [one.envelope for one in outbox.envelopes()]
    assert set(given) <= {one.payload for one in stored}
    state = None
    for one in stored:
        payload = open_envelope(one, KEY.public)
        state = (state or ChainState(chain=payload["chain"])).accept(payload)
    assert state is not None
    assert state.next_seq == len(stored) == 3 * len(outbox.left.sent(limit=10_000))  # whole transactions only
    with outbox.writing() as letters:
        body = {"subject": "sha256:" + "f" * 64, "vote": "veto", "clause": None}
        following = json.loads(letters.seal("vote.cast", body=body).payload)
    assert (following["seq"], following["prev"]) == (state.next_seq, state.prev)
