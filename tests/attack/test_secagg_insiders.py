# SPDX-License-Identifier: Apache-2.0
"""A member lies: about shares, vectors, counts, complaints. It is named where that can be proved, and the others go on.

Each lie is first told to a broker without the check that finds it, and then does its harm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from policies.secagg import attempts, dealing, masks, node, ring
from policies.secagg.asks import OpenAnswer, ShareAnswer, signed_bytes, signed_from
from policies.secagg.attempts import Attempt
from policies.secagg.collector import Setup
from policies.secagg.contexts import public_of
from policies.secagg.dealing import Kind, OwnKeys, Secret, SharePair
from policies.secagg.documents import SignedBytes
from policies.secagg.errors import (
    ContextMismatchError,
    KeyNotPinnedError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    SumWrongError,
    UpdateUnfitError,
)
from policies.secagg.revealing import Revealed
from policies.secagg.shamir import SHARE_BYTES, combine
from tests.secaggsim import MODEL, Fleet, as_it_is, terms_of_size

LIAR = "m02"


def flipped(at: int, step: str) -> Callable[[str, str, bytes], bytes]:
    """The liar changes one byte of an answer."""

    def said(now: str, party: str, answer: bytes) -> bytes:
        if (now, party) != (step, LIAR):
            return as_it_is(now, party, answer)
        return answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]

    return said


def exact(fleet: Fleet, outcome: object) -> bool:
    return bool(np.array_equal(outcome.z, fleet.plain_sum(outcome.opened.parties, 1)))


def test_a_forged_share_names_its_holder_and_the_round_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    lie = flipped(2 * SHARE_BYTES + 65, "unmask")
    with monkeypatch.context() as off:
        off.setattr(Setup, "is_share", lambda *_, **__: True)
        fleet = Fleet(terms_of_size(4))
        setup = fleet.setup()
        with pytest.raises(ShareBadError) as blamed:
            fleet.round(setup, 1, said=lie)
        assert blamed.value.offender == "m03"  # an innocent dealer, and no sum
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, said=lie)
    assert isinstance(fleet.refused["unmask", LIAR], ShareBadError)
    assert fleet.refused["unmask", LIAR].offender == LIAR
    assert exact(fleet, outcome)


@pytest.mark.parametrize("gone", [1, 33, 66])
def test_shares_of_another_length_name_their_holder(gone: int) -> None:
    fleet = Fleet(terms_of_size(4))

    def said(step: str, party: str, answer: bytes) -> bytes:
        return answer[:-gone] if (step, party) == ("unmask", LIAR) else answer

    assert exact(fleet, fleet.round(fleet.setup(), 1, said=said))
    assert fleet.refused["unmask", LIAR].offender == LIAR


def test_another_nonce_than_the_next_link_names_who_says_it() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    assert exact(fleet, fleet.round(setup, 1, said=flipped(4 * SHARE_BYTES + 3, "unmask")))
    assert fleet.refused["unmask", LIAR].offender == LIAR


def dealing_wrong(monkeypatch: pytest.MonkeyPatch, *, kind: Kind) -> Fleet:
    """The liar's shares are what it committed to, and of a secret that it never advertised."""
    fleet = Fleet(terms_of_size(4))
    whole = dealing._split

    def split(keys: OwnKeys, *more: object) -> dict[int, list[SharePair]]:
        if keys is not fleet.machines[LIAR]._pending.keys:
            return whole(keys, *more)
        other = Secret(b"another secret".ljust(32, b"."))
        slots = {
            slot: dealing.SlotSecrets(
                other if kind is Kind.OWN else one.own, other if kind is Kind.PAIR else one.pair
            )
            for slot, one in keys.slots.items()
        }
        lying = OwnKeys(transports=keys.transports, part=keys.part, chain=keys.chain, slots=slots)
        return whole(lying, *more)

    monkeypatch.setattr(dealing, "_split", split)
    return fleet


@pytest.mark.parametrize("kind", Kind)
def test_a_dealer_of_another_secret_is_named(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"contribute": [LIAR] if kind is Kind.PAIR else []}
    with monkeypatch.context() as off:
        off.setattr(Revealed, "_is_advertised", lambda *_: True)
        off.setattr(Attempt, "_check_counts", lambda *_: 0)
        fleet = dealing_wrong(off, kind=kind)
        assert not exact(fleet, fleet.round(fleet.setup(), 1, away=away))  # noise, taken for a sum
    fleet = dealing_wrong(monkeypatch, kind=kind)
    setup = fleet.setup()
    with pytest.raises(ShareBadError) as blamed:
        fleet.round(setup, 1, away=away)
    assert blamed.value.offender == LIAR
    monkeypatch.undo()
    again = fleet.setup(2, first_round=2, away={"advertise": [LIAR]})
    fleet.previous = fleet.z = None
    outcome = fleet.round(again, 2)  # the next round, without it
    assert np.array_equal(outcome.z, fleet.plain_sum(["m01", "m03", "m04"], 2))


def test_shares_that_are_no_polynomial_name_their_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(terms_of_size(5))
    whole = dealing._split

    def split(keys: OwnKeys, *more: object) -> dict[int, list[SharePair]]:
        found = whole(keys, *more)
        if keys is fleet.machines[LIAR]._pending.keys:
            one = found[0][0]
            found[0][0] = SharePair(Secret(bytes(66)), one.pair)  # what holder 1 gets of b
        return found

    monkeypatch.setattr(dealing, "_split", split)
    with pytest.raises(ShareBadError) as blamed:
        fleet.round(fleet.setup(), 1)
    assert blamed.value.offender == LIAR


def wrong_in_transit(monkeypatch: pytest.MonkeyPatch, fleet: Fleet) -> None:
    """The liar commits to other shares than it seals for m03."""
    whole = dealing._commitments

    def commitments(setup: bytes, *, dealer: int, holder: int, shares: object) -> bytes:
        row = whole(setup, dealer=dealer, holder=holder, shares=shares)
        lying = (dealer, holder) == (2, 3) and fleet.machines[LIAR]._present is None and not lied
        if lying:
            lied.append(True)
            return bytes(32) + row[32:]
        return row

    lied: list[bool] = []
    monkeypatch.setattr(dealing, "_commitments", commitments)


def test_a_share_that_is_not_the_committed_one_is_found_before_anybody_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as off:
        fleet = Fleet(terms_of_size(4))
        wrong_in_transit(off, fleet)
        off.setattr(dealing, "receive", dealing.receive)
        off.setattr("policies.secagg.dealing._dealer_lies", _no_complaint)
        with pytest.raises(_SeenError):
            fleet.setup()
    fleet = Fleet(terms_of_size(4))
    wrong_in_transit(monkeypatch, fleet)
    setup = fleet.setup()
    refused = fleet.refused["open", "m03"]
    assert isinstance(refused, ShareBadError)
    assert refused.offender == LIAR
    assert setup.failed
    assert not setup.ready
    assert fleet.machines["m03"]._present is None
    assert not fleet.machines["m03"]._pending._shares


def another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The liar seals another part of the members' key for m03 than for the others."""
    whole = dealing._sealer

    class Sealer:
        def __init__(self, agreed: bytes, between: dealing._Between) -> None:
            self._real = whole(agreed, between)
            self.decrypt = self._real.decrypt
            self._lies = (between.dealer, between.holder) == (2, 3)

        def encrypt(self, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
            return self._real.encrypt(nonce, bytes(32) + plain[32:] if self._lies else plain, bound)

    monkeypatch.setattr(dealing, "_sealer", Sealer)


def test_another_part_of_the_members_key_for_one_holder_names_its_dealer_before_anybody_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as off:
        another_part(off)
        off.setattr(dealing, "part_commitment", lambda *_, **__: bytes(32))
        fleet = Fleet(terms_of_size(4))
        setup = fleet.setup()
        fleet.round(setup, 1)
        with pytest.raises(SecaggError):
            fleet.round(setup, 2)  # nobody goes on from the sum, and nobody can be named
        found = [fleet.refused["contribute", one] for one in fleet.terms.parties]
        assert all(isinstance(one, SumWrongError) and one.offender is None for one in found)
    fleet = Fleet(terms_of_size(4))
    another_part(monkeypatch)
    setup = fleet.setup()
    assert setup.failed
    assert fleet.refused["open", "m03"].offender == LIAR
    assert "part of the members' key" in fleet.refused["open", "m03"].found


def test_a_false_complaint_is_turned_against_the_member_that_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the right key what was sealed is seen to be as signed; with another one nothing is proved."""

    def believed(*_: object, **__: object) -> None:
        raise ShareBadError(need="", found="", remedy="", offender="m04")

    with monkeypatch.context() as off:
        off.setattr("policies.secagg.setups.receive", believed)
        fleet = complained(own=True)
        assert fleet.refused["open", LIAR].offender == "m04"  # an innocent dealer
    for own in (True, False):
        fleet = complained(own=own)
        refused = fleet.refused["open", LIAR]
        assert isinstance(refused, ShareBadError if own else ContextMismatchError)
        assert refused.offender == LIAR


def complained(*, own: bool) -> Fleet:
    """A setup in which the liar complains of m04, which did nothing wrong."""
    fleet = Fleet(terms_of_size(4))
    kept: list[bytes] = []

    def shown(step: str, party: str, ask: bytes) -> bytes:
        if (step, party) == ("open", LIAR):
            kept.append(fleet.machines[LIAR]._pending.keys.transport(4) if own else bytes(range(32)))
        return ask

    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("open", LIAR):
            return answer
        return OpenAnswer(liar="m04", proof=kept[0]).to_bytes(fleet.terms)

    setup = fleet.setup(shown=shown, said=said)
    assert LIAR not in setup.opened_by
    return fleet


def proved(monkeypatch: pytest.MonkeyPatch) -> tuple[Fleet, Setup, dict[str, bytes]]:
    """The liar works with the broker: it lies to two holders, so that both prove it. Proof by holder."""
    fleet, proofs = Fleet(terms_of_size(4)), dict[str, bytes]()
    whole = dealing._commitments

    def commitments(setup: bytes, *, dealer: int, holder: int, shares: object) -> bytes:
        row = whole(setup, dealer=dealer, holder=holder, shares=shares)
        at = (dealer, holder)
        first = at not in seen and not seen.add(at)  # at the dealer; then at the holder
        return bytes(32) + row[32:] if at in ((2, 3), (2, 4)) and first else row

    def said(step: str, party: str, answer: bytes) -> bytes:
        if step == "open" and answer[0]:
            proofs[party] = OpenAnswer.from_bytes(answer, fleet.terms).proof
        return answer

    seen: set[tuple[int, int]] = set()
    with monkeypatch.context() as lying:
        lying.setattr(dealing, "_commitments", commitments)
        setup = fleet.setup(said=said)
    return fleet, setup, proofs


def shares_from(fleet: Fleet, setup: Setup, proofs: dict[str, bytes]) -> dict[int, bytes]:
    """What the broker reads of m01's first slot with the proofs that two members gave."""
    found, dealer = {}, "m01"
    for holder, proof in proofs.items():
        at, sealed = setup.advertisers.index(holder), setup._answers[dealer]
        given = dealing.receive(
            proof,
            header=setup.headers[dealer],
            dealer=setup.adverts[dealer],
            holder=(holder, at),
            row=sealed.commitments[at],
            ciphertext=sealed.ciphertexts[at],
            terms=fleet.terms,
        )
        found[fleet.terms.position(holder)] = given.shares[0].of(Kind.PAIR)
    return found


def test_what_proves_a_complaint_opens_nothing_of_an_honest_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two proofs and the liar's own share would be three: enough for the key of a member that noticed nothing."""
    with monkeypatch.context() as off:
        whole = OwnKeys.draw.__func__

        def draw(cls: type[OwnKeys], *arguments: object, **named: object) -> OwnKeys:
            found = whole(cls, *arguments, **named)
            found.transports = found.transports[:1] * len(found.transports)  # one key for all dealers
            return found

        off.setattr(OwnKeys, "draw", classmethod(draw))
        fleet, setup, proofs = proved(off)
        pooled = shares_from(fleet, setup, proofs)
        pooled[2] = fleet.machines[LIAR]._present.share(0, "m01", Kind.PAIR)
        assert fleet.machines["m01"]._present is not None  # it would be asked to contribute
        assert public_of(combine(pooled)) == setup.adverts["m01"].slots[0].public
    fleet, setup, proofs = proved(monkeypatch)
    assert sorted(proofs) == ["m03", "m04"]
    assert {fleet.refused["open", one].offender for one in proofs} == {LIAR}
    with pytest.raises(ShareBadError, match="do not open"):
        shares_from(fleet, setup, proofs)


def test_a_member_that_complained_uses_no_slot_of_that_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, setup, _ = proved(monkeypatch)
    attempt = fleet.attempt(setup, 1)
    for one in ("m03", "m04"):
        held = fleet.machines[one]._pending
        assert (held.failed, held.keys.slots, held.keys.transports, held._shares) == (True, {}, (), {})
        with pytest.raises(SetupGoneError):
            fleet.machines[one].admit(attempt.contribute_ask(), round=1, attempt=1, base_model=MODEL)


class _SeenError(Exception):
    pass


def _no_complaint(dealer: str, found: str) -> Exception:
    return _SeenError(dealer, found)


def test_shares_of_dealers_are_bound_to_what_they_signed() -> None:
    """A ciphertext or commitment that was changed on its way is the broker's doing, and nobody is accused."""
    fleet = Fleet(terms_of_size(4))

    def shown(step: str, party: str, ask: bytes) -> bytes:
        return ask[:-1] + bytes([ask[-1] ^ 1]) if (step, party) == ("open", "m01") else ask

    setup = fleet.setup(shown=shown)
    assert isinstance(fleet.refused["open", "m01"], ContextMismatchError)
    assert fleet.refused["open", "m01"].offender is None
    assert not setup.failed
    assert setup.opened_by == ("m02", "m03", "m04")


@pytest.mark.parametrize("part", range(3))
def test_a_share_answer_that_does_not_fit_its_header_is_refused(part: int) -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("share", LIAR):
            return answer
        found = ShareAnswer.from_bytes(answer, holders=4)
        header = signed_from(signed_bytes(found.header))
        if part == 0:
            header = SignedBytes(payload=header.payload, signature=bytes(64), blob=header.blob)
        first, *rest = found.commitments if part == 1 else found.ciphertexts
        swapped = (bytes(len(first)), *rest)
        return ShareAnswer(
            header=header,
            commitments=swapped if part == 1 else found.commitments,
            ciphertexts=swapped if part == 2 else found.ciphertexts,
        ).to_bytes()

    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(said=said)
    refused = fleet.refused["share", LIAR]
    assert isinstance(refused, KeyNotPinnedError if part == 0 else ContextMismatchError)
    assert refused.offender == LIAR
    assert setup.members == ("m01", "m03", "m04")
    assert exact(fleet, fleet.round(setup, 1))


def test_a_complaint_about_oneself_or_a_stranger_accuses_nobody() -> None:
    fleet = Fleet(terms_of_size(4))
    for number, liar in enumerate((LIAR, "m04"), start=1):
        lie = OpenAnswer(liar=liar, proof=bytes(32)).to_bytes(fleet.terms)

        def said(step: str, party: str, answer: bytes, lie: bytes = lie) -> bytes:
            return lie if (step, party) == ("open", LIAR) else answer

        setup = fleet.setup(number, away={"advertise": ["m04"]}, said=said)
        assert fleet.refused["open", LIAR].offender == LIAR
        assert not setup.failed


def test_an_update_that_is_not_finite_is_not_sent_and_the_round_completes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates = {LIAR: np.array([np.nan, 0, 0, 0, 0], np.float32)}
    with monkeypatch.context() as off, np.errstate(invalid="ignore"):
        off.setattr(ring, "check_update", lambda update, _: update)
        off.setattr(masks.math, "isfinite", lambda _: True)
        fleet = Fleet(terms_of_size(4))
        z = fleet.round(fleet.setup(), 1, updates=updates).z
        assert abs(int(z.view(np.int32)[0])) > 2**fleet.terms.bits  # one member's nonsense is everybody's
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, updates=updates)
    assert isinstance(fleet.refused["contribute", LIAR], UpdateUnfitError)
    assert exact(fleet, outcome)
    assert outcome.opened.online == ("m01", "m03", "m04")


@pytest.mark.parametrize("length", [4, 6, 0])
def test_a_vector_of_another_length_is_refused_and_the_round_completes(length: int) -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        return bytes(4 * length) if (step, party) == ("vector", LIAR) else answer

    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, said=said)
    assert isinstance(fleet.refused["vector", LIAR], UpdateUnfitError)
    assert exact(fleet, outcome)


def test_a_vector_that_is_not_the_signed_one_names_its_member(monkeypatch: pytest.MonkeyPatch) -> None:
    lie = flipped(0, "vector")
    with monkeypatch.context() as off:
        off.setattr(attempts, "check", lambda *_, **__: None)
        off.setattr(node, "check", lambda *_, **__: None)
        fleet = Fleet(terms_of_size(4))
        outcome = fleet.round(fleet.setup(), 1, said=lie)
        assert LIAR not in outcome.attempt._confirmed  # it finds its own vector changed
        assert not exact(fleet, outcome)
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, said=lie)
    assert fleet.refused["vector", LIAR].offender == LIAR
    assert exact(fleet, outcome)


def test_a_counter_of_seven_stops_the_sum_and_the_next_round_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can be named: the counts are under the same masks as the vectors. The sum is not taken."""

    def counts(self: node.NodeMachine, *more: object) -> list[int]:
        one, *rest = whole(self, *more)
        return [7 if self._party == LIAR else one, *rest]

    whole = node.NodeMachine._counts
    with monkeypatch.context() as lying:
        lying.setattr(node.NodeMachine, "_counts", counts)
        with monkeypatch.context() as off:
            off.setattr(Attempt, "_check_counts", lambda *_: 0)
            fleet = Fleet(terms_of_size(4))
            fleet.round(fleet.setup(), 1)  # four say that they are ten
        fleet = Fleet(terms_of_size(4))
        setup = fleet.setup()
        with pytest.raises(SumWrongError) as found:
            fleet.round(setup, 1)
        assert found.value.offender is None
    outcome = fleet.round(setup, 2)
    assert np.array_equal(outcome.z, fleet.plain_sum(fleet.terms.parties, 2))


def test_a_second_vector_of_a_member_or_one_after_the_online_set_is_dropped() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt, away=["m04"])
    header, signature = attempt._vectors[LIAR]
    with pytest.raises(SecaggError):
        attempt.vector(LIAR, header.lane + signature, header.digest)
    attempt.confirm_ask()
    late = fleet.machines["m04"].mask(
        fleet.admit(attempt, "m04", attempt.contribute_ask()), np.zeros(5, np.float32)
    )
    with pytest.raises(SecaggError) as refused:
        attempt.vector("m04", late.answer, late.digest)
    assert refused.value.offender == "m04"
    assert "m04" not in attempt.online
