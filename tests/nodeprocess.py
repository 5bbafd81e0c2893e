# SPDX-License-Identifier: Apache-2.0
"""Another process of a node: opens the outbox in a folder, says what it holds, seals, closes. Run as a script.

python tests/nodeprocess.py FOLDER KEY_PEM_HEX ORIGIN [NUMBER …]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from client.entropy import SystemEntropy
from client.outbox import Outbox
from policies.identity import SigningKey
from tests.nodesim import HandClock


def run_process(folder: Path, *numbers: int, key: SigningKey, origin: str) -> dict[str, Any]:
    """Runs the process to its end; gives what it found, as rows of the outbox, and what it sealed."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), key.to_pem().hex(), origin, *map(str, numbers)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """The process itself."""
    folder, pem, origin, *numbers = sys.argv[1:]
    key = SigningKey.from_pem(bytes.fromhex(pem))
    outbox = Outbox(
        Path(folder) / "outbox.db", key=key, origin=origin, clock=HandClock(), entropy=SystemEntropy()
    )
    found = {
        "kinds": [one.kind for one in outbox.envelopes()],
        "waiting": [one.seq for one in outbox.pending()],
        "sealed": [],
    }
    for number in numbers:
        body = {"subject": f"sha256:{int(number):064x}", "vote": "approve", "clause": None}
        with outbox.writing() as letters:
            found["sealed"].append(json.loads(letters.seal("vote.cast", body=body).payload)["seq"])
    outbox.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
