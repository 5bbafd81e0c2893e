# SPDX-License-Identifier: Apache-2.0
"""Seals envelopes until it is killed, and says each one that was durable; started by test_node_killed."""

from __future__ import annotations

import sys
from pathlib import Path

from client.entropy import SystemEntropy
from client.outbox import Outbox
from policies.identity import SigningKey
from tests.nodesim import ORIGIN, HandClock


def main() -> None:
    key = SigningKey.from_seed(b"n" * 32)
    outbox = Outbox(Path(sys.argv[1]), key=key, origin=ORIGIN, clock=HandClock(), entropy=SystemEntropy())
    number = 0
    while True:
        with outbox.writing() as letters:
            sealed = [
                letters.seal(
                    "vote.cast", body={"subject": f"sha256:{number:064x}", "vote": "approve", "clause": None}
                )
                for _ in range(3)
            ]
            letters.note(kind="test", size_bytes=1, digest="sha256:" + "0" * 64)
        print(" ".join(one.payload.hex() for one in sealed), flush=True)
        number += 1


main()
