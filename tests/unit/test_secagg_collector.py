# SPDX-License-Identifier: Apache-2.0
"""The broker's machines outside of attacks: steps and their order, bytes across a restart, sizes on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from policies.secagg.collector import Attempt, Setup
from policies.secagg.errors import CohortTooSmallError, ContextMismatchError, SecaggError, SetupGoneError
from policies.secagg.record import Record
from tests.secaggsim import MODEL, Fleet, open_team, terms_of_size


def steps(setup: Setup, fleet: Fleet) -> Setup:
    """A setup that is written and read again after every answer."""
    for one, machine in fleet.machines.items():
        setup.advert(one, machine.advertise(setup.advertise_ask()))
        setup = Setup.from_bytes(setup.to_bytes(), fleet.terms)
    for one, machine in fleet.machines.items():
        setup.shared(one, machine.share(setup.share_ask()))
        setup = Setup.from_bytes(setup.to_bytes(), fleet.terms)
    for one, machine in fleet.machines.items():
        setup.opened(one, machine.open(setup.open_ask(one)))
        setup = Setup.from_bytes(setup.to_bytes(), fleet.terms)
    return setup


def test_a_setup_goes_on_after_a_restart_at_any_step() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = steps(Setup(fleet.terms, number=1, first_round=1, rounds=2), fleet)
    assert setup.ready
    fleet.round(setup, 1)
    again = Setup.from_bytes(setup.to_bytes(), fleet.terms)
    assert again.reveals(2) == setup.reveals(2)
    outcome = fleet.round(again, 2)
    assert np.array_equal(outcome.z, fleet.plain_sum(fleet.terms.parties, 2))


def test_a_setup_that_was_kept_under_other_terms_is_refused() -> None:
    fleet = Fleet(terms_of_size(4))
    data = fleet.setup().to_bytes()
    with pytest.raises(SecaggError):
        Setup.from_bytes(data, terms_of_size(4, run="run_2"))


def test_too_few_adverts_or_shares_make_no_setup() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = Setup(fleet.terms, number=1, first_round=1, rounds=1)
    with pytest.raises(CohortTooSmallError):
        setup.share_ask()
    for one in ("m01", "m02", "m03"):
        setup.advert(one, fleet.machines[one].advertise(setup.advertise_ask()))
    assert setup.advertisers == ("m01", "m02", "m03")
    ask = setup.share_ask()
    for one in ("m01", "m02"):
        setup.shared(one, fleet.machines[one].share(ask))
    with pytest.raises(CohortTooSmallError):
        setup.open_ask("m01")
    assert not setup.ready
    with pytest.raises(SetupGoneError):
        _ = setup.seal


def test_answers_that_come_late_or_unasked_are_dropped() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    machine = fleet.machines["m01"]
    for take, answer in (
        (setup.advert, machine.advertise(setup.advertise_ask())),
        (setup.shared, machine.share(setup.share_ask())),
    ):
        with pytest.raises(ContextMismatchError) as refused:
            take("m01", answer)
        assert refused.value.offender == "m01"


def test_an_attempt_without_enough_of_anything_opens_nothing() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    fleet.contribute(attempt, away=["m01", "m02"])
    with pytest.raises(CohortTooSmallError):
        attempt.confirm_ask()
    attempt = fleet.attempt(setup, 1, 2)
    vectors = fleet.contribute(attempt)
    fleet.gather("confirm", attempt, away=["m01", "m02"])
    assert not attempt.enough_confirmed
    with pytest.raises(CohortTooSmallError):
        attempt.unmask_ask()
    attempt = fleet.attempt(setup, 2)
    vectors = fleet.contribute(attempt)
    fleet.gather("confirm", attempt)
    fleet.gather("unmask", attempt, away=["m01", "m02"])
    assert not attempt.enough_unmasked
    with pytest.raises(CohortTooSmallError):
        open_team(attempt, vectors, 0)


def test_a_vector_that_comes_before_the_online_set_is_fixed_still_counts() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt, away=["m01", "m02"])
    with pytest.raises(CohortTooSmallError):
        attempt.confirm_ask()
    fleet.contribute(attempt, away=["m03", "m04"])
    attempt.confirm_ask()
    assert attempt.online == fleet.terms.parties


def test_sizes_on_the_wire_are_those_of_the_design() -> None:
    fleet = Fleet(terms_of_size(10))
    sizes: dict[str, int] = {}

    def said(step: str, party: str, answer: bytes) -> bytes:
        sizes[step + " answer"] = len(answer)
        return answer

    def shown(step: str, party: str, ask: bytes) -> bytes:
        sizes[step + " ask"] = len(ask)
        return ask

    setup = fleet.setup(rounds=4, shown=shown, said=said)
    fleet.round(setup, 1, shown=shown, said=said)
    slots = 8
    assert sizes["advertise answer"] < 1_100 + 32 * 10 + 64 * slots
    assert sizes["share answer"] < 9 * (132 * slots + 48) + 10 * 64 * slots + 2_000
    assert sizes["contribute answer"] == 88
    assert sizes["confirm ask"] < 1_300
    assert sizes["confirm answer"] == 64
    assert sizes["unmask ask"] == fleet.terms.t * 65
    assert sizes["unmask answer"] == 660 + 32


def test_a_transcript_is_read_as_it_was_written() -> None:
    fleet = Fleet(terms_of_size(5))
    outcome = fleet.round(fleet.setup(rounds=1), 1, away={"contribute": ["m03"]})
    record = Record.from_bytes(outcome.opened.transcript)
    assert record.to_bytes() == outcome.opened.transcript
    assert tuple(record.online) == outcome.opened.online == ("m01", "m02", "m04", "m05")
    assert len(record.confirmations) == fleet.terms.t
    assert "secrets" not in repr(record)


def test_an_attempt_shows_no_secret() -> None:
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(rounds=1), 1)
    shown = repr(outcome.attempt) + repr(outcome.opened)
    secrets = outcome.attempt._revealed.secrets().values()
    assert not any(one.hex() in shown or repr(one) in shown for one in secrets)
    assert isinstance(outcome.attempt, Attempt)
    assert outcome.opened.context.base_model == MODEL
