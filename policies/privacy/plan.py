# SPDX-License-Identifier: Apache-2.0
"""The privacy plan: one frozen object gives sampler, clip, noise and accounting event.

- A plan is data of the recipe, hashed into the contract. No second place holds a privacy number.
- Every number is a decimal string, every field is spelled out: software writes no default into a signed
  document.
- There is no "sensitivity" field, by design: noise is ``noise_multiplier * clip_norm`` and nothing else.
- ``noise: local-full``: each node adds all of it. ``noise: shares``: each node adds a part whose variance is
  one ``honest_min``-th; only a sum that nobody can take apart is protected then (`policies.privacy.shares`),
  one step a round.
- What would be a second place for a number, another mechanism or another sampler is refused by its name: an
  accountant, a loader, shuffle or batch size, a search on private data (`policies.privacy.plan_refusals`).
- ``clipping: normalised`` gives every unit the norm ``clip_norm`` (arXiv 2206.07136, with a small constant so
  that a zero gradient stays zero): no budget and no search go into that number.

    plan = DpPlan.load(document)          # PrivacyError: incomplete, or refused by name
    plan.digest, plan.noise_std, plan.epsilon_rdp, plan.rho_step_nano(order=4)
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from policies.encoding import Json, canonical, decimal_text, digest
from policies.errors import EncodingError
from policies.limits import FRAMES_PER_UNIT, HONEST_MIN, PARTIES, PLAN_STEPS
from policies.privacy.accounting import epsilon_rdp, gaussian_rho_nano, rho_step_nano
from policies.privacy.errors import DeltaTooLargeError, PlanIncompleteError
from policies.privacy.plan_refusals import refuse_by_name, shown

__all__ = ["Dec", "DpPlan", "EvalPlan", "PositiveDec", "ProbabilityDec", "noise_std"]

_DIGITS = 12


def _plain(text: str) -> str:
    try:
        plain = decimal_text(text)
    except EncodingError as error:
        raise ValueError(f"{error.need}; found {error.found}") from error
    if plain != text:
        raise ValueError(f"write {plain!r}")
    if len(plain.replace(".", "").strip("0")) > _DIGITS:
        raise ValueError(f"at most {_DIGITS} significant digits")
    return text


def _positive(text: str) -> str:
    if float(text) <= 0:
        raise ValueError("above 0")
    return text


def _probability(text: str) -> str:
    if float(text) > 1:
        raise ValueError("at most 1")
    return text


def _open_probability(text: str) -> str:
    if float(text) >= 1:
        raise ValueError("below 1")
    return text


Dec = Annotated[str, AfterValidator(_plain)]
PositiveDec = Annotated[Dec, AfterValidator(_positive)]
ProbabilityDec = Annotated[PositiveDec, AfterValidator(_probability)]
DeltaDec = Annotated[PositiveDec, AfterValidator(_open_probability)]
Count = Annotated[int, Field(strict=True, ge=1, le=PLAN_STEPS)]
Frames = Annotated[int, Field(strict=True, ge=1, le=FRAMES_PER_UNIT)]
Unit = Literal["episode", "work-piece", "order"]
Adjacency = Literal["zero-out"]


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_by_name=False)

    unit: Unit
    adjacency: Adjacency
    noise_multiplier: PositiveDec
    normalizer: PositiveDec
    delta: DeltaDec

    @classmethod
    def load(cls, document: Json) -> Self:
        """The plan behind a parsed JSON object.

        Raises:
            PlanIncompleteError: A field is missing, unknown, of another type, not finite or out of range; or
                the adjacency is another than zero-out.
            UnitRefusedError: The unit is the frame.
            SiloClaimRefusedError: The unit is the silo.
            AccountantRefusedError: Another mechanism, or an accountant named beside the plan's own.
            SamplerForeignError: A loader, shuffle, epoch or batch size.
            SearchUnaccountedError: A search of settings on private data.
            SharesUnfitError: Noise shares without ``honest_min``, or with more than one step per round.
        """
        facts = document if isinstance(document, dict) else {}
        refuse_by_name(facts)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the plan"
            missing = first["type"] == "missing" or (bool(first["loc"]) and first["input"] is None)
            why = f"the field {where}" if missing else f"{where}: {first['msg']}"
            raise PlanIncompleteError(
                need=f"a complete {cls.__name__}: {why}",
                found="nothing" if missing else shown(first["input"]),
                remedy="complete the plan; decimals are strings in plain notation",
            ) from error

    @property
    def document(self) -> dict[str, Any]:
        """The plain JSON object that the digest is taken over."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes."""
        return digest(canonical(self.document))

    def check_units(self, units: int) -> None:
        """Refuses a delta that would allow giving one unit away.

        Raises:
            DeltaTooLargeError: ``delta`` is above ``1 / (10 * units)``.
        """
        if units > 0 and float(self.delta) * 10 * units > 1:
            raise DeltaTooLargeError(
                need=f"delta at most 1/(10 * {units} units)",
                found=self.delta,
                remedy="a smaller delta in the plan",
            )


class DpPlan(_Plan):
    """Plan of private training: Poisson-sampled units, clipped, summed, Gaussian noise.

    Attributes:
        unit: What is clipped, sampled and counted; the frame never is.
        adjacency: ``zero-out``: neighbours differ by replacing one unit with nothing, and the number of units
            is no secret. ``add-remove`` is refused by name: it would have to hide that number, which size
            buckets and refusals tell.
        noise: ``local-full``: each node adds the whole noise; the guarantee rests on no other party.
            ``shares``: each adds a part of it; the guarantee rests on ``honest_min`` honest silos.
        honest_min: Silos whose parts together are the whole noise; null with ``local-full``.
        clipping: ``flat`` scales a gradient down to at most ``clip_norm``; ``normalised`` scales every one to
            it.
        strata_target: Public number of units that each stratum gives per step on average, or null: a stratum
            of n units is drawn with ``min(sampling_prob, strata_target / n)``. Sound because of ``zero-out``.
        sampling_prob: q, per unit and step.
        noise_multiplier: Sigma, in units of ``clip_norm``.
        clip_norm: C, bound of one unit's gradient norm.
        steps: T, every noisy step that may ever run, retries included.
        steps_per_round: Noisy steps per touch of the budget.
        normalizer: Public divisor of the noisy sum; never a count of private data.
        frames_per_unit: K, frames drawn per unit and step.
        test_only: Seeded noise allowed; every statement then says NOT PRIVATE.
    """

    schema_: Literal["iriai-dp-plan/1"] = Field(alias="schema")
    mechanism: Literal["poisson-gaussian"]
    noise: Literal["local-full", "shares"]
    honest_min: Annotated[int, Field(strict=True, ge=HONEST_MIN, le=PARTIES)] | None
    sampling_prob: ProbabilityDec
    clip_norm: PositiveDec
    clipping: Literal["flat", "normalised"]
    frames_per_unit: Frames
    steps: Count
    steps_per_round: Count
    strata_target: PositiveDec | None
    test_only: Annotated[bool, Field(strict=True)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.steps_per_round > self.steps:
            raise ValueError("steps_per_round at most steps")
        return self

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that protects the clipped sum."""
        return float(self.noise_multiplier) * float(self.clip_norm)

    @property
    def added_std(self) -> float:
        """Standard deviation of what one node adds: all of `noise_std`, or its share."""
        return self.noise_std if self.honest_min is None else self.noise_std / math.sqrt(self.honest_min)

    @property
    def epsilon_rdp(self) -> float:
        """Epsilon of all ``steps`` at ``delta``, best order."""
        return epsilon_rdp(
            q=float(self.sampling_prob),
            sigma=float(self.noise_multiplier),
            steps=self.steps,
            delta=float(self.delta),
        )

    def rho_step_nano(self, *, order: int) -> int:
        """Cost of one step at a filter's order, in billionths."""
        return rho_step_nano(q=float(self.sampling_prob), sigma=float(self.noise_multiplier), order=order)


class EvalPlan(_Plan):
    """Plan of federated evaluation: one Gaussian query per call on all held-out units; only a vote leaves.

    Attributes:
        loss_bound: B; a unit's loss is clipped to [0, B].
        noise_multiplier: Sigma, in units of ``loss_bound``.
        normalizer: Public divisor of the noisy sum of losses.
        threshold: The vote is ``accept`` if the noised mean loss is at most this.
        steps: How many calls may ever run.
    """

    schema_: Literal["iriai-eval-plan/1"] = Field(alias="schema")
    loss_bound: PositiveDec
    threshold: PositiveDec
    steps: Count

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the sum of clipped losses."""
        return float(self.noise_multiplier) * float(self.loss_bound)

    @property
    def epsilon_rdp(self) -> float:
        """Epsilon of all calls at ``delta``, best order."""
        return epsilon_rdp(
            q=1.0, sigma=float(self.noise_multiplier), steps=self.steps, delta=float(self.delta)
        )

    def rho_step_nano(self, *, order: int) -> int:
        """Cost of one call at a filter's order, in billionths."""
        return gaussian_rho_nano(sigma=float(self.noise_multiplier), order=order)


def noise_std(plan: DpPlan | EvalPlan) -> float:
    """Standard deviation of the noise on a plan's sum: noise multiplier times bound."""
    return plan.noise_std
