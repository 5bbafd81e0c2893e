# SPDX-License-Identifier: Apache-2.0
"""Each single check of the machines, where the attacks are stopped by another one already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.limits import SECAGG_SETUP_BYTES
from policies.secagg import contexts, dealing
from policies.secagg.asks import ConfirmAsk, OpenAsk, ShareAnswer, signed_from, write_adverts, write_unmask
from policies.secagg.attempts import Attempt
from policies.secagg.collector import Setup
from policies.secagg.contexts import NO_NONCE, Context, Lane, mac_key, mac_offset, pair_key, self_key
from policies.secagg.dealing import row_of, rows_digest
from policies.secagg.documents import Advert, ShareHeader, SignedBytes, sign
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    KeyNotPinnedError,
    PartitionBadError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    SlotUsedError,
    ViewsDifferError,
)
from tests.logsim import digest_from
from tests.secaggsim import Fleet, changed, key_of, terms_of_size

ONE, LIAR = "m01", "m02"
NAMES = terms_of_size(4).parties


def signed(document: Advert | ShareHeader, key: str) -> SignedBytes:
    return SignedBytes(
        payload=document.payload(), signature=sign(document, key_of(key)), blob=document.blob()
    )


def advertised(fleet: Fleet) -> dict[str, SignedBytes]:
    ask = Setup(fleet.terms, number=1, first_round=1, rounds=2).advertise_ask()
    return {one: signed_from(machine.advertise(ask)) for one, machine in fleet.machines.items()}


@pytest.mark.parametrize("what", ["transport", "slot"])
def test_a_member_looks_at_every_key_of_an_advert(what: str) -> None:
    fleet = Fleet(terms_of_size(4))
    shown = advertised(fleet)
    advert = fleet.machines[LIAR]._pending.advert
    bad = (
        replace(advert, transports=(*advert.transports[:-1], bytes(32)))
        if what == "transport"
        else replace(advert, slots=(*advert.slots[:-1], replace(advert.slots[-1], public=bytes(32))))
    )
    with pytest.raises(ContextMismatchError, match="low order") as refused:
        fleet.machines[ONE].share(write_adverts(shown | {LIAR: signed(bad, LIAR)}, fleet.terms))
    assert refused.value.offender == LIAR


def opening(
    change: Callable[[Fleet, dict[str, Any]], dict[str, Any]], *, away: tuple[str, ...] = ()
) -> bytes:
    """What a member says to an OPEN ask with other packages."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(away={"advertise": away, "open": NAMES})
    packages = dict(OpenAsk.from_bytes(setup.open_ask(ONE), fleet.terms).packages)
    return fleet.machines[ONE].open(OpenAsk(packages=change(fleet, packages)).to_bytes(fleet.terms))


def test_shares_of_who_did_not_advertise_are_refused() -> None:
    with pytest.raises(ContextMismatchError, match="advertisers"):
        opening(lambda _, packages: packages | {"m04": packages["m03"]}, away=("m04",))


def test_too_few_members_that_shared_are_refused() -> None:
    with pytest.raises(CohortTooSmallError):
        opening(lambda _, packages: {one: packages[one] for one in (ONE, LIAR)})


def test_a_setup_without_the_own_shares_is_refused() -> None:
    with pytest.raises(ContextMismatchError, match="own share header"):
        opening(lambda _, packages: {one: packages[one] for one in NAMES if one != ONE})


def test_a_share_header_of_another_key_is_refused() -> None:
    def forged(_: Fleet, packages: dict[str, Any]) -> dict[str, Any]:
        header = replace(packages[LIAR].header, signature=packages[ONE].header.signature)
        return packages | {LIAR: replace(packages[LIAR], header=header)}

    with pytest.raises(KeyNotPinnedError):
        opening(forged)


def with_header(fleet: Fleet, **changes: Any) -> Callable[[str, str, bytes], bytes]:
    """The liar signs another header over the same shares."""

    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("share", LIAR):
            return answer
        found = ShareAnswer.from_bytes(answer, holders=4)
        header = replace(fleet.machines[LIAR]._pending._header, **changes)
        return replace(found, header=signed(header, LIAR)).to_bytes()

    return said


def test_a_first_nonce_that_is_no_link_of_the_chain_is_refused_by_broker_and_members() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(said=with_header(fleet, nonce=b"n" * 32))
    assert isinstance(fleet.refused["share", LIAR], ShareBadError)
    assert fleet.refused["share", LIAR].offender == LIAR
    assert LIAR not in setup.members


def test_commitments_of_another_length_are_refused() -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("share", LIAR):
            return answer
        found = ShareAnswer.from_bytes(answer, holders=4)
        short = tuple(one[:-32] for one in found.commitments)
        rows = tuple(map(row_of, short, found.ciphertexts))
        header = replace(fleet.machines[LIAR]._pending._header, rows=rows, commitments=rows_digest(short))
        return replace(found, header=signed(header, LIAR), commitments=short).to_bytes()

    fleet = Fleet(terms_of_size(4))
    fleet.setup(said=said)
    assert isinstance(fleet.refused["share", LIAR], ContextMismatchError)
    assert "commitments per holder" in fleet.refused["share", LIAR].need


def test_a_member_that_computes_another_seal_is_named() -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        return bytes(33) if (step, party) == ("open", LIAR) else answer

    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(said=said)
    assert isinstance(fleet.refused["open", LIAR], ViewsDifferError)
    assert setup.opened_by == ("m01", "m03", "m04")


def test_a_setup_that_failed_answers_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(away={"open": NAMES})
    with monkeypatch.context() as lying:
        lying.setattr("policies.secagg.dealing._commitments", lambda *_, **__: b"")
        complaint = fleet.machines[ONE].open(setup.open_ask(ONE))
    assert complaint[:2] == bytes([1, 2])
    assert fleet.machines[ONE].open(setup.open_ask(ONE)) == complaint
    with pytest.raises(SetupGoneError):
        fleet.machines[ONE].open(setup.open_ask(LIAR))
    with pytest.raises(ShareBadError) as named:
        setup.opened(ONE, complaint)
    assert named.value.offender == ONE  # what was sealed for it is as its dealer signed


def test_teams_that_cannot_keep_their_groups_are_not_trained_for() -> None:
    fleet = Fleet(terms_of_size(4))
    teams = (NAMES[:2], NAMES[2:])
    fleet.machines[ONE] = fleet.begin(ONE, expected_teams=lambda _round, _nonces: teams)
    attempt = fleet.attempt(fleet.setup(), 1)
    with pytest.raises(CohortTooSmallError):
        fleet.admit(attempt, ONE, changed(attempt.contribute_ask(), fleet.terms, teams=teams))


def test_a_nonce_that_was_told_at_unmask_is_not_left_out() -> None:
    fleet = Fleet(terms_of_size(4))
    for one in NAMES:
        fleet.machines[one] = fleet.begin(one, expected_teams=lambda _round, nonces: (tuple(nonces),))
    setup = fleet.setup()
    fleet.round(setup, 1)
    attempt = fleet.attempt(setup, 2)
    nonces = (NO_NONCE, *attempt.context.nonces[1:])
    with pytest.raises(PartitionBadError):
        fleet.admit(attempt, ONE, changed(attempt.contribute_ask(), fleet.terms, nonces=nonces))


def test_only_the_slot_that_was_admitted_is_masked() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    slot = fleet.admit(attempt, ONE, attempt.contribute_ask())
    with pytest.raises(SlotUsedError):
        fleet.machines[ONE].mask(replace(slot, base_model=digest_from("another")), np.zeros(5, np.float32))


@pytest.mark.parametrize("at", [2, 3])
def test_the_sum_before_is_of_an_earlier_round(at: int) -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    fleet.round(setup, 1)
    attempt = fleet.attempt(setup, 2)
    before = replace(fleet.previous.previous(), round=at)
    with pytest.raises(ContextMismatchError, match="earlier round"):
        fleet.admit(attempt, ONE, changed(attempt.contribute_ask(), fleet.terms, shown=(before,)))


def contributed(away: tuple[str, ...] = ()) -> tuple[Fleet, Attempt, ConfirmAsk]:
    fleet = Fleet(terms_of_size(5))
    attempt = fleet.attempt(fleet.setup(away={"advertise": away}), 1)
    fleet.contribute(attempt)
    return fleet, attempt, ConfirmAsk.from_bytes(attempt.confirm_ask(), fleet.terms)


def test_an_online_set_is_of_members() -> None:
    fleet, _, ask = contributed(("m05",))
    more = replace(ask, online={**ask.online, "m05": ask.online["m04"]})
    with pytest.raises(ContextMismatchError, match="members of this setup"):
        fleet.machines[ONE].confirm(more.to_bytes(fleet.terms), round=1, attempt=1)


@pytest.mark.parametrize("opened", [(), (1,), (0, 1)])
def test_teams_to_open_are_of_the_attempt(opened: tuple[int, ...]) -> None:
    fleet, _, ask = contributed()
    with pytest.raises(ContextMismatchError, match="teams of this attempt"):
        fleet.machines[ONE].confirm(replace(ask, opened=opened).to_bytes(fleet.terms), round=1, attempt=1)


def test_confirmations_are_of_online_members() -> None:
    fleet = Fleet(terms_of_size(5))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt, away=["m05"])
    fleet.gather("confirm", attempt)
    confirmation = attempt._confirmation
    shown = {**attempt._confirmed, "m05": sign(confirmation, key_of("m05"))}
    with pytest.raises(ContextMismatchError, match="online members"):
        fleet.machines[ONE].unmask(write_unmask(shown, fleet.terms), round=1, attempt=1)


def test_an_ask_has_a_bound() -> None:
    fleet = Fleet(terms_of_size(4))
    advertised(fleet)
    with pytest.raises(ContextMismatchError, match=str(SECAGG_SETUP_BYTES)):
        fleet.machines[ONE].share(bytes(SECAGG_SETUP_BYTES + 1))


CONTEXT = Context(
    setup=b"s" * 32,
    seal=b"e" * 32,
    round=1,
    attempt=1,
    base_model=digest_from("model"),
    server=digest_from("state"),
    members=NAMES,
    teams=(NAMES,),
    nonces=(b"n" * 32,) * 4,
)
OTHER: dict[str, Any] = {
    "setup": b"x" * 32,
    "seal": b"x" * 32,
    "round": 2,
    "attempt": 2,
    "base_model": digest_from("another"),
    "server": digest_from("another"),
    "teams": (NAMES[:2], NAMES[2:]),
    "nonces": (NO_NONCE,) * 4,
}


@pytest.mark.parametrize("field", OTHER)
def test_every_part_of_an_attempt_is_in_its_context(field: str) -> None:
    terms = terms_of_size(4)
    assert replace(CONTEXT, **{field: OTHER[field]}).digest(terms) != CONTEXT.digest(terms)


@pytest.mark.parametrize(
    "other",
    [
        {"manifest": digest_from("another")},
        {"recipe": digest_from("another")},
        {"dimension": 6},
        {"norm_max": "3"},
        {"weights": (1_000_000, 1, 1, 1)},
    ],
    ids=lambda one: next(iter(one)),
)
def test_every_number_of_the_ring_is_in_the_context(other: dict[str, Any]) -> None:
    assert CONTEXT.digest(terms_of_size(4, **other)) != CONTEXT.digest(terms_of_size(4))


def test_no_two_uses_of_a_secret_give_one_key() -> None:
    secret, found = b"k" * 32, set()
    for seal, ctx, lane, at in [
        (a, b, c, d) for a in (b"1", b"2") for b in (b"1", b"2") for c in Lane for d in (1, 2)
    ]:
        found.add(self_key(secret, seal=seal, lane=lane, ctx=ctx, position=at))
        found.add(pair_key(secret, seal=seal, lane=lane, ctx=ctx, between=(at, 3)))
        found.add(mac_key(secret, seal=seal, ctx=ctx))
        found.add(mac_offset(secret, seal=seal, ctx=ctx))
    assert len(found) == 16 + 16 + 4 + 4
    forth, back = (
        pair_key(secret, seal=b"1", lane=Lane.VECTOR, ctx=b"1", between=one) for one in ((1, 2), (2, 1))
    )
    assert forth == back


def test_a_setup_digest_is_of_every_field_and_every_advert() -> None:
    frame = contexts.Frame.of(terms_of_size(4), number=1, first_round=1, rounds=2)
    others = [replace(frame, **{name: "x"}) for name in ("contract", "recipe", "run", "roster")]
    others += [replace(frame, **{name: 7}) for name in ("number", "first_round", "rounds")]
    whole = {"a": b"1", "b": b"2"}
    digests = {contexts.setup_digest(one, whole) for one in (frame, *others)}
    digests |= {contexts.setup_digest(frame, one) for one in ({"a": b"1"}, {"a": b"2", "b": b"1"}, {})}
    assert len(digests) == 8 + 3


def test_a_share_answer_of_too_few_holders_is_refused() -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("share", LIAR):
            return answer
        found = ShareAnswer.from_bytes(answer, holders=4)
        return replace(found, ciphertexts=found.ciphertexts[:3]).to_bytes()

    fleet = Fleet(terms_of_size(4))
    fleet.setup(said=said)
    assert isinstance(fleet.refused["share", LIAR], SecaggError)
    assert fleet.refused["share", LIAR].offender == LIAR


@pytest.mark.parametrize("lie", ["nonce", "slots"])
def test_a_member_looks_at_what_the_broker_should_have_refused(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dealer with another nonce, or with shares of fewer slots, and a broker that passes them on."""
    fleet = Fleet(terms_of_size(4))
    monkeypatch.setattr(Setup, "_check_shares", lambda *_: None)
    nonce, split = dealing.OwnKeys.nonce, dealing._split

    def is_liars(keys: dealing.OwnKeys) -> bool:
        return keys is fleet.machines[LIAR]._pending.keys

    def other_nonce(keys: dealing.OwnKeys, *more: Any) -> bytes:
        return b"n" * 32 if is_liars(keys) else nonce(keys, *more)

    def fewer_slots(keys: dealing.OwnKeys, *more: Any) -> Any:
        found = split(keys, *more)
        return {slot: found[slot] for slot in list(found)[:-1]} if is_liars(keys) else found

    if lie == "nonce":
        monkeypatch.setattr(dealing.OwnKeys, "nonce", other_nonce)
    else:
        monkeypatch.setattr(dealing, "_split", fewer_slots)
    setup = fleet.setup()
    assert setup.failed
    assert fleet.refused["open", ONE].offender == LIAR
