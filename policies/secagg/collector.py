# SPDX-License-Identifier: Apache-2.0
"""The broker's side of secure aggregation: setups and attempts, without I/O.

`Setup` gathers keys and shares for `SECAGG_ROUNDS` rounds, `Attempt` one sum. Both hold public data only; a
broker that is honest gives every member the same bytes, and members find out about one that is not.
"""

from __future__ import annotations

from policies.secagg.attempts import Attempt, Opened
from policies.secagg.setups import Setup

__all__ = ["Attempt", "Opened", "Setup"]
