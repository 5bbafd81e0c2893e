# SPDX-License-Identifier: Apache-2.0
"""What the learning part of a node refuses; privacy refusals are those of `policies.privacy.errors`.

LearningError
  EpisodeUnfitError        learning.episode-unfit     an episode lacks a field, or its shapes or values do
  not fit
  WeightsUnfitError        learning.weights-unfit     a vector of weights of another length, or not finite
  AttemptRepeatedError     learning.attempt-repeated  the same round and attempt is trained twice
  TrainingStoppedError     learning.stopped           the owner of the node stopped the run
  PrivatePartError         learning.private-part      the kept private part is another's, or damaged
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AttemptRepeatedError",
    "EpisodeUnfitError",
    "LearningError",
    "PrivatePartError",
    "TrainingStoppedError",
    "WeightsUnfitError",
]


class LearningError(IriaiError):
    """Root of what training, evaluation and policies refuse."""

    code = "learning.refused"
    exit_code = 3
    http_status = 422


class EpisodeUnfitError(LearningError):
    """An episode lacks a field of the recipe, or its arrays have other shapes; values are never shown."""

    code = "learning.episode-unfit"


class WeightsUnfitError(LearningError):
    """A vector of weights is not one of this recipe, or holds values that are not finite."""

    code = "learning.weights-unfit"


class AttemptRepeatedError(LearningError):
    """A round and attempt that was trained already; its reply lies in the outbox."""

    code = "learning.attempt-repeated"
    exit_code = 4
    http_status = 409


class TrainingStoppedError(LearningError):
    """The owner of the node stopped the run while it trained; no update was made."""

    code = "learning.stopped"
    exit_code = 4
    http_status = 409


class PrivatePartError(LearningError):
    """The private part of a model that was kept here is of another run, recipe or variant, or damaged."""

    code = "learning.private-part"
