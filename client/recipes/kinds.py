# SPDX-License-Identifier: Apache-2.0
"""The kinds of recipes that there are drafts of, apart from all that a draft needs."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Kind"]


class Kind(StrEnum):
    """Of which recipe there is a draft."""

    BEHAVIOUR_CLONING = "behaviour-cloning"
    BEHAVIOUR_CLONING_ACT = "behaviour-cloning-act"
    INVERSE_DYNAMICS = "inverse-dynamics"
    DETECTION = "detection"
    TWO_EMBODIMENTS = "two-embodiments"
