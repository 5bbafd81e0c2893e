# SPDX-License-Identifier: Apache-2.0
"""What runs and the release gate are built from, given to them whole by `broker.composition`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.contracts.service import Contracts
    from broker.federation.checkpoints import ModelFiles
    from broker.federation.engine import Engine
    from broker.log import Writer
    from broker.settings import Settings
    from broker.store import Store
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["Journal", "Tools"]


class Journal:
    """What a run says about its progress; the default says nothing."""

    def note(self, event: str, **facts: object) -> None:
        """One line: an event and facts without values of data."""


def _nobody() -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a run is built from; ``witnesses``: how many organisations cosigned the newest quorum's head."""

    engine: Engine
    writer: Writer
    store: Store
    contracts: Contracts
    clock: Clock
    entropy: Entropy
    broker_key: SigningKey
    settings: Settings
    models: ModelFiles
    journal: Journal
    witnesses: Callable[[], int] = _nobody
