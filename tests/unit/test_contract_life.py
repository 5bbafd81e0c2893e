# SPDX-License-Identifier: Apache-2.0
"""Notices and the life that they give a contract: who may say what, what it changes, what is void."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from policies.contract import evaluate
from policies.contract.errors import (
    LifecycleError,
    NoticeEntitlementError,
    NoticeMalformedError,
    NoticeOrderError,
    RefusedError,
)
from policies.contract.lifecycle import (
    Departure,
    Ending,
    Life,
    absorb,
    advance,
    begin,
    contract_state,
    finalized,
    follow,
    key_of,
    life_view,
    party_of_key,
    remaining,
    since,
    standing,
    superseded,
    take,
)
from policies.contract.notices import (
    NOTICE_TYPE,
    Notice,
    attestation_subject,
    open_notice,
    read_notice,
    seal_notice,
)
from policies.encoding import canonical
from policies.errors import SignatureInvalidError, WeakKeyError
from policies.identity import SigningKey, key_text
from policies.signing import Envelope
from tests.contractsim import CONTRIBUTORS, authored, contract, key, train_round
from tests.contractsim import key_of as private

CONTRACT = contract()
FINAL = "2026-11-29T12:00:00Z"
AT = "2027-03-01T08:00:00Z"
NOW = "2027-03-02T08:00:00Z"
FRESH = SigningKey.from_seed(b"a new key of kita".ljust(32, b"."))
TERMS: dict[str, dict[str, Any]] = {
    "halt": {"code": "cell.incident"},
    "resume": {"code": "cause.removed", "refers": CONTRACT.digest},
    "exit": {"code": "party.leaves", "choice": "retrain"},
    "rotate": {"code": "key.age", "subject": key_text(FRESH.public)},
    "attest": {"code": "use.attested", "subject": "use:inspection;country:JP"},
    "admit": {"code": "checked", "subject": "org_abcdefghijklmnop"},
}


def notice(kind: str = "halt", party: str = "kita", *, seq: int = 1, **terms: Any) -> Notice:
    fields = {"contract": CONTRACT.digest, "party": party, "seq": seq, "at": AT} | TERMS[kind] | terms
    return Notice(kind=kind, **fields)


def signed(said: Notice, *keys: SigningKey) -> Envelope:
    return seal_notice(said, *(keys or (private(said.party),)))


def alive() -> Life:
    return begin(CONTRACT, finalized_at=FINAL)


def say(life: Life, kind: str, party: str, **terms: Any) -> Life:
    said = notice(kind, party, seq=life.next_seq(party), **terms)
    keys = (private(party), FRESH) if kind == "rotate" else (private(party),)
    return take(CONTRACT, life, signed(said, *keys))[0]


def halted() -> tuple[Life, Notice]:
    said = notice("halt", "kita")
    return take(CONTRACT, alive(), signed(said))[0], said


# --- the form ---


@pytest.mark.parametrize("kind", sorted(TERMS))
def test_every_kind_comes_back_from_its_own_bytes(kind: str) -> None:
    said = notice(kind)
    assert read_notice(said.payload) == said
    keys = (private("kita"), FRESH) if kind == "rotate" else (private("kita"),)
    again = Envelope.from_bytes(signed(said, *keys).to_bytes())
    assert open_notice(again, CONTRACT) == said


BROKEN: list[tuple[str, str, Any]] = [
    ("another schema", "schema", "iriai-notice/2"),
    ("an unknown kind", "kind", "pause"),
    ("no digest", "contract", "abc"),
    ("a party with a capital", "party", "Kita"),
    ("number 0", "seq", 0),
    ("a truth value as number", "seq", True),
    ("a date that is none", "at", "2027-02-30T00:00:00Z"),
    ("a date without a zone", "at", "2027-03-01T08:00:00"),
    ("a code of free text", "code", "please stop"),
    ("a clause id that is none", "clause", "K 1"),
    ("a text of two lines", "text", "one\ntwo"),
    ("an empty text", "text", ""),
    ("a text that hides a character", "text", "a\u200bb"),
    ("a text that is too long", "text", "a" * 501),
    ("a halt that refers to something", "refers", CONTRACT.digest),
    ("a halt that makes a choice", "choice", "retrain"),
    ("a halt with a subject", "subject", "use:inspection;country:JP"),
]


@pytest.mark.parametrize(("field", "value"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_notice_with_one_wrong_field_is_refused(field: str, value: Any) -> None:
    tree = json.loads(notice("halt").payload) | {field: value}
    with pytest.raises(NoticeMalformedError):
        read_notice(canonical(tree))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("resume", "refers", None),
        ("exit", "choice", None),
        ("exit", "choice", "erase"),
        ("attest", "subject", "use:Inspection;country:JP"),
        ("attest", "subject", "use:inspection;country:Japan"),
        ("attest", "subject", None),
        ("admit", "subject", "org_short"),
    ],
)
def test_a_kind_without_what_belongs_to_it_is_refused(kind: str, field: str, value: Any) -> None:
    tree = json.loads(notice(kind).payload) | {field: value}
    with pytest.raises(NoticeMalformedError):
        read_notice(canonical(tree))


@pytest.mark.parametrize("field", ["text", "refers", "schema"])
def test_a_missing_or_an_unknown_key_is_refused(field: str) -> None:
    tree = json.loads(notice("halt").payload)
    with pytest.raises(NoticeMalformedError):
        read_notice(canonical({name: value for name, value in tree.items() if name != field}))
    with pytest.raises(NoticeMalformedError):
        read_notice(canonical(tree | {"more": None}))


def test_another_spelling_of_the_same_notice_is_refused() -> None:
    with pytest.raises(NoticeMalformedError):
        read_notice(json.dumps(json.loads(notice().payload), indent=1).encode())


def test_an_attestation_says_use_and_country() -> None:
    said = notice("attest", subject=attestation_subject(use="weld-inspection", country="JP"))
    assert said.attestation is not None
    assert (said.attestation.use, said.attestation.country) == ("weld-inspection", "JP")
    assert said.attestation.notice == said.digest
    with pytest.raises(NoticeMalformedError):
        attestation_subject(use="two words", country="JP")


# --- who signed it ---


def test_a_notice_signed_by_another_party_is_nobodys() -> None:
    with pytest.raises(SignatureInvalidError):
        open_notice(signed(notice(), private("nord")), CONTRACT)


def test_a_hint_decides_nothing() -> None:
    good = signed(notice())
    forged = replace(good, signatures=(("0" * 16, good.signatures[0][1]),))
    assert open_notice(forged, CONTRACT) == notice()
    stolen = replace(good, signatures=((good.signatures[0][0], b"\0" * 64),))
    with pytest.raises(SignatureInvalidError):
        open_notice(stolen, CONTRACT)


def test_a_notice_for_another_contract_party_or_clause_is_refused() -> None:
    other = contract(title="Another pool")
    for said, about in (
        (notice(), other),
        (notice(party="outsider"), CONTRACT),
        (notice(clause="no-such-clause"), CONTRACT),
    ):
        with pytest.raises(NoticeMalformedError):
            open_notice(signed(said, private("kita")), about)


def test_another_payload_type_or_no_signature_is_refused() -> None:
    good = signed(notice())
    with pytest.raises(NoticeMalformedError):
        open_notice(Envelope.seal(good.payload, "application/json", private("kita")), CONTRACT)
    with pytest.raises(NoticeMalformedError):
        open_notice(replace(good, signatures=()), CONTRACT)
    assert good.payload_type == NOTICE_TYPE


# --- halt and resume ---


@pytest.mark.parametrize("party", ["kita", "broker", "audit"])
def test_whom_the_clause_names_halts_alone(party: str) -> None:
    life = say(alive(), "halt", party)
    assert standing(CONTRACT, life, NOW) == "HALTED"
    assert contract_state(CONTRACT, life, NOW).halted is True
    refused = evaluate(CONTRACT, contract_state(CONTRACT, life, NOW), train_round())
    assert refused.clauses == ("halt-1",)


def test_whom_the_clause_leaves_out_may_not_halt() -> None:
    tree = authored()
    tree["halt"]["who"] = ["any-contributor"]
    narrow = contract(halt=tree["halt"])
    said = replace(notice(party="audit"), contract=narrow.digest)
    with pytest.raises(NoticeEntitlementError) as caught:
        take(narrow, begin(narrow, finalized_at=FINAL), signed(said))
    assert caught.value.clause == "halt-1"


def test_a_halt_ends_when_every_contributor_has_resumed_it() -> None:
    life, halt = halted()
    for number, party in enumerate(CONTRIBUTORS, 1):
        assert standing(CONTRACT, life, NOW) == "HALTED"
        life = say(life, "resume", party, refers=halt.digest, at="2027-03-01T09:00:00Z")
        assert (number == len(CONTRIBUTORS)) == (not life.halts)
    assert standing(CONTRACT, life, NOW) == "ACTIVE"
    assert since(CONTRACT, life, NOW) == "2027-03-01T09:00:00Z"
    assert life.resumed_by == {}


def test_a_resume_of_one_halt_leaves_the_other_in_force() -> None:
    life, first = halted()
    life = say(life, "halt", "nord", code="log.disputed")
    for party in CONTRIBUTORS:
        life = say(life, "resume", party, refers=first.digest)
    assert [one.party for one in life.halts] == ["nord"]
    assert standing(CONTRACT, life, NOW) == "HALTED"


@pytest.mark.parametrize("party", ["broker", "audit"])
def test_only_contributors_resume(party: str) -> None:
    life, halt = halted()
    with pytest.raises(NoticeEntitlementError):
        say(life, "resume", party, refers=halt.digest)


def test_a_resume_of_no_halt_and_a_second_resume_change_nothing() -> None:
    life, halt = halted()
    with pytest.raises(LifecycleError):
        say(life, "resume", "kita", refers=CONTRACT.digest)
    life = say(life, "resume", "kita", refers=halt.digest)
    with pytest.raises(LifecycleError):
        say(life, "resume", "kita", refers=halt.digest)


# --- exit ---


def test_who_leaves_has_no_influence_from_the_notice_on() -> None:
    life = say(alive(), "exit", "kita")
    assert life.exited == {"kita": Departure(AT, "retrain")}
    assert remaining(CONTRACT, life) == ("hanbit", "iber", "nord")
    state = contract_state(CONTRACT, life, NOW)
    assert state.exited_parties == ("kita",)
    assert "party-kita" in evaluate(CONTRACT, state, train_round("kita")).clauses
    with_it = evaluate(CONTRACT, state, train_round("nord"))
    assert not with_it.allow  # the leaver may not be asked along
    without = evaluate(CONTRACT, state, train_round("nord", cohort=("hanbit", "iber", "nord")))
    assert without.allow
    for kind in ("halt", "admit"):
        with pytest.raises(NoticeEntitlementError):
            say(life, kind, "kita")
    with pytest.raises(LifecycleError):
        say(life, "exit", "kita")


def test_the_choice_follows_the_clause_unless_the_leaver_may_choose() -> None:
    with pytest.raises(RefusedError) as caught:
        say(alive(), "exit", "kita", choice="discard")
    assert caught.value.clause == "exit-1"
    tree = authored()
    tree["exit"]["unreleased_models"] = "leaver-chooses"
    free = contract(exit=tree["exit"])
    for choice in ("discard", "retrain"):
        said = replace(notice("exit", choice=choice), contract=free.digest)
        life, _ = take(free, begin(free, finalized_at=FINAL), signed(said))
        assert life.exited["kita"].choice == choice


def test_an_exit_by_who_is_no_contributor_is_refused() -> None:
    with pytest.raises(RefusedError):
        say(alive(), "exit", "broker")


def test_fewer_than_k_groups_end_the_contract_and_name_the_clause() -> None:
    life = say(alive(), "exit", "kita")
    assert standing(CONTRACT, life, NOW) == "ACTIVE"
    life = say(life, "exit", "nord", at="2027-03-01T10:00:00Z")
    assert life.terminated == Ending("exit.too-few-groups", "k-1")
    assert standing(CONTRACT, life, NOW) == "TERMINATED"
    assert contract_state(CONTRACT, life, NOW).standing == "terminated"
    assert since(CONTRACT, life, NOW) == "2027-03-01T10:00:00Z"
    for kind in ("halt", "exit", "admit"):
        with pytest.raises(LifecycleError):
            say(life, kind, "iber")


def test_a_halt_that_only_the_leaver_had_not_resumed_ends_with_the_exit() -> None:
    life, halt = halted()
    for party in ("hanbit", "iber", "nord"):
        life = say(life, "resume", party, refers=halt.digest)
    assert life.halts
    life = say(life, "exit", "kita")
    assert not life.halts
    assert standing(CONTRACT, life, NOW) == "ACTIVE"


# --- keys ---


def test_a_rotated_key_counts_from_the_next_notice_on() -> None:
    life = say(alive(), "rotate", "kita")
    assert key_of(CONTRACT, life, "kita") == key_text(FRESH.public)
    assert party_of_key(CONTRACT, life, key("kita")) is None
    found = party_of_key(CONTRACT, life, key_text(FRESH.public))
    assert found is not None
    assert found.party == "kita"
    later = notice("halt", seq=2)
    with pytest.raises(SignatureInvalidError):
        take(CONTRACT, life, signed(later, private("kita")))
    life, _ = take(CONTRACT, life, signed(later, FRESH))
    assert life.halts == (later,)
    state = contract_state(CONTRACT, life, NOW)
    assert state.rotated_keys == {"kita": key_text(FRESH.public)}


def test_a_rotation_needs_the_new_key_and_the_old_one() -> None:
    said = notice("rotate")
    for keys in ((private("kita"),), (FRESH,), (FRESH, private("nord"))):
        with pytest.raises(SignatureInvalidError):
            take(CONTRACT, alive(), signed(said, *keys))


def test_all_the_others_can_give_a_lost_key_a_successor() -> None:
    said = notice("rotate")
    others = [private(name) for name in CONTRIBUTORS if name != "kita"]
    life, _ = take(CONTRACT, alive(), signed(said, FRESH, *others))
    assert key_of(CONTRACT, life, "kita") == key_text(FRESH.public)
    with pytest.raises(SignatureInvalidError):
        take(CONTRACT, alive(), signed(said, FRESH, *others[:-1]))


def test_who_left_is_not_needed_for_a_rotation_by_all() -> None:
    life = say(alive(), "exit", "nord")
    said = notice("rotate", seq=1)
    others = [private(name) for name in ("hanbit", "iber")]
    life, _ = take(CONTRACT, life, signed(said, FRESH, *others))
    assert life.rotated == {"kita": key_text(FRESH.public)}


def test_where_all_must_sign_the_old_key_alone_does_nothing() -> None:
    tree = authored()
    tree["amendment"]["key_rotation"] = "all-contributors"
    strict = contract(amendment=tree["amendment"])
    said = replace(notice("rotate"), contract=strict.digest)
    life = begin(strict, finalized_at=FINAL)
    with pytest.raises(SignatureInvalidError) as caught:
        take(strict, life, signed(said, private("kita"), FRESH))
    assert caught.value.clause == "amend-1"
    others = [private(name) for name in CONTRIBUTORS if name != "kita"]
    assert take(strict, life, signed(said, FRESH, *others))[0].rotated


def test_a_key_that_any_party_has_or_had_is_refused() -> None:
    with pytest.raises(LifecycleError):
        take(
            CONTRACT,
            alive(),
            signed(notice("rotate", subject=key("nord")), private("kita"), private("nord")),
        )
    life = say(alive(), "rotate", "kita")
    again = notice("rotate", "nord", subject=key_text(FRESH.public))
    with pytest.raises(LifecycleError):
        take(CONTRACT, life, signed(again, private("nord"), FRESH))
    back = notice("rotate", "kita", seq=2, subject=key("kita"))
    with pytest.raises(LifecycleError):
        take(CONTRACT, life, signed(back, FRESH, private("kita")))


def test_a_weak_new_key_is_refused() -> None:
    tree = json.loads(notice("rotate").payload) | {"subject": "ed25519:" + "01" + "00" * 31}
    with pytest.raises(WeakKeyError):
        read_notice(canonical(tree))


# --- numbers, time, ends ---


@pytest.mark.parametrize("seq", [1, 3])
def test_a_used_number_and_a_gap_are_refused(seq: int) -> None:
    life, _ = halted()
    with pytest.raises(NoticeOrderError):
        take(CONTRACT, life, signed(notice("attest", seq=seq)))


def test_nothing_is_taken_before_the_contract_is_final() -> None:
    with pytest.raises(LifecycleError):
        take(CONTRACT, begin(CONTRACT), signed(notice()))
    assert standing(CONTRACT, begin(CONTRACT), NOW) == "OFFERED"
    assert standing(CONTRACT, finalized(begin(CONTRACT), FINAL), FINAL) == "PENDING"


@pytest.mark.parametrize(
    ("now", "stands"),
    [
        ("2026-11-30T23:59:59Z", "PENDING"),
        ("2026-12-01T00:00:00Z", "ACTIVE"),
        ("2028-11-30T23:59:59Z", "ACTIVE"),
        ("2028-12-01T00:00:00Z", "EXPIRED"),
    ],
)
def test_the_term_begins_and_ends_at_its_exact_second(now: str, stands: str) -> None:
    assert standing(CONTRACT, alive(), now) == stands
    allowed = evaluate(CONTRACT, contract_state(CONTRACT, alive(), now), train_round()).allow
    assert allowed == (stands == "ACTIVE")


def test_a_halt_does_not_outlive_the_term_and_a_successor_ends_it() -> None:
    life, _ = halted()
    assert standing(CONTRACT, life, "2028-12-01T00:00:00Z") == "EXPIRED"
    after = superseded(life, "sha256:" + "1" * 64, NOW)
    assert standing(CONTRACT, after, NOW) == "SUPERSEDED"
    assert contract_state(CONTRACT, after, NOW).standing == "superseded"
    with pytest.raises(LifecycleError):
        say(after, "halt", "nord")


def test_keys_and_attestations_go_on_after_the_end() -> None:
    over = superseded(alive(), "sha256:" + "1" * 64, NOW)
    over = say(over, "attest", "kita")
    assert over.attested["kita"].country == "JP"
    assert say(over, "rotate", "kita").rotated


def test_a_later_attestation_takes_the_place_of_the_earlier() -> None:
    life = say(alive(), "attest", "kita")
    life = say(life, "attest", "kita", subject="use:assembly;country:DE")
    assert (life.attested["kita"].use, life.attested["kita"].country) == ("assembly", "DE")
    with pytest.raises(NoticeEntitlementError):
        say(life, "attest", "audit")


def test_parties_vouch_for_a_newcomer_each_once() -> None:
    life = say(say(alive(), "admit", "kita"), "admit", "broker")
    assert life.admitted == {"org_abcdefghijklmnop": ("broker", "kita")}
    with pytest.raises(NoticeEntitlementError):
        say(life, "admit", "audit")


# --- void notices ---


def test_a_void_notice_uses_its_number_and_nothing_else() -> None:
    life = say(say(alive(), "exit", "kita"), "exit", "nord")
    late = signed(notice("halt", "iber"))
    after, said, why = absorb(CONTRACT, life, late)
    assert isinstance(why, LifecycleError)
    assert after == life.heard("iber", 1, AT)
    assert said.party == "iber"
    assert take(CONTRACT, after, signed(notice("attest", "iber", seq=2)))[0].attested


def test_an_exit_that_the_contract_refuses_is_void() -> None:
    after, _, why = absorb(CONTRACT, alive(), signed(notice("exit", choice="discard")))
    assert isinstance(why, RefusedError)
    assert after.exited == {}
    assert after.seqs == {"kita": 1}


def test_what_nobody_signed_and_a_gap_are_not_absorbed() -> None:
    with pytest.raises(SignatureInvalidError):
        absorb(CONTRACT, alive(), signed(notice(), private("nord")))
    with pytest.raises(NoticeOrderError):
        absorb(CONTRACT, alive(), signed(notice(seq=2)))


def test_a_history_gives_the_same_life_again() -> None:
    halt = notice("halt")
    history = [
        signed(halt),
        signed(notice("resume", refers="sha256:" + "0" * 64, seq=2)),  # void
        signed(notice("rotate", seq=3), private("kita"), FRESH),
        signed(notice("attest", seq=4), FRESH),
    ]
    life = follow(CONTRACT, history, finalized_at=FINAL)
    assert life == follow(CONTRACT, history, finalized_at=FINAL)
    assert (life.halts, life.seqs) == ((halt,), {"kita": 4})
    with pytest.raises(NoticeOrderError):
        follow(CONTRACT, history[1:], finalized_at=FINAL)


def test_the_view_names_everything_that_is_in_force() -> None:
    life, halt = halted()
    view = life_view(CONTRACT, say(life, "resume", "nord", refers=halt.digest), NOW)
    assert view == {
        "digest": CONTRACT.digest,
        "standing": "HALTED",
        "since": AT,
        "halts": [halt.digest],
        "resumed_by": {halt.digest: ["nord"]},
        "exited": {},
        "asked_out": [],
        "rotated": {},
        "superseded_by": None,
        "terminated": None,
    }


def test_a_life_is_never_changed_in_place() -> None:
    life, halt = halted()
    before = life_view(CONTRACT, life, NOW)
    advance(CONTRACT, life, notice("resume", "nord", refers=halt.digest))
    assert life_view(CONTRACT, life, NOW) == before
