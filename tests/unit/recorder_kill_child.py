# SPDX-License-Identifier: Apache-2.0
"""Records three episodes, opens a fourth, says so, and waits to be killed. Argument: the folder."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from client.deploy.episode_files import EpisodeFiles
from client.deploy.recorder import EpisodeRecorder
from client.deploy.ring import Ring
from tests.servesim import SaidModel, TimedServing, facts, question, tick_ns

folder = Path(sys.argv[1])
files = EpisodeFiles(folder / "deployed", facts(), "host", service="cell")
sink = EpisodeRecorder(files, Ring.open(folder / "open.ring", facts()), free=lambda: 10**12)
serving = TimedServing(SaidModel(), clock_kind="host", recorder=sink)
for first in (0, 20, 40, 60):
    for tick in range(first, first + 7):
        serving.infer(question(tick), now_ns=tick_ns(tick))
    if first < 60:
        serving.end_episode("success").result(10)  # type: ignore[union-attr]
print("open", flush=True)
signal.pause()
