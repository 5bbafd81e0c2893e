# SPDX-License-Identifier: Apache-2.0
"""A broker that is killed at a statement of the last signature's transaction: SIGKILL by its own hand.

Usage: ``negotiation_kill_child.py FOLDER REQUEST AT``. FOLDER holds a broker in which one signature is missing, REQUEST the signed
HTTP request that brings it, AT is the number of the statement that is not executed any more. It prints ``final`` if it gets through.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.brokersim import HandClock, open_house, statements


async def main(folder: Path, facts: dict[str, Any], left: int) -> None:

    def count(_sql: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async with open_house(folder, clock=HandClock(facts["now_ms"])) as house:
        with statements(house, count):
            answer = await house.http.send(
                httpx.Request("POST", facts["url"], content=facts["body"].encode(), headers=facts["headers"])
            )
        print(answer.json().get("state", answer.text), flush=True)
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])))
