# SPDX-License-Identifier: Apache-2.0
"""A whole broker from its folder: databases, log, engine, round runner. The one place that knows them all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from broker.boot import open_services
from broker.federation.checkpoints import ModelFiles
from broker.federation.flower.grid import FlowerEngine
from broker.federation.runner import RoundRunner
from broker.federation.tools import Journal, Tools
from broker.settings import Settings
from policies.encoding import canonical
from policies.ports import iso_ms

if TYPE_CHECKING:
    from pathlib import Path

    from broker.services import Services
    from policies.ports import Clock, Entropy

__all__ = ["StderrJournal", "compose"]


class StderrJournal(Journal):
    """One JSON line per event on standard error: ids, counts and codes, never values of data."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def note(self, event: str, **facts: object) -> None:
        """Writes one line."""
        shown = {name: value if isinstance(value, int) else str(value) for name, value in facts.items()}
        line = canonical({"ts": iso_ms(self._clock.now_ms()), "event": event, **shown})
        sys.stderr.write(line.decode("utf-8") + "\n")
        sys.stderr.flush()


def compose(directory: Path, *, clock: Clock, entropy: Entropy) -> Services:
    """Opens the broker of a folder with its engine and its runner; `broker.app.build` serves it.

    Raises:
        NotInitialisedError: No broker in the folder.
        AlreadyRunningError: Another process serves it.
        IriaiError: Settings, keys or databases are not in order.
    """
    settings = Settings.load(directory)
    engine = FlowerEngine(state_dir=settings.fleet, clock=clock)
    services = open_services(directory, clock=clock, entropy=entropy, engine=engine)
    services.runner = RoundRunner(
        Tools(
            engine=engine,
            writer=services.writer,
            store=services.store,
            contracts=services.contracts,
            clock=clock,
            entropy=entropy,
            broker_key=services.keys.broker,
            settings=settings,
            models=ModelFiles(settings.models),
            journal=StderrJournal(clock),
            witnesses=lambda: services.witnessing.organisations,
        )
    )
    return services
