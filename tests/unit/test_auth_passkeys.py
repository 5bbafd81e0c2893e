# SPDX-License-Identifier: Apache-2.0
"""Passkeys: made, used to log in, used to confirm exactly some bytes; and the evidence checked again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.auth.confirming import check_evidence
from broker.auth.errors import (
    ChallengeError,
    CredentialError,
    EvidenceError,
    NoDomainError,
    PasskeyError,
    StepUpError,
)
from policies.encoding import canonical, digest
from tests.brokersim import open_house
from tests.loginsim import Browser, log_in, named_console
from tests.passkeysim import UP, Passkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

ORIGIN, RP = "https://localhost:7443", "localhost"
SUBJECT = b'{"action":"org.remove","proposal":"prop_a"}'


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(named_console(tmp_path / "broker")) as opened:
        yield opened


async def with_passkey(house: House, name: str = "alice", **made: Any) -> tuple[Any, Passkey]:
    """A login of somebody who has one passkey, and the passkey."""
    auth, key = house.services.auth, Passkey(**{"seed": name} | made)
    login = (await log_in(house, name)).login
    options, ticket = auth.account.ask_passkey(login)
    await auth.account.add_passkey(
        login, ticket, key.create(options, ORIGIN), label="blue key", request=digest(name.encode())
    )
    return (await log_in(house, name, how="passkey")).login, key


@pytest.mark.parametrize("alg", ["ES256", "Ed25519"])
async def test_a_passkey_is_added_and_lets_its_person_in(house: House, alg: str) -> None:
    _, key = await with_passkey(house, alg=alg)
    options, ticket = house.services.auth.ask_login()
    opened = await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))
    assert (opened.login.person.name, opened.login.how) == ("alice", "passkey")
    assert opened.login.stepped_ms == house.clock.ms
    held = house.services.auth.holdings.of("alice")
    assert [(one.label, one.count, one.used_ms) for one in held] == [("blue key", 1, house.clock.ms)]
    acts = [one.pub for one in house.entries() if one.type.value == "console.action"]
    assert [(one["action"], one["subject"]) for one in acts] == [("passkey.add", digest(key.cose))]


async def test_a_question_is_answered_once(house: House) -> None:
    _, key = await with_passkey(house, counts=False)
    options, ticket = house.services.auth.ask_login()
    answer = key.get(options, ORIGIN)
    await house.services.auth.log_in_with(ticket, answer)
    with pytest.raises(ChallengeError):
        await house.services.auth.log_in_with(ticket, answer)


async def test_a_question_is_too_old_after_five_minutes(house: House) -> None:
    _, key = await with_passkey(house)
    options, ticket = house.services.auth.ask_login()
    house.clock.ms += 300_000
    with pytest.raises(ChallengeError):
        await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))


@pytest.mark.parametrize(
    "ticket", ["", "1", "1790000100000." + "0" * 32, "99999999999999999." + "0" * 32, "\u0661." + "0" * 32]
)
async def test_a_ticket_that_nobody_was_given_opens_nothing(house: House, ticket: str) -> None:
    _, key = await with_passkey(house)
    options, _ = house.services.auth.ask_login()
    with pytest.raises(PasskeyError):
        await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))


@pytest.mark.parametrize(
    "changes",
    [
        {"challenge": b"another"},
        {"type": "webauthn.create"},
        {"rp": "evil.example"},
        {"flags": 0},
        {"framed": True},
        {"user": b"somebody else"},
    ],
    ids=lambda one: next(iter(one)),
)
async def test_an_answer_to_something_else_proves_nothing(house: House, changes: dict[str, Any]) -> None:
    _, key = await with_passkey(house)
    options, ticket = house.services.auth.ask_login()
    with pytest.raises(PasskeyError):
        await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN, **changes))


async def test_an_answer_on_another_sites_page_proves_nothing(house: House) -> None:
    _, key = await with_passkey(house)
    options, ticket = house.services.auth.ask_login()
    with pytest.raises(PasskeyError, match="origin"):
        await house.services.auth.log_in_with(ticket, key.get(options, "https://localhost:7444"))


async def test_a_copy_of_a_security_key_is_noticed_by_its_counter(house: House) -> None:
    _, key = await with_passkey(house)
    options, ticket = house.services.auth.ask_login()
    await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))
    key.count -= 1
    options, ticket = house.services.auth.ask_login()
    with pytest.raises(PasskeyError, match="count"):
        await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "{}",
        '{"id": 1}',
        "{" * 10_000,
        "x" * 20_000,
        '{"id":"a","rawId":"a","type":"public-key","response":{}}',
    ],
)
async def test_what_is_no_answer_is_refused_without_a_stumble(house: House, answer: str) -> None:
    login, _ = await with_passkey(house)
    _, ticket = house.services.auth.ask_login()
    with pytest.raises(PasskeyError):
        await house.services.auth.log_in_with(ticket, answer)
    _, ticket = house.services.auth.account.ask_passkey(login)
    with pytest.raises(PasskeyError):
        await house.services.auth.account.add_passkey(login, ticket, answer, label="x", request=digest(b""))


@pytest.mark.parametrize(
    "changes",
    [
        {"fmt": "packed", "statement": {"alg": -7, "sig": b"x"}},
        {"challenge": b"another"},
        {"rp": "evil.example"},
        {"flags": UP},
        {"framed": True},
    ],
    ids=["attested", "challenge", "rp", "no key", "framed"],
)
async def test_a_new_passkey_must_be_the_one_that_was_asked_for(
    house: House, changes: dict[str, Any]
) -> None:
    login = (await log_in(house, "alice")).login
    options, ticket = house.services.auth.account.ask_passkey(login)
    with pytest.raises(PasskeyError):
        await house.services.auth.account.add_passkey(
            login, ticket, Passkey().create(options, ORIGIN, **changes), label="x", request=digest(b"")
        )


async def test_a_question_for_one_session_is_not_answered_in_another(house: House) -> None:
    alice, bob = (await log_in(house, "alice")).login, (await log_in(house, "bob")).login
    options, ticket = house.services.auth.account.ask_passkey(alice)
    with pytest.raises(PasskeyError):
        await house.services.auth.account.add_passkey(
            bob, ticket, Passkey().create(options, ORIGIN), label="x", request=digest(b"")
        )


async def test_one_passkey_is_one_persons(house: House) -> None:
    _, key = await with_passkey(house)
    bob = (await log_in(house, "bob")).login
    options, ticket = house.services.auth.account.ask_passkey(bob)
    with pytest.raises(CredentialError):
        await house.services.auth.account.add_passkey(
            bob, ticket, key.create(options, ORIGIN), label="x", request=digest(b"")
        )


async def test_another_way_in_is_added_only_by_somebody_who_showed_that_it_is_them(house: House) -> None:
    login, _ = await with_passkey(house)
    house.clock.ms += 5 * 60_000
    stale = house.services.auth.sessions.of("alice")[0]
    with pytest.raises(StepUpError):
        house.services.auth.account.ask_passkey(stale)
    with pytest.raises(StepUpError):
        await house.services.auth.account.set_password(stale, "a long enough word", request=digest(b""))
    assert login.person == stale.person


async def test_the_last_way_in_is_not_removed(house: House) -> None:
    login, _ = await with_passkey(house)
    only = house.services.auth.holdings.of("alice")[0]
    with pytest.raises(CredentialError):
        await house.services.auth.account.remove_passkey(login, only.id, request=digest(b""))


async def test_a_removed_passkey_opens_nothing(house: House) -> None:
    login, key = await with_passkey(house)
    await house.services.auth.account.set_password(login, "a long enough word", request=digest(b"pw"))
    login = house.services.auth.sessions.of("alice")[0]
    await house.services.auth.account.remove_passkey(
        login, house.services.auth.holdings.of("alice")[0].id, request=digest(b"rm")
    )
    options, ticket = house.services.auth.ask_login()
    with pytest.raises(PasskeyError, match="unknown"):
        await house.services.auth.log_in_with(ticket, key.get(options, ORIGIN))
    actions = [one.pub["action"] for one in house.entries() if one.type.value == "console.action"]
    assert actions == ["passkey.add", "password.set", "passkey.remove"]


async def test_a_console_without_a_name_has_no_passkeys_and_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path / "broker") as house:
        login = (await log_in(house, "alice")).login
        with pytest.raises(NoDomainError, match="password"):
            house.services.auth.account.ask_passkey(login)
        page = await (await log_in(house, "alice")).get("/console/account")
        assert "this console has a number" in page.text


# --- confirming ---


async def test_a_confirmation_is_evidence_that_can_be_checked_again(house: House) -> None:
    login, key = await with_passkey(house)
    confirmed = await house.services.auth.confirmations.confirm(
        login, SUBJECT, assertion=key.confirm(SUBJECT, ORIGIN, RP)
    )
    evidence = confirmed(SUBJECT)
    proof = check_evidence(evidence, SUBJECT, passkeys=house.services.auth.passkeys)
    assert (proof.name, proof.how, proof.key) == ("alice", "passkey", digest(key.cose))


async def test_a_word_for_some_bytes_is_no_word_for_others(house: House) -> None:
    login, key = await with_passkey(house)
    other = SUBJECT.replace(b"prop_a", b"prop_b")
    with pytest.raises(PasskeyError, match="challenge"):
        await house.services.auth.confirmations.confirm(
            login, other, assertion=key.confirm(SUBJECT, ORIGIN, RP)
        )
    confirmed = await house.services.auth.confirmations.confirm(
        login, SUBJECT, assertion=key.confirm(SUBJECT, ORIGIN, RP)
    )
    with pytest.raises(EvidenceError):
        confirmed(other)
    with pytest.raises(EvidenceError):
        check_evidence(confirmed.evidence, other, passkeys=house.services.auth.passkeys)


@pytest.mark.parametrize(
    "field", ["signature", "client_data", "authenticator_data", "key", "person", "subject"]
)
async def test_evidence_that_was_changed_proves_nothing(house: House, field: str) -> None:
    login, key = await with_passkey(house)
    evidence = (
        await house.services.auth.confirmations.confirm(
            login, SUBJECT, assertion=key.confirm(SUBJECT, ORIGIN, RP)
        )
    )(SUBJECT)
    document = json.loads(evidence.data)
    document[field] = document[field][:4] + "AAAA" + document[field][8:] if field != "person" else "bob"
    bent = replace(evidence, data=canonical(document))
    if field == "person":  # the name is the broker's word; the log says whose passkey the key is
        assert check_evidence(bent, SUBJECT, passkeys=house.services.auth.passkeys).key == digest(key.cose)
        return
    with pytest.raises(EvidenceError):
        check_evidence(bent, SUBJECT, passkeys=house.services.auth.passkeys)


async def test_somebody_elses_passkey_confirms_nothing(house: House) -> None:
    login, _ = await with_passkey(house)
    _, other = await with_passkey(house, "bob")
    with pytest.raises(PasskeyError, match="somebody else"):
        await house.services.auth.confirmations.confirm(
            login, SUBJECT, assertion=other.confirm(SUBJECT, ORIGIN, RP)
        )


async def test_an_answer_for_a_login_confirms_nothing(house: House) -> None:
    login, key = await with_passkey(house)
    options, _ = house.services.auth.ask_login()
    with pytest.raises(PasskeyError):
        await house.services.auth.confirmations.confirm(login, SUBJECT, assertion=key.get(options, ORIGIN))


async def test_a_form_that_is_sent_twice_by_one_click_is_confirmed_once(house: House) -> None:
    login, key = await with_passkey(house)
    answer = key.confirm(SUBJECT, ORIGIN, RP)
    first = await house.services.auth.confirmations.confirm(login, SUBJECT, assertion=answer)
    assert await house.services.auth.confirmations.confirm(login, SUBJECT, assertion=answer) is first


async def test_an_answer_of_one_session_is_not_taken_in_another(house: House) -> None:
    login, key = await with_passkey(house)
    answer = key.confirm(SUBJECT, ORIGIN, RP)
    await house.services.auth.confirmations.confirm(login, SUBJECT, assertion=answer)
    with pytest.raises(PasskeyError, match="count"):
        await house.services.auth.confirmations.confirm(
            (await log_in(house, "alice")).login, SUBJECT, assertion=answer
        )


async def test_who_has_a_passkey_does_not_confirm_by_password(house: House) -> None:
    login, _ = await with_passkey(house)
    await house.services.auth.account.set_password(login, "a long enough word", request=digest(b"pw"))
    with pytest.raises(StepUpError, match="passkey"):
        await house.services.auth.confirmations.confirm(login, SUBJECT, password="a long enough word")  # noqa: S106


async def test_the_question_of_a_confirmation_is_the_digest_of_its_bytes(house: House) -> None:
    login, key = await with_passkey(house)
    evidence = (
        await house.services.auth.confirmations.confirm(
            login, SUBJECT, assertion=key.confirm(SUBJECT, ORIGIN, RP)
        )
    )(SUBJECT)
    from webauthn.helpers import base64url_to_bytes as unb

    said = json.loads(unb(json.loads(evidence.data)["client_data"]))
    assert unb(said["challenge"]) == hashlib.sha256(SUBJECT).digest()


async def test_at_another_address_of_the_console_the_page_says_where_passkeys_work(house: House) -> None:
    page = await Browser(house).get("/console/login", headers={"host": "127.0.0.1:7443"})
    assert "Passkeys work only at" in page.text
    assert "Passkeys work only at" not in (await Browser(house).get("/console/login")).text
