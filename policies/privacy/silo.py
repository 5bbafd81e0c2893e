# SPDX-License-Identifier: Apache-2.0
"""What is never claimed: privacy of a whole silo, where there are fewer than 50 of them.

To hide everything of one maker, the noise has to cover a whole silo's update. With three to twenty silos
it is 2.6 to 173 times the best signal that their mean can carry (epsilon 8, delta 1e-3;
`silo_noise_ratio`), so the claim could be printed and the model could not be used. What is said instead is
`NO_SILO_CLAIM`.
"""

from __future__ import annotations

import math
from typing import Final

from policies.limits import SILO_CLAIM_MIN
from policies.privacy.accounting import calibrate
from policies.privacy.errors import SiloClaimRefusedError

__all__ = ["NO_SILO_CLAIM", "silo_claim", "silo_noise_ratio"]

NO_SILO_CLAIM: Final = (
    "No silo-level privacy. Contents are protected per unit; facts about a whole silo by secure aggregation, "
    "policy and audit only."
)


def silo_claim(n_silos: int | None) -> None:
    """Refuses a claim about whole silos where there are too few of them, or nobody knows how many.

    Raises:
        SiloClaimRefusedError: Fewer than 50, or None.
    """
    if n_silos is None or n_silos < SILO_CLAIM_MIN:
        raise SiloClaimRefusedError(
            need=f"at least {SILO_CLAIM_MIN} silos",
            found="an unknown number" if n_silos is None else str(n_silos),
            remedy="claim the unit (episode, work-piece or order); whole silos are not claimed for",
        )


def silo_noise_ratio(n_silos: int, *, steps: int, parameters: int, epsilon: float, delta: float) -> float:
    """Noise norm over the best signal of the mean update, if whole silos were protected."""
    sigma = float(calibrate(epsilon, delta, 1.0, steps))
    return sigma * math.sqrt(parameters) / n_silos
