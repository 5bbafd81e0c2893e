# SPDX-License-Identifier: Apache-2.0
"""From invitation to membership and out again, over HTTP, everybody signing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policies.encoding import canonical, digest, parse, unb64
from policies.identity import SigningKey, key_text
from policies.limits import PROPOSAL_TTL_H
from policies.log.entries import EntryType, alias
from policies.signing import Envelope
from tests.brokersim import URL, House, NodeSim, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def test_a_node_joins_waits_for_two_people_and_is_active(house):
    kita = NodeSim(house, "kita")
    token = await house.alice.invite("Kita Robot KK", "JP", "kita")
    joined = await kita.join(token, legal_name="Kita Robot KK", country="JP")
    assert joined.json()["state"] == "waiting-approval"
    assert "alias_key" not in await kita.me()
    first = await house.alice.approve(kita.org)
    assert first.json()["state"] == "waiting-approval"
    second = await house.bob.approve(kita.org)
    assert second.json() == {"org": kita.org, "state": "active", "approved_by": ["alice", "bob"]}
    me = await kita.me()
    assert me["state"] == "active"
    assert len(kita.alias_key) == 32
    assert house.fleet.enrolled[kita.node] == (kita.fleet_pem.encode(), kita.key.public)


async def test_what_happened_is_in_the_log_and_nothing_else_names_the_organisation(house):
    kita = await house.member("kita")
    kinds = house.kinds()
    genesis = ["log.genesis", "key.added", "key.added", "key.added", "key.added"]
    approvals = ["console.action", "console.action", "org.onboarded", "key.added", "key.added"]
    assert kinds == [*genesis, "console.action", *approvals]
    onboarded = house.entries(EntryType.ORG_ONBOARDED)[0]
    assert onboarded.pub["org"] == alias(kita.alias_key, None, None, None)
    assert onboarded.pub["approvers"] == ["alice", "bob"]
    added = house.entries(EntryType.KEY_ADDED)
    assert digest(kita.key.public) in {one.pub["kid"] for one in added}
    assert all(kita.org.encode() not in one.body for one in house.entries())


async def test_the_invitation_pins_the_broker_and_its_secret_is_stored_nowhere(house):
    token = await house.alice.invite()
    invite = parse(unb64(token))
    assert invite["url"] == URL
    assert invite["broker_key"] == key_text(house.services.keys.broker.public)
    assert invite["tls_sha256"] == house.services.keys.tls_sha256
    folder = house.services.settings.dir
    everything = b"".join(one.read_bytes() for one in folder.glob("*.db*"))
    assert invite["secret"].encode() not in everything
    assert bytes.fromhex(invite["secret"]) not in everything


async def test_who_the_broker_is_can_be_read_by_anybody_and_is_signed(house):
    answer = await house.http.get("/api/v1/broker")
    facts = Envelope.from_bytes(answer.content).open_as(
        "application/vnd.iriai.broker.v1+json", house.services.keys.broker.public
    )
    assert facts["url"] == URL
    assert facts["log_vkey"] == house.services.keys.log_vkey
    assert set(facts) == {"origin", "url", "broker_key", "log_vkey", "tls_chain_pem", "version"}


async def test_an_invitation_works_once(house):
    token = await house.alice.invite()
    assert (await NodeSim(house, "kita").join(token)).status_code == 200
    assert code(await NodeSim(house, "nord").join(token)) == (409, "membership.invite-used")


async def test_sending_the_same_join_again_gives_the_same_answer(house):
    kita = NodeSim(house, "kita")
    token = await house.alice.invite()
    first = await kita.post("/membership/join", kita.join_body(token), idempotency_key="join-1")
    again = await kita.post("/membership/join", kita.join_body(token), idempotency_key="join-1")
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_an_invitation_lives_72_hours(house):
    token = await house.alice.invite()
    house.clock.ms += 72 * 3_600_000 + 1
    assert code(await NodeSim(house, "kita").join(token)) == (410, "membership.invite-expired")


async def test_an_invitation_that_nobody_made_is_refused(house):
    kita = NodeSim(house, "kita")
    body = kita.join_body(await house.alice.invite(), invite_secret="0" * 64)
    assert code(await kita.post("/membership/join", body)) == (403, "membership.invite-unknown")


@pytest.mark.parametrize("change", [{"legal_name": "Other AG"}, {"country": "FR"}, {"group": "other"}])
async def test_an_invitation_is_bound_to_one_organisation_and_stays_unused(house, change):
    kita = NodeSim(house, "kita")
    token = await house.alice.invite()
    answer = await kita.join(token, **change)
    assert code(answer) == (403, "membership.invite-mismatch")
    assert "iriai-node init --legal-name NAME --country CC in the same folder" in answer.json()["remedy"]
    assert "Kita" not in answer.text  # what the invitation says is not told to who does not know it
    assert (await kita.join(token)).status_code == 200


async def test_a_fleet_key_enrols_once(house):
    kita = await house.member("kita")
    nord = NodeSim(house, "nord")
    refused = await nord.join(await house.alice.invite(), fleet_key_pem=kita.fleet_pem)
    assert code(refused) == (409, "membership.already-enrolled")


@pytest.mark.parametrize("field", ["org", "node"])
async def test_an_organisation_and_a_node_enrol_once(house, field):
    kita = await house.member("kita")
    nord = NodeSim(house, "nord")
    refused = await nord.join(await house.alice.invite(), **{field: getattr(kita, field)})
    assert code(refused) == (409, "membership.already-enrolled")


async def test_a_node_key_enrols_once(house):
    kita = await house.member("kita")
    other = NodeSim(house, "nord")
    other.key = kita.key
    refused = await other.join(await house.alice.invite())
    assert code(refused) == (409, "membership.already-enrolled")


async def test_an_operators_key_is_not_a_nodes_key(house):
    nord = NodeSim(house, "nord")
    nord.key = house.bob.key
    refused = await nord.join(await house.alice.invite())
    assert code(refused) == (409, "membership.already-enrolled")


@pytest.mark.parametrize(
    "pem", ["", "no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
async def test_a_fleet_key_that_is_none_is_refused(house, pem):
    kita = NodeSim(house, "kita")
    assert code(await kita.join(await house.alice.invite(), fleet_key_pem=pem)) == (
        422,
        "membership.fleet-key",
    )


async def test_a_fleet_key_of_another_curve_is_refused(house):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = (
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    kita = NodeSim(house, "kita")
    assert code(await kita.join(await house.alice.invite(), fleet_key_pem=pem)) == (
        422,
        "membership.fleet-key",
    )


async def test_joining_for_somebody_elses_key_is_refused(house):
    kita, nord = NodeSim(house, "kita"), NodeSim(house, "nord")
    token = await house.alice.invite()
    refused = await nord.post("/membership/join", kita.join_body(token))
    assert code(refused) == (422, "request.invalid")


async def test_one_key_cannot_approve_twice(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    assert (await house.alice.approve(kita.org)).status_code == 200
    assert code(await house.alice.approve(kita.org)) == (409, "membership.approval-twice")
    assert (await kita.me())["state"] == "waiting-approval"


async def test_an_approval_of_somebody_who_is_disabled_counts_no_longer(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    await house.alice.approve(kita.org)
    assert (await house.bob.post("/operator/people/alice/disable", {})).status_code == 200
    answer = (await house.bob.approve(kita.org)).json()
    assert (answer["state"], answer["approved_by"]) == ("waiting-approval", ["bob"])
    assert "org.onboarded" not in house.kinds()


async def test_an_approval_counts_for_three_days_and_can_then_be_given_anew(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    await house.alice.approve(kita.org)
    house.clock.ms += PROPOSAL_TTL_H * 3_600_000 + 1
    assert (await house.bob.approve(kita.org)).json()["approved_by"] == ["bob"]
    (shown,) = (await house.bob.get("/operator/organisations")).json()["organisations"]
    assert (shown["state"], shown["approved_by"]) == ("waiting-approval", ["bob"])
    assert (await house.alice.approve(kita.org)).json()["approved_by"] == ["alice", "bob"]
    assert house.entries(EntryType.ORG_ONBOARDED)[0].pub["approvers"] == ["alice", "bob"]


async def test_an_approval_is_for_exactly_what_waits(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    subject = await house.alice.subject(kita.org)
    altered = canonical(parse(subject) | {"node_key": key_text(SigningKey.from_seed(b"x" * 32).public)})
    assert code(await house.alice.approve(kita.org, subject=altered)) == (409, "membership.subject-changed")


async def test_an_approval_needs_the_operators_own_signature(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    assert code(await house.alice.approve(kita.org, key=house.bob.key)) == (401, "identity.signature-invalid")


async def test_an_active_member_is_not_approved_again(house):
    kita = await house.member("kita")
    assert code(await house.alice.approve(kita.org)) == (409, "membership.not-waiting")


async def test_who_waits_sees_nothing_but_its_own_state(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    assert code(await kita.get("/contracts")) == (403, "membership.not-active")
    assert code(await kita.get("/catalogue")) == (403, "membership.not-active")


async def test_a_revoked_key_is_refused_from_then_on(house):
    kita = await house.member("kita")
    done = await house.remove(kita.org, reason="key-lost")
    assert done.json()["result"] == {"org": kita.org, "state": "revoked"}
    assert code(await kita.get("/membership/me")) == (401, "identity.key-revoked")
    assert kita.node not in house.fleet.enrolled
    assert house.kinds()[-4:] == ["console.action", "org.suspended", "key.revoked", "key.revoked"]


async def test_a_revoked_organisation_cannot_join_again_with_its_keys(house):
    kita = await house.member("kita")
    await house.remove(kita.org, reason="key-lost")
    assert code(await kita.join(await house.alice.invite())) == (409, "membership.already-enrolled")


async def test_a_key_that_nobody_enrolled_is_refused(house):
    assert code(await NodeSim(house, "kita").get("/membership/me")) == (401, "identity.unknown-key")


async def test_members_and_operators_do_not_have_each_others_routes(house):
    kita = await house.member("kita")
    assert code(await kita.get("/operator/organisations")) == (403, "identity.wrong-role")
    assert code(await house.alice.get("/membership/me")) == (403, "identity.wrong-role")


async def test_after_a_restart_everybody_is_who_they_were(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        kita = await house.member("kita")
        size = house.services.writer.head().size
    async with open_house(tmp_path / "broker") as house:
        kita.house = house
        assert (await kita.me())["state"] == "active"
        assert house.services.writer.head().size == size
        assert kita.node in house.fleet.enrolled
