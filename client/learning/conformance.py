# SPDX-License-Identifier: Apache-2.0
"""Gate G1: is what is installed here what the plan says? The real parts of training, on made-up units.

The parts (`Parts`) are those that a run is made of; a test hands in broken ones. No episode is opened and no
budget is spent. In this order, each judged by checks of `policies.privacy.conformance.CHECKS`:

1. A few steps with nobody drawn, in two runs: each is noisy, and none runs beyond the plan's number.
2. Without noise: taking one unit out moves the engine's sum by at most C, also at 100 times the scale; and
   what a step gives is the sum of the canaries that were drawn, one clip norm each, and nothing else.
3. Draws from a thousand units in strata of many sizes, for which nothing is computed: each unit at its own
   probability, afresh at every step and in every run.
4. Generators that were just made: each from a fresh key of the operating system, fine enough, and no two
   with the same numbers, nor with those of the steps.
5. Steps with canaries (`client.learning.canary_gradients`), as many as the figures need (`Size`).
   Who was drawn, and how long the units were that reached the engine.
6. Coordinates that no unit of the step touches are noise, those of the model's own layers among them: their
   variance, shape and freshness.
7. Scores of the canaries against counts give what a unit weighs and the noise it hides in. With the rate at
   which they were drawn, they compose over the plan's T steps to ``mu = q sqrt(T) weight / std``
   (arXiv 2302.03098, per step). It must be within 25 % of the plan's on both sides: too much noise, and no
   training at all, are failures too. With noise shares, mu is that of the sum of ``honest_min`` such nodes.
8. The epsilon that the lower bound of mu stands for must not be above the claim, `epsilon_pld`.

A correct installation fails with a chance of about one in a million for each check.

    report = audit(recipe, entropy=SystemEntropy(), clock=SystemClock())
    report.need_passed()                    # AuditFailedError
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from client.learning.conformance_bench import Bench, Parts, Size, Steps, probability
from client.learning.conformance_findings import findings
from client.learning.conformance_seen import Observed
from client.software import software
from policies.privacy.conformance import ConformanceReport, figure
from policies.privacy.errors import EvalUnplannedError
from policies.privacy.receipts import MadeWith
from policies.privacy.tight import epsilon_pld, is_too_weak

if TYPE_CHECKING:
    from client.learning.noise import NoiseSource
    from policies.ports import Clock, Entropy
    from policies.privacy.plan import DpPlan
    from policies.recipe import Recipe

__all__ = ["Parts", "Size", "Steps", "audit"]

_SAMPLER: Final = MadeWith(engine="").sampler
_GENERATOR: Final = MadeWith(engine="").generator


def audit(
    recipe: Recipe,
    *,
    entropy: Entropy,
    clock: Clock,
    parts: Parts | None = None,
    plan: DpPlan | None = None,
) -> ConformanceReport:
    """Tests the installed parts of training against the recipe's plan.

    Args:
        recipe: Its plan and model.
        entropy: The operating system's.
        clock: Tells how long it took.
        parts: What is tested; what a run here is made of, if left out.
        plan: Another plan over the recipe's model.

    Returns:
        The report; it may say that the audit failed.

    Raises:
        EvalUnplannedError: The recipe has no plan.
        ModelRefusedError: The engine has no rule for a layer of the model.
    """
    plan = plan or recipe.plan
    if plan is None:
        raise EvalUnplannedError(
            need="a recipe with a privacy plan", found="none: NOT PRIVATE", remedy="nothing can be audited"
        )
    begun = clock.now_ms()
    size = Size.of(plan, recipe.parameters)
    bench = Bench(recipe, plan, parts or Parts(), size, entropy)
    seen = _observed(bench, size)
    figures, checks = findings(plan, seen, probability=probability(plan), epsilon_pld=_claim(plan))
    return ConformanceReport(
        plan=plan.digest,
        recipe=recipe.digest,
        software=software(),
        engine=bench.engine_name,
        sampler=_SAMPLER,
        generator=_generator(bench.parts.noise(entropy)),
        canaries=size.canaries,
        directions=size.directions,
        steps=size.steps + sum(len(run) for run in seen.empty.runs) + len(seen.crowd.drawn),
        parameters=recipe.parameters,
        figures=figures,
        checks=checks,
        seconds=figure((clock.now_ms() - begun) / 1000),
    )


def _observed(bench: Bench, size: Size) -> Observed:
    """All experiments, in the order of the module."""
    empty, moved, exact = bench.empty_steps(), bench.farthest(), bench.exact_steps()
    crowd, fresh, canaries = bench.crowd_steps(), bench.fresh_generators(), bench.canary_steps()
    return Observed(
        sizes=bench.sizes,
        directions=size.directions,
        empty=empty,
        moved=moved,
        exact=exact,
        crowd=crowd,
        canaries=canaries,
        fresh=fresh,
        longest=bench.tap.longest,
        clip=bench.tap.clip,
    )


@lru_cache(maxsize=64)
def _claim(plan: DpPlan) -> float:
    """`epsilon_pld`, which takes as long as the rest of an audit, once per plan; else `epsilon_rdp`."""
    return plan.epsilon_rdp if is_too_weak(plan) else epsilon_pld(plan)


def _generator(noise: NoiseSource) -> str:
    """Name of the generator, as step receipts have it if it is the one that private runs use."""
    if noise.predictable:
        return "seeded"
    kind = type(noise.choice.bit_generator).__name__
    return _GENERATOR if kind == "ChaCha" else kind
