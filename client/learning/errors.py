# SPDX-License-Identifier: Apache-2.0
"""What the learning part of a node refuses; privacy refusals are those of `policies.privacy.errors`.

LearningError
  EpisodeUnfitError        learning.episode-unfit     an episode lacks a field, or its shapes or values do
  not fit
  WeightsUnfitError        learning.weights-unfit     a vector of weights of another length, or not finite
  AttemptRepeatedError     learning.attempt-repeated  the same round and attempt is trained twice
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["AttemptRepeatedError", "EpisodeUnfitError", "LearningError", "WeightsUnfitError"]


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
