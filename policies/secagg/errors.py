# SPDX-License-Identifier: Apache-2.0
"""What secure aggregation refuses. An error names a party where it can prove who is to blame (``offender``).

SecaggError
  KeyNotPinnedError        secagg.key-not-pinned       signed by another key than the contract's
  ContextMismatchError     secagg.context-mismatch     differs from contract, recipe or the own view
  ThresholdError           secagg.threshold            n, t or the colluder rule is not met
  CohortTooSmallError      secagg.cohort-too-small     too few members, or too few independent groups
  SlotUsedError            secagg.slot-used            a second vector, a second confirmation, another set
  RoundBurnedError         secagg.round-burned         the round was opened here, or its slot is gone
  ViewsDifferError         secagg.views-differ         the broker shows two views: an incident
  ShareBadError            secagg.share-bad            not what its dealer committed to
  PartitionBadError        secagg.partition-bad        teams that the revealed nonces do not give
  SetupGoneError           secagg.setup-gone           keys that ended with their process or setup
  BehindError              secagg.behind               lost the thread of the models: asks to be sent one
  SumWrongError            secagg.sum-wrong            counter, tag or norm of the opened sum does not hold
  VectorLateError          secagg.vector-late          came after the online set was shown to members
  UpdateUnfitError         update.unfit                not finite, another shape, or beyond the ring
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "BehindError",
    "CohortTooSmallError",
    "ContextMismatchError",
    "KeyNotPinnedError",
    "PartitionBadError",
    "RoundBurnedError",
    "SecaggError",
    "SetupGoneError",
    "ShareBadError",
    "SlotUsedError",
    "SumWrongError",
    "ThresholdError",
    "UpdateUnfitError",
    "VectorLateError",
    "ViewsDifferError",
]


class SecaggError(IriaiError):
    """Root of what secure aggregation refuses.

    Attributes:
        offender: Party that is provably to blame, or None.
    """

    code = "secagg.refused"
    exit_code = 4
    http_status = 409

    def __init__(
        self, *, need: str, found: str, remedy: str, clause: str | None = None, offender: str | None = None
    ) -> None:
        super().__init__(need=need, found=found, remedy=remedy, clause=clause)
        self.offender = offender


class KeyNotPinnedError(SecaggError):
    """Signed by another key than the one that the contract pins for the party."""

    code = "secagg.key-not-pinned"
    exit_code = 6


class ContextMismatchError(SecaggError):
    """A message about another contract, recipe, run, setup, roster, round, attempt or model."""

    code = "secagg.context-mismatch"


class ThresholdError(SecaggError):
    """The numbers of the contract carry no safe threshold."""

    code = "secagg.threshold"


class CohortTooSmallError(SecaggError):
    """Fewer members or independent groups than the contract asks for; nothing is opened."""

    code = "secagg.cohort-too-small"
    exit_code = 75


class SlotUsedError(SecaggError):
    """A slot masks one vector, confirms one set and helps to open one sum."""

    code = "secagg.slot-used"


class RoundBurnedError(SecaggError):
    """This node helped to open a sum of the round, or a later round was begun."""

    code = "secagg.round-burned"


class ViewsDifferError(SecaggError):
    """Members signed different bytes: an incident, and the signatures are the evidence."""

    code = "secagg.views-differ"
    exit_code = 7


class ShareBadError(SecaggError):
    """A share is not what its dealer committed to, or a secret not what it advertised."""

    code = "secagg.share-bad"


class PartitionBadError(SecaggError):
    """Teams are not the ones that the members' nonces give."""

    code = "secagg.partition-bad"


class SetupGoneError(SecaggError):
    """The keys of this setup are not here: they never outlive the process that drew them."""

    code = "secagg.setup-gone"
    exit_code = 75


class BehindError(SecaggError):
    """This node can check sums from here on, but lacks the model before: the next attempt brings it."""

    code = "secagg.behind"
    exit_code = 75


class SumWrongError(SecaggError):
    """An opened sum that is not the sum of its members' vectors."""

    code = "secagg.sum-wrong"
    exit_code = 3


class VectorLateError(SecaggError):
    """A vector that came after the online set was shown to members: it stays masked, and is not added."""

    code = "secagg.vector-late"


class UpdateUnfitError(SecaggError):
    """An update that cannot be put on the ring: it is not sent."""

    code = "update.unfit"
    exit_code = 3
