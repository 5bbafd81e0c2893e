# SPDX-License-Identifier: Apache-2.0
"""A sum with enough members and groups that is one heavy member's update: heads are not weight.

Two members weigh 1, two a hundredth; in the sum of all four nobody has more than the half that the contract
allows. The broker leaves the other heavy one out. Each attack is first made against members that count heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.contract import from_tree
from policies.contract.errors import ContractInvalidError
from policies.contract.thresholds import share_at_most
from policies.secagg import ring
from policies.secagg.collector import Setup
from policies.secagg.errors import CohortTooSmallError, ThresholdError
from policies.secagg.record import Record
from policies.secagg.rules import Rules
from policies.secagg.terms import Terms, terms_of
from policies.secagg.transcript import check
from tests.contractsim import authored
from tests.secaggsim import Fleet, Outcome, terms_of_size
from tests.secaggsim import update_of as simulated
from tests.sumnode import NODE, Refused, sum_pool, update_of

VICTIM = "m01"
ONE, LIGHT = 1_000_000, 10_000
UNEVEN: dict[str, Any] = {"weights": (ONE, ONE, LIGHT, LIGHT), "max_share": "0.5"}


@contextmanager
def heads_only() -> Iterator[None]:
    """Members and broker that count heads."""
    with pytest.MonkeyPatch.context() as off:
        off.setattr(Terms, "_check_share", lambda *_: None)
        yield


class Lying(Fleet):
    """A fleet whose broker knows no ``max_share``."""

    def without(self, *away: str) -> Outcome:
        setup = self.setup(rounds=1)
        setup.terms = replace(self.terms, max_share="1")
        return self.round(setup, 1, away={"contribute": away})


def far_off(fleet: Fleet, outcome: Outcome) -> float:
    """How far what the broker has is from the victim's update, beside the update's norm."""
    update = simulated(VICTIM, 1, fleet.terms.dimension)
    found = ring.mean(outcome.z, fleet.terms, outcome.opened.parties)
    return float(np.linalg.norm(found - update) / np.linalg.norm(update))


def test_a_sum_that_is_nearly_one_members_update_is_not_opened() -> None:
    with heads_only():
        fleet = Lying(terms_of_size(4, **UNEVEN))
        assert far_off(fleet, fleet.without("m02")) < 0.05
    fleet = Lying(terms_of_size(4, **UNEVEN))
    with pytest.raises(CohortTooSmallError):
        fleet.without("m02")
    refused = {party: error for (step, party), error in fleet.refused.items() if step == "confirm"}
    assert set(refused) == {"m01", "m03", "m04"}
    assert "0.5 of the weight" in refused[VICTIM].need
    assert "0.980 of the weight for group m01" in refused[VICTIM].found
    fleet = Lying(terms_of_size(4, **UNEVEN))
    assert far_off(fleet, fleet.without("m03")) > 0.5  # the other heavy one is there: it opens, and hides


def test_an_honest_broker_opens_no_such_sum_either() -> None:
    fleet = Fleet(terms_of_size(4, **UNEVEN))
    with pytest.raises(CohortTooSmallError):
        fleet.round(fleet.setup(rounds=1), 1, away={"contribute": ["m02"]})
    assert not [step for step, _ in fleet.refused if step == "confirm"]  # nobody was asked


def test_two_heavy_parties_of_one_group_are_one() -> None:
    groups = ["a", "a", "b", "c", "d"]
    terms = terms_of_size(5, groups=groups, min_parties=3, max_share="0.4")
    terms.check_open(terms.parties)  # two of five
    with pytest.raises(CohortTooSmallError, match=r"0\.500 of the weight for a"):
        terms.check_open(terms.parties[:4])


def test_a_setup_without_the_other_heavy_member_is_refused() -> None:
    fleet = Fleet(terms_of_size(4, **UNEVEN))
    setup = Setup(replace(fleet.terms, max_share="1"), number=1, first_round=1, rounds=1)
    for one in ("m01", "m03", "m04"):
        setup.advert(one, fleet.machines[one].advertise(setup.advertise_ask()))
    with heads_only():
        fleet.machines["m03"].share(setup.share_ask())
    with pytest.raises(CohortTooSmallError, match="of the weight"):
        fleet.machines[VICTIM].share(setup.share_ask())


def test_a_team_of_one_heavy_member_and_light_ones_stays_closed() -> None:
    terms = terms_of_size(
        6, weights=(ONE, ONE, LIGHT, LIGHT, LIGHT, LIGHT), max_share="0.5", max_colluders=0, min_parties=3
    )
    teams = ("m01", "m03", "m04"), ("m02", "m05", "m06")
    rules = Rules(terms, VICTIM, expected_teams=None)
    with heads_only():
        rules.check_crowds(terms.parties, teams)
    with pytest.raises(CohortTooSmallError, match="of the weight"):
        rules.check_crowds(terms.parties, teams)
    assert not terms.any_team_fits  # so chance is not asked for teams at all
    assert terms_of_size(6, max_share="0.34").any_team_fits
    assert not terms_of_size(6, max_share="0.33").any_team_fits


def test_the_auditor_refuses_the_transcript_of_such_a_sum() -> None:
    strict = terms_of_size(4, **UNEVEN)
    with heads_only():
        outcome = Lying(strict).without("m02")
        check(Record.from_bytes(outcome.opened.transcript), strict)
    with pytest.raises(CohortTooSmallError, match="of the weight"):
        check(Record.from_bytes(outcome.opened.transcript), strict)


def test_the_largest_share_that_a_contract_permits_is_the_one_found_by_trying_all() -> None:
    """What the linter warns of, and what teams are drawn by, against every set that may be opened."""
    rng = np.random.default_rng(7)
    for n in (3, 4, 5, 6, 7) * 8:
        names = [f"m{at}" for at in range(n)]
        weights = {one: Fraction(int(rng.integers(1, 40)), 7) for one in names}
        group_of = {one: f"g{rng.integers(0, n)}" for one in names}
        groups = int(rng.integers(1, 1 + len(set(group_of.values()))))
        members = int(rng.integers(groups, n + 1))
        sets = [set(one) for size in range(members, n + 1) for one in combinations(names, size)]
        largest = max(
            sum((weights[one] for one in here if group_of[one] == group), Fraction(0))
            / sum((weights[one] for one in here), Fraction(0))
            for here in sets
            if len({group_of[one] for one in here}) >= groups
            for group in set(group_of.values())
        )
        assert share_at_most(weights, group_of, members=members, groups=groups)[1] == largest


def uneven(light: str) -> list[dict[str, str]]:
    table = {"hanbit": light, "iber": light, "kita": "1", "nord": "1"}
    return [{"party": name, "weight": weight} for name, weight in table.items()]


def test_a_real_node_does_not_confirm_such_a_sum(tmp_path: Path) -> None:
    named: dict[str, Any] = {"weights": "fixed", "fixed_weights": uneven("0.01"), "max_share": "0.5"}

    def leave_nord_out(folder: Path) -> float:
        pool = sum_pool(folder, **{f"aggregation__{name}": value for name, value in named.items()})
        setup = pool.setup()
        pool.terms = setup.terms = replace(pool.terms, max_share="1")  # the broker's own
        pool.machines.pop("nord")
        for machine in pool.machines.values():  # its friends believe it
            machine._terms = machine._rules._terms = setup.terms
        attempt = pool.attempt(setup, 1)
        vectors = pool.vectors(attempt)
        pool.confirm(attempt)
        pool.unmask(attempt)
        found = pool.opened(attempt, vectors)
        update = ring.check_update(update_of(NODE, (1, 1), pool.terms.dimension), pool.terms)
        return float(np.abs(ring.mean(found.z, pool.terms, found.online) - update).max())

    with heads_only():
        assert leave_nord_out(tmp_path / "believing") < 0.02
    with pytest.raises(Refused) as refused:
        leave_nord_out(tmp_path / "careful")
    assert refused.value.code == "secagg.cohort-too-small"


# --- members in name only ---


def contract(light: str) -> Any:
    tree = authored()
    tree["aggregation"] |= {
        "secure_aggregation": "required",
        "weights": "fixed",
        "fixed_weights": uneven(light),
    }
    return from_tree(tree)


def terms_under(agreed: Any) -> Terms:
    return terms_of(
        agreed,
        recipe=agreed.recipes[0].recipe_digest,
        run="run_1",
        manifest="sha256:" + "1" * 64,
        dimension=5,
        honest_min=None,
    )


@pytest.mark.parametrize("light", ["0.0000001", "0.000001", "0.0099"])
def test_members_that_weigh_next_to_nothing_are_refused_at_load_and_at_the_start(
    light: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count as groups, and hide nobody: a weight of 0.0000001 is not one millionth of the largest."""
    assert round(Fraction("0.0000001") * ONE) == 0
    with pytest.raises(ContractInvalidError, match="fixed_weights within 100 to 1 in recipe-1") as refused:
        contract(light)
    assert refused.value.clause == "k-1"
    with monkeypatch.context() as off:
        off.setattr("policies.contract.coherence_numbers.weights_fit", lambda _: True)
        agreed = contract(light)
        with pytest.raises(ThresholdError, match="within 100 to 1"):
            terms_under(agreed)
        off.setattr("policies.secagg.terms.weights_fit", lambda _: True)
        assert min(terms_under(agreed).weights) < LIGHT
    assert min(terms_under(contract("0.01")).weights) == LIGHT


# --- a scale that quantises to nothing ---


@pytest.mark.parametrize(
    "norm_max",
    ["1e-40", "0." + "0" * 330 + "1", "1" + "0" * 48, "1" + "0" * 400, "nan"],
)
def test_a_norm_without_an_ordinary_scale_is_refused_by_its_clause(norm_max: str) -> None:
    """The contract's grammar lets none of these in; a node does not rest on that."""
    agreed = contract("1")
    odd = replace(agreed, aggregation=replace(agreed.aggregation, update_norm_max=norm_max))
    with pytest.raises(ThresholdError, match="update_norm_max of ordinary size") as refused:
        terms_under(odd)
    assert refused.value.clause == "k-1"


@pytest.mark.parametrize("norm_max", ["0.000000000000000001", "999999999999.999999999999999999"])
def test_every_norm_that_a_contract_can_spell_has_an_ordinary_scale(norm_max: str) -> None:
    agreed = contract("1")
    terms = terms_under(replace(agreed, aggregation=replace(agreed.aggregation, update_norm_max=norm_max)))
    assert terms.scale == pytest.approx(2.0**terms.bits / float(norm_max), rel=1e-7)
