# SPDX-License-Identifier: Apache-2.0
"""A foreign connector and the facade: from REQUESTED to FINALIZED, and every other way that the protocol has."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from broker.contracts.errors import CallbackInvalidError
from broker.dataspace.counterparties import check_callback
from broker.settings import Settings, SettingsError
from broker.store.tables import dsp_agreement, dsp_counterparty, dsp_negotiation
from policies.contract.errors import BadTransitionError
from policies.contract.lifecycle import ACTIVE, EXPIRED, HALTED, OFFERED, PENDING, SUPERSEDED, TERMINATED
from policies.contract.negotiation.pool import TRANSITIONS, LaneState
from policies.contract.odrl.dsp_lane import DspLane, Facts, answer, heard
from policies.contract.odrl.reading import confirm, read_view
from policies.limits import DSP_RETRY_S
from policies.log.entries import EntryType
from tests.connectorsim import DSP, Connector, Dataspace, open_dataspace, other_terms
from tests.dspsim import VECTORS, schema_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY_MS = 86_400_000


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Dataspace]:
    async with open_dataspace(tmp_path / "broker") as one:
        yield one


def valid(message: dict, kind: str | None = None) -> dict:
    """The message, once the official schema has nothing against it (where the vectors are)."""
    if VECTORS.is_dir():
        assert schema_errors(message, kind) == []
    return message


def refusal(answer) -> tuple[int, str]:
    body = valid(answer.json())
    assert body["@type"] in {"ContractNegotiationError", "CatalogError"}
    assert all(isinstance(one, str) for one in body["reason"])
    return answer.status_code, body["code"]


async def agreed(connector: Connector, clause: str = "tier-open") -> dict:
    """A negotiation in AGREED, by the shortest way."""
    return await connector.begin((await connector.offers())[clause])


async def offered(connector: Connector, clause: str = "tier-open") -> dict:
    """A negotiation in OFFERED."""
    return await connector.begin(other_terms((await connector.offers())[clause]))


# --- the ways through ---


async def test_from_request_to_finalized_when_the_request_is_our_offer(space):
    connector = await space.connector()
    state = valid(await agreed(connector))
    assert state["state"] == "REQUESTED"
    assert await connector.state(state) == "AGREED"
    assert connector.kinds == ["ContractAgreementMessage"]
    done = await connector.verify(state)
    assert (done.status_code, done.json()["state"]) == (200, "VERIFIED")
    assert await connector.state(state) == "FINALIZED"
    assert connector.kinds == ["ContractAgreementMessage", "ContractNegotiationEventMessage"]
    assert connector.told[-1][1]["eventType"] == "FINALIZED"
    for path, message in connector.told:
        valid(message)
        assert path.startswith(f"/dsp/negotiations/{state['consumerPid'].replace(':', '%3A')}/")
        assert message["providerPid"] == state["providerPid"]


async def test_from_request_over_our_offer_to_finalized(space):
    connector = await space.connector()
    state = await offered(connector)
    assert await connector.state(state) == "OFFERED"
    assert connector.told[0][1]["offer"]["@id"] == space.pair("tier-open").offer_id
    done = await connector.event(state)
    assert (done.status_code, valid(done.json())["state"]) == (200, "ACCEPTED")
    assert await connector.state(state) == "AGREED"
    assert (await connector.verify(state)).status_code == 200
    assert await connector.state(state) == "FINALIZED"
    assert connector.kinds == [
        "ContractOfferMessage",
        "ContractAgreementMessage",
        "ContractNegotiationEventMessage",
    ]
    for _, message in connector.told:
        valid(message)


async def test_a_counter_offer_gets_our_terms_again_and_never_changes_them(space):
    connector = await space.connector()
    offer = (await connector.offers())["tier-open"]
    state = await offered(connector)
    cheaper = copy.deepcopy(offer)
    cheaper["permission"][0]["constraint"] = cheaper["permission"][0]["constraint"][:1]
    assert (await connector.counter(state, cheaper)).json()["state"] == "REQUESTED"
    assert await connector.state(state) == "OFFERED"
    ours = [message["offer"] for _, message in connector.told]
    assert ours[0] == ours[1]
    assert (await connector.counter(state, offer)).status_code == 200
    assert await connector.state(state) == "AGREED"


async def test_an_offer_in_another_order_is_still_ours(space):
    connector = await space.connector()
    offer = (await connector.offers())["tier-open"]
    offer["permission"][0]["constraint"].reverse()
    offer["prohibition"].reverse()
    offer |= {"assigner": "https://127.0.0.1:7443", "assignee": "urn:acme"}
    state = await connector.begin(offer)
    assert await connector.state(state) == "AGREED"
    offer["iriai:gift"] = "x"
    assert await connector.state(await connector.begin(offer)) == "OFFERED"


async def test_too_many_counter_offers_end_the_negotiation(space):
    connector = await space.connector()
    offer = other_terms((await connector.offers())["tier-open"])
    state = await offered(connector)
    for number in range(20):
        offer["permission"][0]["iriai:round"] = str(number)
        assert (await connector.counter(state, offer)).status_code == 200
    assert await connector.state(state) == "TERMINATED"
    assert connector.told[-1][1]["code"] == "negotiation.rounds"


async def test_the_agreement_is_recorded_once_and_confirmed_by_the_contract(space):
    connector = await space.connector(participant="BPNL000000000042")
    for _ in range(2):
        space.house.clock.ms += 1_000
        state = await agreed(connector)
        assert (await connector.verify(state)).status_code == 200
        assert await connector.state(state) == "FINALIZED"
    first, second = (one["agreement"] for _, one in connector.told if "agreement" in one)
    assert first == second
    with space.house.services.store.read() as session:
        (row,) = session.execute(select(dsp_agreement)).all()
    assert json.loads(row.bytes) == first
    assert (row.contract, row.counterparty) == (space.contract.digest, "acme")
    assert (first["assigner"], first["assignee"]) == ("https://127.0.0.1:7443", "BPNL000000000042")
    message = next(one for _, one in connector.told if "agreement" in one)
    assert confirm(space.contract, read_view(message)) == space.pair("tier-open")


async def test_a_members_connector_agrees_under_the_members_own_pair(space):
    connector = await space.connector("kita-edc", org=space.org("kita"))
    offers = await connector.offers()
    assert set(offers) == {"tier-open", "tier-consortium"}
    state = await connector.begin(
        next(
            one | {"target": dataset["@id"]}
            for dataset in (await connector.catalog())["dataset"]
            for one in dataset["hasPolicy"]
            if one["@id"] == space.pair("tier-consortium", "kita").offer_id
        )
    )
    assert (await connector.verify(state)).status_code == 200
    assert await connector.state(state) == "FINALIZED"


async def test_the_contract_is_not_touched(space):
    with space.house.services.store.read() as session:
        before = space.house.services.contracts.documents()
        entries = len(space.house.entries())
        assert session is not None
    connector = await space.connector()
    assert (await connector.verify(await agreed(connector))).status_code == 200
    assert space.house.services.contracts.documents() == before
    new = space.house.kinds()[entries:]
    assert new == [EntryType.CONSOLE_ACTION.value]  # the registration; no entry speaks of a view


# --- ends, and what may not be said ---


async def test_a_consumer_ends_where_the_protocol_lets_it(space):
    connector = await space.connector()
    for start in (offered, agreed):
        state = await start(connector)
        done = await connector.terminate(state)
        assert (done.status_code, done.json()["state"]) == (200, "TERMINATED")
        assert await connector.state(state) == "TERMINATED"
        for late in (connector.event, connector.verify):
            assert refusal(await late(state)) == (409, "negotiation.bad-transition")


async def test_what_may_not_follow_is_refused_and_changes_nothing(space):
    connector = await space.connector()
    state = await offered(connector)
    assert refusal(await connector.verify(state)) == (409, "negotiation.bad-transition")
    assert refusal(await connector.event(state, "FINALIZED")) == (409, "negotiation.bad-transition")
    assert await connector.state(state) == "OFFERED"
    state = await agreed(connector)
    offer = (await connector.offers())["tier-open"]
    assert refusal(await connector.counter(state, offer)) == (409, "negotiation.bad-transition")
    assert refusal(await connector.event(state)) == (409, "negotiation.bad-transition")
    assert await connector.state(state) == "AGREED"
    await connector.verify(state)
    for late in (connector.terminate, connector.event):
        assert refusal(await late(state)) == (409, "negotiation.bad-transition")
    assert await connector.state(state) == "FINALIZED"


def test_the_consumer_may_do_exactly_what_the_table_says():
    for state in (None, *LaneState):
        for to in LaneState:
            if (state, to, "contributor") in TRANSITIONS:
                assert heard(state, to) is to
            else:
                with pytest.raises(BadTransitionError):
                    heard(state, to)


def test_the_provider_moves_only_along_the_table_and_concludes_only_in_force():
    standings = (ACTIVE, PENDING, HALTED, OFFERED, EXPIRED, SUPERSEDED, TERMINATED)
    for state in LaneState:
        for standing in standings:
            for is_open in (True, False):
                for same in (True, False):
                    for deadline_ms in (None, 0, 10):
                        lane = DspLane(state=state, rounds=1, deadline_ms=deadline_ms)
                        facts = Facts(standing=standing, open=is_open, same_terms=same)
                        move = answer(lane, facts, now_ms=5)
                        if move is None:
                            continue
                        assert (state, move.to, "broker") in TRANSITIONS
                        if move.to in {LaneState.AGREED, LaneState.FINALIZED}:
                            assert standing in {ACTIVE, PENDING}
                            assert is_open
                            assert deadline_ms != 0


async def test_pids_of_another_negotiation_are_refused(space):
    connector = await space.connector()
    one, two = await offered(connector), await offered(connector)
    mixed = {"providerPid": one["providerPid"], "consumerPid": two["consumerPid"]}
    assert refusal(await connector.event(mixed)) == (400, "contract.dsp-malformed")
    body = connector.message("ContractNegotiationEventMessage", two, eventType="ACCEPTED")
    answer = await connector.send("POST", f"/negotiations/{one['providerPid']}/events", body)
    assert refusal(answer) == (400, "contract.dsp-malformed")


async def test_an_error_names_the_pids_that_are_known(space):
    connector = await space.connector()
    state = await offered(connector)
    body = valid((await connector.verify(state)).json())
    assert (body["providerPid"], body["consumerPid"]) == (state["providerPid"], state["consumerPid"])


async def test_an_unknown_negotiation_and_anothers_look_the_same(space):
    connector, other = await space.connector(), await space.connector("rival")
    state = await offered(connector)
    unknown = state | {"providerPid": "iriai:negotiation:aaaaaaaaaaaaaaaa"}
    for who, pids in ((connector, unknown), (other, state)):
        assert refusal(await who.event(pids)) == (404, "request.not-found")
        answer = await who.send("GET", f"/negotiations/{pids['providerPid']}")
        assert refusal(answer) == (404, "request.not-found")


async def test_the_same_message_again_changes_nothing(space):
    connector = await space.connector()
    offer = (await connector.offers())["tier-open"]
    body = connector.request(offer)
    first = await connector.send("POST", "/negotiations/request", body)
    again = await connector.send("POST", "/negotiations/request", body)
    assert (again.status_code, again.json()["providerPid"]) == (201, first.json()["providerPid"])
    state = again.json()
    assert (await connector.verify(state)).status_code == 200
    repeated = await connector.verify(state)
    assert (repeated.status_code, repeated.json()["state"]) == (200, "FINALIZED")
    assert connector.kinds == ["ContractAgreementMessage", "ContractNegotiationEventMessage"]
    other = body | {"offer": other_terms(offer)}
    assert refusal(await connector.send("POST", "/negotiations/request", other)) == (
        409,
        "negotiation.message-conflict",
    )


async def test_a_counter_offer_cannot_move_to_another_offer(space):
    connector = await space.connector("kita-edc", org=space.org("kita"))
    offers = await connector.offers()
    state = await connector.begin(other_terms(offers["tier-open"]))
    answer = await connector.counter(state, offers["tier-consortium"])
    assert refusal(answer) == (400, "contract.dsp-malformed")


async def test_what_is_overdue_ends_when_somebody_asks(space):
    connector = await space.connector()
    state = await offered(connector)
    space.house.clock.ms += 15 * DAY_MS
    assert await connector.state(state) == "TERMINATED"
    assert connector.told[-1][1]["code"] == "negotiation.deadline"
    state = await agreed(connector)
    space.house.clock.ms += 8 * DAY_MS
    assert await connector.state(state) == "AGREED"  # only the consumer may end it there
    assert (await connector.verify(state)).json()["state"] == "VERIFIED"
    assert await connector.state(state) == "TERMINATED"


async def test_nothing_is_concluded_under_a_halt(space):
    connector = await space.connector()
    state = await offered(connector)
    waiting = await agreed(connector)
    done = await space.house.alice.post(
        f"/operator/contracts/{space.contract.digest}/halt",
        {"code": "log.disputed", "clause": None, "text": None},
    )
    assert done.status_code == 201, done.text
    assert (await connector.event(state)).json()["state"] == "ACCEPTED"
    assert await connector.state(state) == "ACCEPTED"
    assert (await connector.verify(waiting)).json()["state"] == "VERIFIED"
    assert await connector.state(waiting) == "VERIFIED"
    assert await connector.state(await agreed(connector)) == "OFFERED"


async def test_an_expired_contract_is_not_open_and_its_negotiations_end(space):
    connector = await space.connector()
    space.house.clock.ms = 1_858_000_000_000  # 2028-11-16
    state = await offered(connector)
    space.house.clock.ms = 1_859_400_000_000  # 2028-12-02
    assert "dataset" not in await connector.catalog()
    assert await connector.state(state) == "TERMINATED"
    assert connector.told[-1][1]["code"] in {"contract.expired", "negotiation.deadline"}


# --- the catalogue ---


async def test_the_catalogue_shows_what_is_open_to_whom(space):
    stranger = await space.connector()
    shown = valid(await stranger.catalog())
    assert shown["participantId"] == "https://127.0.0.1:7443"
    assert set(await stranger.offers()) == {"tier-open"}
    assert space.offered.digest not in json.dumps(shown)
    member = await space.connector("kita-edc", org=space.org("kita"))
    shown = valid(await member.catalog())
    names = {one["@id"] for dataset in shown["dataset"] for one in dataset["hasPolicy"]}
    assert space.pair("tier-open").offer_id in names
    assert space.pair("tier-consortium", "kita").offer_id in names
    assert space.pair("tier-consortium", "nord").offer_id not in names
    assert space.offered.digest in json.dumps(shown)  # the member is asked to sign it
    assert len(names) == 3


async def test_one_data_set_is_shown_and_others_do_not_exist(space):
    connector = await space.connector()
    target = space.pair("tier-open").target
    answer = await connector.send("GET", f"/catalog/datasets/{target}")
    assert answer.status_code == 200
    assert valid(answer.json(), "Dataset")["@id"] == target
    for name in ("iriai:nothing", space.pair("tier-consortium", "kita").target):
        answer = await connector.send("GET", f"/catalog/datasets/{name}")
        assert refusal(answer) == (404, "request.not-found")


async def test_a_filter_is_refused(space):
    connector = await space.connector()
    body = {"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"}
    assert (await connector.send("POST", "/catalog/request", body | {"filter": []})).status_code == 200
    answer = await connector.send("POST", "/catalog/request", body | {"filter": [{"x": 1}]})
    assert refusal(answer) == (400, "contract.dsp-malformed")


async def test_an_offer_that_is_not_open_to_the_caller_does_not_exist(space):
    connector = await space.connector()
    offer = (await connector.offers())["tier-open"]
    hidden = space.pair("tier-consortium", "kita").offer_id
    for name in (hidden, "iriai:offer:nothing"):
        body = connector.request(offer | {"@id": name})
        answer = await connector.send("POST", "/negotiations/request", body)
        assert refusal(answer) == (404, "request.not-found")


async def test_a_contract_that_is_not_final_can_be_offered_and_not_agreed(space):
    member = await space.connector("kita-edc", org=space.org("kita"))
    found = [
        one | {"target": dataset["@id"]}
        for dataset in (await member.catalog())["dataset"]
        for one in dataset["hasPolicy"]
        if one["iriai:contractDigest"] == space.offered.digest
    ]
    assert [one["iriai:clause"] for one in found] == ["tier-consortium"]
    state = await member.begin(found[0])
    assert await member.state(state) == "OFFERED"
    assert (await member.event(state)).json()["state"] == "ACCEPTED"
    assert await member.state(state) == "ACCEPTED"
    assert member.kinds == ["ContractOfferMessage"]


# --- callbacks ---


async def test_a_failing_callback_loses_nothing_and_is_tried_again_when_asked(space):
    connector = await space.connector()
    connector.status = 503
    state = await agreed(connector)
    assert await connector.state(state) == "AGREED"
    assert connector.told == []
    connector.status = 200
    assert await connector.state(state) == "AGREED"
    assert connector.told == []  # not so soon
    tries = len(connector.requests)
    space.house.clock.ms += DSP_RETRY_S * 1_000
    assert await connector.state(state) == "AGREED"
    assert connector.kinds == ["ContractAgreementMessage"]
    assert len(connector.requests) == tries + 1
    assert (await connector.verify(state)).status_code == 200
    assert await connector.state(state) == "FINALIZED"


async def test_messages_are_told_in_their_order(space):
    connector = await space.connector()
    connector.slow = True
    state = await offered(connector)
    assert (await connector.event(state)).status_code == 200
    assert (await connector.verify(state)).status_code == 200
    assert await connector.state(state) == "FINALIZED"
    assert connector.told == []
    connector.slow = False
    space.house.clock.ms += DSP_RETRY_S * 1_000
    assert await connector.state(state) == "FINALIZED"
    assert connector.kinds == [
        "ContractOfferMessage",
        "ContractAgreementMessage",
        "ContractNegotiationEventMessage",
    ]


async def test_a_connector_that_does_not_want_a_message_is_not_told_again(space):
    connector = await space.connector()
    connector.status = 400
    state = await agreed(connector)
    space.house.clock.ms += DSP_RETRY_S * 1_000
    assert await connector.state(state) == "AGREED"
    assert len(connector.requests) == 1


async def test_callbacks_are_signed_by_the_broker(space):
    connector = await space.connector()
    await agreed(connector)
    (request,) = connector.requests
    assert "signature-input" in request.headers
    assert "content-digest" in request.headers
    assert "authorization" not in request.headers


# --- registration and settings ---


async def test_a_token_is_told_once_and_only_its_digest_is_stored(space):
    connector = await space.connector()
    with space.house.services.store.read() as session:
        (row,) = session.execute(select(dsp_counterparty)).all()
    assert connector.token not in str(row)
    listed = (await space.house.alice.get("/operator/dsp/counterparties")).json()["counterparties"]
    assert listed == [
        {
            "name": "acme",
            "participant": "iriai:counterparty:acme",
            "callback": "https://acme.example/dsp",
            "org": None,
            "state": "active",
        }
    ]


async def test_registering_again_gives_a_new_token_and_another_participant_another_name(space):
    first = await space.connector()
    old = first.token
    second = await space.connector()
    assert second.token != old
    assert refusal(await first.send("GET", "/negotiations/x"))[1] == "dsp.token-refused"
    body = {"name": "acme", "callback": "https://acme.example/dsp", "participant": "did:web:other.example"}
    answer = await space.house.alice.post("/operator/dsp/counterparties", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "dsp.counterparty-taken")


async def test_a_removed_connector_has_no_token_and_its_agreements_stay(space):
    connector = await space.connector()
    assert (await connector.verify(await agreed(connector))).status_code == 200
    done = await space.house.bob.post("/operator/dsp/counterparties/acme/remove", {})
    assert (done.status_code, done.json()["state"]) == (200, "removed")
    answer = await connector.send("GET", "/negotiations/x")
    assert refusal(answer) == (401, "dsp.token-refused")
    assert answer.headers["www-authenticate"] == "Bearer"
    with space.house.services.store.read() as session:
        assert len(session.execute(select(dsp_agreement)).all()) == 1
    answer = await space.house.bob.post("/operator/dsp/counterparties/nobody/remove", {})
    assert answer.status_code == 404


async def test_a_connector_speaks_only_for_a_member(space):
    body = {"name": "x", "callback": "https://x.example", "org": "org_aaaaaaaaaaaaaaaa"}
    answer = await space.house.alice.post("/operator/dsp/counterparties", body)
    assert answer.status_code == 404


async def test_the_facade_is_off_by_default(tmp_path):
    async with open_dataspace(tmp_path / "broker", enabled=False) as space:
        connector = Connector(space.house, "acme")
        for method, path in (
            ("GET", "/.well-known/dspace-version"),
            ("POST", "/catalog/request"),
            ("POST", "/negotiations/request"),
            ("GET", "/negotiations/x"),
        ):
            answer = await connector.send(method, path, {} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "request.not-found")
            assert answer.headers["content-type"] == "application/problem+json"
        body = {"name": "acme", "callback": "https://acme.example"}
        answer = await space.house.alice.post("/operator/dsp/counterparties", body)
        assert answer.status_code == 404
        assert "dsp.enabled" in answer.json()["remedy"]
        assert (await space.house.alice.get("/operator/dsp/counterparties")).status_code == 404


async def test_the_version_is_told_to_anyone(space):
    answer = await space.house.http.get(f"{DSP}/.well-known/dspace-version")
    assert answer.status_code == 200
    (version,) = valid(answer.json(), "versions")["protocolVersions"]
    assert (version["version"], version["path"], version["binding"]) == ("2025-1", DSP, "HTTPS")


async def test_state_survives_a_restart(tmp_path):
    async with open_dataspace(tmp_path / "broker") as space:
        connector = await space.connector()
        connector.status = 503
        state = await agreed(connector)
    async with open_dataspace(tmp_path / "copy") as other:
        assert other.contract.digest == space.contract.digest
    from tests.brokersim import HandClock, open_house

    async with open_house(tmp_path / "broker", clock=HandClock()) as house:
        again = Dataspace(house, space.contract, space.offered, {"acme": connector})
        connector.house, connector.status = house, 200
        again.house.clock.ms += DSP_RETRY_S * 1_000
        assert await connector.state(state) == "AGREED"
        assert connector.kinds == ["ContractAgreementMessage"]
        with house.services.store.read() as session:
            assert session.scalar(select(dsp_negotiation.c.state)) == "AGREED"


@pytest.mark.parametrize(
    ("line", "enabled"), [("", False), ("dsp.enabled = true", True), ("[dsp]\nenabled = false", False)]
)
def test_the_setting_is_read_and_written(tmp_path, line, enabled):
    text = f'public_url = "https://broker.example"\norigin = "broker.example/log"\n{line}\n'
    (tmp_path / "broker.toml").write_text(text, "utf-8")
    found = Settings.load(tmp_path)
    assert found.dsp.enabled is enabled
    found.write()
    assert Settings.load(tmp_path).dsp.enabled is enabled


@pytest.mark.parametrize("line", ["dsp = true", "dsp.enabled = 1", "dsp.on = true", 'dsp.enabled = "yes"'])
def test_another_setting_of_the_facade_is_refused(tmp_path, line):
    text = f'public_url = "https://broker.example"\norigin = "broker.example/log"\n{line}\n'
    (tmp_path / "broker.toml").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match="dsp"):
        Settings.load(tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "http://connector.example",
        "https://user:secret@connector.example/dsp",
        "https://connector.example/dsp?to=x",
        "https://connector.example/dsp#x",
        "https://connector.example/dsp?",
        "https:///dsp",
        "https://connector.example/../admin",
        "https://connector.example\\@evil.example",
        "https://connector.example:0/",
        "https://connector.example:99999/",
        "https://connector.example/\u00e4",
        "https://connector.example/a b",
        "https://connector.example/" + "x" * 300,
        "file:///etc/passwd",
        "gopher://connector.example",
        "",
    ],
)
def test_only_a_plain_https_address_is_registered(address):
    with pytest.raises(CallbackInvalidError):
        check_callback(address)
    assert check_callback("https://connector.example:8443/a/dsp/") == "https://connector.example:8443/a/dsp"
