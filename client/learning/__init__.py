# SPDX-License-Identifier: Apache-2.0
"""All of the node's torch code: models, private training, judging and acting. Names resolve on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.learning.evaluate import Verdict, judge, mean_loss
    from client.learning.policy import Policy
    from client.learning.tensors import EpisodeArrays
    from client.learning.train import Trainer, fine_tune, local_baseline, warm_up
    from client.learning.weights import initial_weights

__all__ = [
    "EpisodeArrays",
    "Policy",
    "Trainer",
    "Verdict",
    "fine_tune",
    "initial_weights",
    "judge",
    "local_baseline",
    "mean_loss",
    "warm_up",
]

_HOME = {
    "evaluate": ("Verdict", "judge", "mean_loss"),
    "policy": ("Policy",),
    "tensors": ("EpisodeArrays",),
    "train": ("Trainer", "fine_tune", "local_baseline", "warm_up"),
    "weights": ("initial_weights",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        return getattr(import_module(f"client.learning.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'client.learning' has no attribute {name!r}")
