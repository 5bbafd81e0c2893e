# SPDX-License-Identifier: Apache-2.0
"""A broker shows a member other keys than the others made: to read the shares that it deals to them.

Each attack is first made against a member without the one check that stops it, and then succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from policies.secagg import contexts, dealing, holding, setups
from policies.secagg.asks import OpenAsk, Package, ShareAnswer, signed_bytes, signed_from, write_adverts
from policies.secagg.contexts import Frame, setup_digest
from policies.secagg.dealing import Kind, OwnKeys, receive
from policies.secagg.documents import Advert, ShareHeader, SignedBytes, sign
from policies.secagg.errors import ContextMismatchError, KeyNotPinnedError, SecaggError
from policies.secagg.node import NodeMachine
from policies.secagg.packing import pack
from policies.secagg.shamir import combine
from policies.secagg.terms import Terms
from tests.logsim import SimEntropy, digest_from
from tests.secaggsim import Fleet, key_of, ring_of, shares_of, stripped, terms_of_size

VICTIM = "m01"
OTHERS = ("m02", "m03", "m04")


def read_by(fleet: Fleet, setup: setups.Setup, holders: tuple[str, ...]) -> bool:
    """Whether members that are the broker's read the victim's update with nothing but the shares it dealt to them."""
    attempt = fleet.attempt(setup, 1)
    vectors = fleet.contribute(attempt)
    b, s = (combine(shares_of(fleet, holders, VICTIM, 0, kind)) for kind in Kind)
    return bool((stripped(attempt, VICTIM, vectors[VICTIM], b=b, s=s) == ring_of(fleet, VICTIM, 1)).all())


def foreign(fleet: Fleet) -> None:
    """The broker stands in for all but the victim, with keys of its own."""
    for one in OTHERS:
        fleet.machines[one]._key = key_of("the broker")


def test_a_foreign_key_is_refused_before_any_share_is_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(SignedBytes, "check_key", lambda *_, **__: None)
        off.setattr("policies.secagg.attempts.check", lambda *_, **__: None)
        fleet = Fleet(terms_of_size(4))
        foreign(fleet)
        assert read_by(fleet, fleet.setup(), OTHERS)
    fleet = Fleet(terms_of_size(4))
    with monkeypatch.context() as lying:
        lying.setattr(setups.Setup, "advert", _taken_unseen)
        foreign(fleet)
        fleet.setup()
    assert isinstance(fleet.refused["share", VICTIM], KeyNotPinnedError)
    assert not fleet.machines[VICTIM]._pending._shares


def _taken_unseen(self: setups.Setup, party: str, answer: bytes) -> None:
    """As `Setup.advert`, by a broker that does not care who signed."""
    signed = signed_from(answer)
    found = signed.opened(
        Advert.payload_type, party=party, expected=self.frame.facts(), free={"part", "chain_end", "opened"}
    )
    pieces = [signed.blob[at : at + 32] for at in range(0, len(signed.blob), 32)]
    transports, rest = tuple(pieces[: self.terms.n]), iter(pieces[self.terms.n :])
    slots = tuple(dealing.SlotKeys(public=one, commitment=next(rest)) for one in rest)
    keys = {name: bytes.fromhex(found[name]) for name in ("part", "chain_end")}
    keys |= {"transports": transports, "slots": slots, "opened": found["opened"]}
    self.adverts = self._sorted({**self.adverts, party: Advert(frame=self.frame, party=party, **keys)})
    self._signed_adverts[party] = signed


def old_adverts(terms: Terms, **frame: int) -> tuple[dict[str, SignedBytes], dict[str, OwnKeys]]:
    """Adverts of the others that are really theirs, of another setup; its private keys have leaked since."""
    facts = {"number": 1, "first_round": 1, "rounds": 2} | frame
    adverts, keys = {}, {}
    for one in OTHERS:
        drawn = OwnKeys.draw(Frame.of(terms, **facts), SimEntropy(f"old {one}".encode()), members=terms.n)
        advert = drawn.advert(Frame.of(terms, **facts), party=one, position=terms.position(one))
        adverts[one] = SignedBytes(
            payload=advert.payload(), signature=sign(advert, key_of(one)), blob=advert.blob()
        )
        keys[one] = drawn
    return adverts, keys


def unlooked(fields: set[str]) -> Callable[..., object]:
    """`SignedBytes.opened` without a look at some fields."""
    whole = SignedBytes.opened

    def opened(
        self: SignedBytes, kind: str, *, party: str, expected: Mapping[str, object], free: set[str]
    ) -> object:
        kept = {name: value for name, value in expected.items() if name not in fields}
        return whole(self, kind, party=party, expected=kept, free=free | (fields & set(expected)))

    return opened


def shown_to_victim(machine: NodeMachine, terms: Terms, old: Mapping[str, SignedBytes]) -> bytes:
    setup = setups.Setup(terms, number=1, first_round=1, rounds=2)
    own = signed_from(machine.advertise(setup.advertise_ask()))
    return machine.share(write_adverts({VICTIM: own, **old}, terms))


REPLAYS = {
    "run": (terms_of_size(4, run="run_0"), {}),
    "contract": (terms_of_size(4, contract=digest_from("an older contract")), {}),
    "recipe": (terms_of_size(4, recipe=digest_from("another recipe")), {}),
    "roster": (terms_of_size(4, groups=["a", "b", "c", "d"]), {}),
    "setup": (terms_of_size(4), {"number": 2}),
    "first_round": (terms_of_size(4), {"first_round": 3}),
}


@pytest.mark.parametrize("field", REPLAYS)
def test_an_advert_of_another_setup_is_refused(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, (then, frame) = terms_of_size(4), REPLAYS[field]
    old, leaked = old_adverts(then, **frame)
    with monkeypatch.context() as off:
        off.setattr(SignedBytes, "opened", unlooked({field}))
        machine = Fleet(terms).machines[VICTIM]
        answer = ShareAnswer.from_bytes(shown_to_victim(machine, terms, old), holders=4)
        assert (
            read_with_leaked(terms, machine, answer, leaked) == machine._pending.keys.slots[0].pair.reveal()
        )
    machine = Fleet(terms).machines[VICTIM]
    with pytest.raises(ContextMismatchError) as refused:
        shown_to_victim(machine, terms, old)
    assert field in refused.value.need


def read_with_leaked(
    terms: Terms, machine: NodeMachine, answer: ShareAnswer, leaked: Mapping[str, OwnKeys]
) -> bytes:
    """The victim's slot key, from what it sealed for keys that the broker has."""
    advert = machine._pending.advert
    header = ShareHeader.open(
        answer.header, setup=machine._pending.setup, party=VICTIM, holders=4, terms=terms
    )
    pooled = {}
    for at, (one, keys) in enumerate(leaked.items(), start=1):
        given = receive(
            keys.transport(terms.position(VICTIM)),
            header=header,
            dealer=advert,
            holder=(one, at),
            row=answer.commitments[at],
            ciphertext=answer.ciphertexts[at],
            terms=terms,
        )
        pooled[terms.position(one)] = given.shares[0].of(Kind.PAIR)
    return combine(pooled)


def test_a_stranger_in_the_roster_is_refused() -> None:
    known = terms_of_size(3)
    crowd = terms_of_size(7)  # four strangers, whom the broker plays
    believing = Fleet(crowd)
    assert read_by(
        believing, believing.setup(), ("m03", "m04", "m05", "m06", "m07")
    )  # with one member of its own
    fleet = Fleet(known)
    with pytest.raises(SecaggError):
        fleet.machines[VICTIM].share(_with_strangers(fleet, believing))


def _with_strangers(fleet: Fleet, believing: Fleet) -> bytes:
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    shown = {one: machine.advertise(setup.advertise_ask()) for one, machine in fleet.machines.items()}
    strangers = {one: believing.begin(one).advertise(setup.advertise_ask()) for one in ("m04", "m05")}
    return pack([bytes([1, 2, 3, 4, 5]), *shown.values(), *strangers.values()])


@pytest.mark.parametrize("position", [0, 4, 255])
def test_a_position_outside_the_roster_names_nobody(position: int) -> None:
    fleet = Fleet(terms_of_size(3))
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    shown = [machine.advertise(setup.advertise_ask()) for machine in fleet.machines.values()]
    places = sorted([1, 2, 3, position])
    with pytest.raises(ContextMismatchError):
        fleet.machines[VICTIM].share(pack([bytes(places), *shown, shown[0]]))
    with pytest.raises(ContextMismatchError):
        fleet.machines[VICTIM].share(pack([bytes([1, 1, 2, 3]), shown[0], *shown]))


def two_views(fleet: Fleet) -> dict[str, bytes]:
    """SHARE answers where the victim was shown another (older, really signed) advert of m04 than the rest were."""
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    adverts = {
        one: signed_from(machine.advertise(setup.advertise_ask())) for one, machine in fleet.machines.items()
    }
    older = signed_from(fleet.begin("m04", life=0).advertise(setup.advertise_ask()))
    shown = {one: adverts | ({"m04": older} if one == VICTIM else {}) for one in (VICTIM, "m02", "m03")}
    shown["m04"] = adverts
    return {
        one: machine.share(write_adverts(shown[one], fleet.terms)) for one, machine in fleet.machines.items()
    }


def opening(fleet: Fleet, answers: Mapping[str, bytes], holder: str) -> bytes:
    """The ask of OPEN for one holder, as a broker writes it that looks at nothing."""
    at = fleet.terms.position(holder) - 1
    given = {one: ShareAnswer.from_bytes(answer, holders=4) for one, answer in answers.items()}
    packages = {
        one: Package(header=each.header, commitments=each.commitments[at], ciphertext=each.ciphertexts[at])
        for one, each in given.items()
    }
    return OpenAsk(packages=packages).to_bytes(fleet.terms)


def test_adverts_that_differ_between_members_make_no_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(holding, "setup_digest", lambda frame, _: setup_digest(frame, {}))
        fleet = Fleet(terms_of_size(4))
        answers = two_views(fleet)
        for one in ("m02", "m03"):
            fleet.machines[one].open(opening(fleet, answers, one))
        held = fleet.machines["m02"]._present
        assert held is not None
        assert held.adverts["m04"] != fleet.machines[VICTIM]._pending.adverts["m04"]
        assert held.share(0, VICTIM, Kind.OWN)  # one setup over two views
    fleet = Fleet(terms_of_size(4))
    answers = two_views(fleet)
    for one, machine in fleet.machines.items():
        with pytest.raises(ContextMismatchError, match="setup"):
            machine.open(opening(fleet, answers, one))
        assert machine._present is None


def test_shares_of_another_view_do_not_even_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at the header, the key and the bound data are of another setup still."""
    monkeypatch.setattr(SignedBytes, "opened", unlooked({"setup"}))
    monkeypatch.setattr(setups.Setup, "_check_shares", lambda *_: None)
    fleet = Fleet(terms_of_size(4))
    one, other = fleet.machines[VICTIM], fleet.machines["m02"]
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    adverts = {
        name: signed_from(machine.advertise(setup.advertise_ask()))
        for name, machine in fleet.machines.items()
    }
    three = {name: adverts[name] for name in (VICTIM, "m02", "m03")}
    one.share(write_adverts(three, fleet.terms))
    answer = ShareAnswer.from_bytes(other.share(write_adverts(adverts, fleet.terms)), holders=4)
    held = one._pending
    header = replace(
        other._pending._header,
        setup=held.setup,
        rows=(dealing.row_of(answer.commitments[0], answer.ciphertexts[0]),) * 4,
    )
    with pytest.raises(SecaggError, match="do not open"):
        receive(
            held.keys.transport(2),
            header=header,
            dealer=held.adverts["m02"],
            holder=(VICTIM, 0),
            row=answer.commitments[0],
            ciphertext=answer.ciphertexts[0],
            terms=fleet.terms,
        )


LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
]


def low_order(point: bytes, *, transport: bool) -> Callable[[str, str, bytes], bytes]:
    """A member that works for the broker advertises a point under which everything agrees on zero."""

    def said(step: str, party: str, answer: bytes) -> bytes:
        if (step, party) != ("advertise", "m02"):
            return answer
        fleet = Fleet(terms_of_size(4))
        setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
        setup.advert(party, answer)
        advert = setup.adverts[party]
        changed = (
            replace(advert, transports=(point, *advert.transports[1:]))
            if transport
            else replace(advert, slots=(replace(advert.slots[0], public=point), *advert.slots[1:]))
        )
        signed = SignedBytes(
            payload=changed.payload(), signature=sign(changed, key_of(party)), blob=changed.blob()
        )
        return signed_bytes(signed)

    return said


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda one: one.hex()[:6])
@pytest.mark.parametrize("transport", [True, False], ids=["transport", "slot"])
def test_a_low_order_point_is_refused_and_its_member_named(point: bytes, transport: bool) -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(said=low_order(point, transport=transport))
    refused = fleet.refused["advertise", "m02"]
    assert isinstance(refused, ContextMismatchError)
    assert refused.offender == "m02"
    assert setup.members == ("m01", "m03", "m04")
    assert len(fleet.round(setup, 1).opened.online) == 3  # the others go on


def test_a_low_order_point_would_give_everybody_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    def agreement(private: bytes, public: bytes) -> bytes:
        return bytes(32) if public in LOW_ORDER else contexts.agreement(private, public)

    monkeypatch.setattr(dealing, "agreement", agreement)
    fleet = Fleet(terms_of_size(4))
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    forge = low_order(LOW_ORDER[0], transport=True)
    for one, machine in fleet.machines.items():
        setup.advert(one, forge("advertise", one, machine.advertise(setup.advertise_ask())))
    victim = fleet.machines[VICTIM]
    answer = ShareAnswer.from_bytes(victim.share(setup.share_ask()), holders=4)
    header = ShareHeader.open(answer.header, setup=setup.setup, party=VICTIM, holders=4, terms=fleet.terms)
    monkeypatch.setattr(dealing, "agreement", lambda *_: bytes(32))
    given = receive(
        bytes(range(32)),  # anybody's
        header=header,
        dealer=setup.adverts[VICTIM],
        holder=("m02", 1),
        row=answer.commitments[1],
        ciphertext=answer.ciphertexts[1],
        terms=fleet.terms,
    )
    assert len(given.shares) == setup.frame.slots
    monkeypatch.undo()
    fleet = Fleet(terms_of_size(4))
    with pytest.raises(ContextMismatchError):
        fleet.machines[VICTIM].share(_with_forged(fleet, forge))


def _with_forged(fleet: Fleet, forge: Callable[[str, str, bytes], bytes]) -> bytes:
    setup = setups.Setup(fleet.terms, number=1, first_round=1, rounds=2)
    answers = {
        one: signed_from(forge("advertise", one, machine.advertise(setup.advertise_ask())))
        for one, machine in fleet.machines.items()
    }
    return write_adverts(answers, fleet.terms)
