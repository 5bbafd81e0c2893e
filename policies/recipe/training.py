# SPDX-License-Identifier: Apache-2.0
"""How nodes train and how the server steps: the blocks ``train`` and ``server`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.privacy.plan import Dec, PositiveDec, ProbabilityDec  # noqa: TC001  read at run time
from policies.recipe.words import Block, PartDec, Whole

__all__ = ["Server", "ServerAdam", "ServerMean", "ServerMomentum", "Train", "TrainAdam", "TrainDp"]


class TrainDp(Block):
    """Private rounds: one noisy step of the plan; no other knob touches the data."""

    kind: Literal["dp-step"]


class TrainAdam(Block):
    """Non-private rounds: local Adam with fresh state, learning rate by cosine over the rounds.

    Attributes:
        proximal: mu of FedProx: each local step also descends ``mu / 2 * norm(w - w_round)^2``, which holds
            local weights near the round's base model; null or 0 adds nothing.
        private: ``held``: private tensors rest during the rounds, so that every site trains the trunk behind
            one and the same first stem and head, and trains all of its model on at home afterwards (FedBABU).
            Absent: they are trained with the trunk.
    """

    kind: Literal["adam-local"]
    local_steps: Whole
    batch: Whole
    rate_first: PositiveDec
    rate_last: PositiveDec
    weight_decay: PositiveDec
    proximal: Dec | None
    private: Literal["held"] | None = None


class ServerMean(Block):
    """FedAvg: model += mean."""

    kind: Literal["mean"]


class ServerMomentum(Block):
    """FedAvgM: v = decay v + mean; model += rate v. Decay 0 is FedAvg at a server's rate."""

    kind: Literal["momentum"]
    decay: PartDec
    rate: PositiveDec


class ServerAdam(Block):
    """Adam on the mean; rate falls by ``decay`` over ``steps``; the running average is released.

    Attributes:
        update: What the mean is of: a ``gradient`` is descended, a ``difference`` of weights is added
            (FedAdam). It follows from the plan and is written all the same, because it is a sign.
        decay: Part of the rate that is gone at the end; 0 keeps it.
        average: Weight of the past in what is released; 0 releases the last weights.
    """

    kind: Literal["adam"]
    update: Literal["gradient", "difference"]
    rate: PositiveDec
    decay: PartDec
    beta1: ProbabilityDec
    beta2: ProbabilityDec
    epsilon: PositiveDec
    average: PartDec
    steps: Whole

    @model_validator(mode="after")
    def _below_one(self) -> Self:
        if any(float(beta) >= 1 for beta in (self.beta1, self.beta2, self.average)):
            raise ValueError("beta1, beta2 and average below 1")
        return self


Train = Annotated[TrainDp | TrainAdam, Field(discriminator="kind")]
Server = Annotated[ServerMean | ServerMomentum | ServerAdam, Field(discriminator="kind")]
