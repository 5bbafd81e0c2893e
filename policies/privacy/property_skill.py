# SPDX-License-Identifier: Apache-2.0
"""Property inference: how well a fact about a whole silo follows from what leaves it, and the report of it.

Differential privacy of units does not hide such a fact: a product mix moves many units. So it is measured.

- Skill is ``1 - MAE / MAE_guess``: 0 for a guess of the average, 1 for certainty. It may be below 0.
- The attacker fits a ridge regression to shadow silos whose property it chose, and is judged on others.
- ``update`` is what a broker sees of one silo without secure aggregation, ``sum`` what it sees with it. The
  recipient sees a model that follows from the sums, so at most what the sums give.

Ridge with the closed form of leave-one-out errors: Golub, Heath and Wahba, Technometrics 21 (1979). numpy and
the standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.encoding import check_profile, decimal_text, digest_of
from policies.errors import EncodingError
from policies.privacy.errors import PlanIncompleteError
from policies.privacy.gaussian_mu import z_of
from policies.privacy.leakage_estimates import CONFIDENCE, Bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCHEMA", "PropertyReport", "ridge_predictions", "shown", "skill"]

Json = dict[str, Any]
Floats = npt.NDArray[np.floating[Any]]
Array64 = npt.NDArray[np.float64]
SCHEMA: Final = "iriai-property-audit/1"
VIEWS: Final = ("update", "sum")
_TEXTS: Final = ("recipe", "plan", "about", "seconds")
_COUNTS: Final = ("units", "silos", "steps", "shadows")
_RIDGES: Final = tuple(10.0**k for k in range(-6, 4))
_PLACES: Final = 10_000


def skill(predicted: Floats, actual: Floats, *, guess: float) -> Bounded:
    """``1 - MAE / MAE_guess`` with one-sided 95 % bounds (delta method).

    Args:
        predicted: ``[n]``.
        actual: ``[n]``, the property of silos that were not fitted.
        guess: What one would say without seeing anything: the average of the fitted ones.
    """
    seen = np.asarray(actual, dtype=np.float64)
    errors, blind = np.abs(np.asarray(predicted) - seen), np.abs(seen - guess)
    base = float(blind.mean())
    if base <= 0:
        return Bounded(value=0.0, low=0.0, high=0.0)
    ratio = float(errors.mean()) / base
    reach = z_of(CONFIDENCE) * float(np.std(errors - ratio * blind, ddof=1)) / (base * math.sqrt(len(seen)))
    return Bounded(value=1 - ratio, low=1 - ratio - reach, high=1 - ratio + reach)


def ridge_predictions(train: Floats, values: Floats, test: Floats) -> Array64:
    """Predictions of a ridge regression whose strength is chosen by leave-one-out error on the fitted rows.

    Args:
        train: ``[n, p]`` what was seen of each shadow silo.
        values: ``[n]`` their property.
        test: ``[m, p]`` what was seen of the silos to judge.
    """
    rows, asked = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    centre, middle = rows.mean(0), float(np.mean(values))
    rows, asked, wanted = rows - centre, asked - centre, np.asarray(values, dtype=np.float64) - middle
    powers, basis = np.linalg.eigh(rows @ rows.T)
    powers, scale = np.maximum(powers, 0.0), float(np.mean(powers))
    if scale <= 0:  # all silos look alike
        return np.full(len(asked), middle)
    turned = basis.T @ wanted

    def left_out(strength: float) -> float:
        kept = powers / (powers + strength * scale)
        fitted, leverage = basis @ (kept * turned), (basis**2) @ kept + 1 / len(wanted)
        return float(np.mean(np.abs((wanted - fitted) / np.maximum(1 - leverage, 1e-9))))

    best = min(_RIDGES, key=left_out)
    dual = basis @ (turned / (powers + best * scale))
    predicted: Array64 = asked @ (rows.T @ dual) + middle
    return predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyReport:
    """What updates give away of one property.

    Attributes:
        recipe: Digest of the recipe.
        plan: Digest of its privacy plan.
        about: The property that was asked for: ``mix``, the share of one kind of work.
        units: Units of a silo.
        silos: Silos in the sum.
        steps: Rounds that the attacker saw.
        shadows: Shadow silos, fitted and judged.
        skills: By view (`VIEWS`): ``value``, ``low``, ``high``, decimal strings; a negative skill is 0.
        seconds: How long it took.
    """

    recipe: str
    plan: str
    about: str
    units: int
    silos: int
    steps: int
    shadows: int
    skills: Mapping[str, Mapping[str, str]]
    seconds: str

    @property
    def document(self) -> Json:
        """The JSON form, `SCHEMA`."""
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in (*_TEXTS, *_COUNTS)},
            "skills": {view: dict(self.skills[view]) for view in VIEWS},
        }

    @property
    def digest(self) -> str:
        """Digest of the canonical bytes of the JSON form."""
        return digest_of(self.document)

    def skill_of(self, *, secure_aggregation: bool) -> float:
        """The skill that a contract's ``max_property_skill`` is compared with."""
        return float(self.skills["sum" if secure_aggregation else "update"]["value"])

    @classmethod
    def load(cls, document: object) -> PropertyReport:
        """The report behind a parsed JSON value, of whatever origin.

        Raises:
            PlanIncompleteError: Another form.
        """
        try:
            check_profile(document)  # no deeper than a signed document: what follows may recurse
            report = _read(document)
        except (KeyError, TypeError, ValueError, AttributeError, EncodingError) as error:
            raise _unfit(type(error).__name__) from error
        if report.document != document:
            raise _unfit("other fields")
        return report


def shown(bounded: Bounded) -> dict[str, str]:
    """A skill as decimal strings."""
    return {
        name: decimal_text(f"{max(0, round(getattr(bounded, name) * _PLACES)) / _PLACES:.4f}")
        for name in ("value", "low", "high")
    }


def _read(document: Any) -> PropertyReport:  # noqa: ANN401  whatever another party sent
    whole: Json = {name: str(document[name]) for name in _TEXTS}
    whole |= {name: document[name] for name in _COUNTS}
    skills = {view: {k: str(document["skills"][view][k]) for k in ("value", "low", "high")} for view in VIEWS}
    texts = [one for row in skills.values() for one in row.values()]
    if not all(type(whole[name]) is int and whole[name] > 0 for name in _COUNTS):
        raise ValueError("counts")
    if any(decimal_text(one) != one for one in (*texts, whole["seconds"])):
        raise ValueError("figures")
    return PropertyReport(skills=skills, **whole)


def _unfit(found: str) -> PlanIncompleteError:
    return PlanIncompleteError(
        need=f"a whole report {SCHEMA}",
        found=found,
        remedy="run the audit again: iriai-node privacy audit --mix",
    )
