# SPDX-License-Identifier: Apache-2.0
"""What members and operators read: the head, proofs, receipts, the catalogue, the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policies.encoding import canonical, digest, unb64
from policies.log.checkpoint import VerifierKey, open_checkpoint
from policies.log.entries import EntryType
from policies.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from policies.log.policy import parse_policy
from policies.log.proofs import parse_receipt
from policies.messages import Descriptor, Fit, seal_descriptor
from policies.quality_certificate import CHECKS, QualityCertificate, open_certificate, seal_certificate
from policies.signing import Envelope
from tests.auditorsim import enrolled
from tests.brokersim import RECIPE, House, NodeSim, draft, final_contract, open_house, pool

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


def descriptor(sender: NodeSim, dataset: str = "", **changes) -> Envelope:
    fields = {
        "node": sender.node,
        "dataset": dataset or f"{sender.name}/pick",
        "embodiment_class": "6r-arm+parallel-gripper",
        "dof": 6,
        "action_space": "ee-delta",
        "rate_hz": "20-49",
        "episodes": "100-299",
        "tasks": ["pick-place"],
        "fields": ["gripper_width", "tcp_pos"],
        "labels": [],
        "period": "2026-H2",
        "fits": [Fit(recipe=digest(RECIPE), minimum_met=True)],
    }
    return seal_descriptor(Descriptor.build(**(fields | changes)), sender.key)


# --- the log ---


async def test_the_head_is_signed_and_grows_consistently(house):
    kita = await house.member("kita")
    key = VerifierKey.parse(house.services.keys.log_vkey)
    first = (await kita.get("/log/checkpoint")).json()
    old = open_checkpoint(first["note"], [key])
    await house.member("nord")
    news = (await kita.get(f"/log/consistency?old={old.size}")).json()
    new = open_checkpoint(news["note"], [key])
    assert (news["old_size"], news["size"]) == (old.size, new.size)
    verify_consistency(
        size1=old.size,
        size2=new.size,
        root1=old.root,
        root2=new.root,
        proof=[unb64(one) for one in news["proof"]],
    )


@pytest.mark.parametrize("old", [0, None])
async def test_no_proof_is_needed_from_nothing_or_from_the_head(house, old):
    kita = await house.member("kita")
    size = house.services.writer.head().size if old is None else old
    assert (await kita.get(f"/log/consistency?old={size}")).json()["proof"] == []


@pytest.mark.parametrize("old", ["10000", "-1", "x"])
async def test_a_size_that_never_was_is_refused(house, old):
    kita = await house.member("kita")
    assert code(await kita.get(f"/log/consistency?old={old}"))[1] == "request.invalid"


async def test_a_receipt_is_for_the_owner_of_the_entry_and_for_operators(house):
    kita, nord, _ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    body = kita.signature_body(contract)
    await kita.verify(contract, **body)
    event = digest(Envelope.from_json(body["envelope"]).payload).removeprefix("sha256:")[:32]
    mine = (await kita.get(f"/receipts/{event}")).json()
    leaf = leaf_hash(mine["entry"].encode())
    parse_receipt(mine["proof"]).verify(leaf, [VerifierKey.parse(house.services.keys.log_vkey)])
    assert code(await nord.get(f"/receipts/{event}")) == (404, "request.not-found")
    assert (await house.alice.get(f"/receipts/{event}")).json()["entry"] == mine["entry"]
    for unknown in ("00" * 16, "no-hex", "zz"):
        assert code(await kita.get(f"/receipts/{unknown}")) == (404, "request.not-found")


async def test_the_policy_is_the_one_that_the_first_entry_names(house):
    text = (await house.alice.get("/operator/audit/policy")).json()["policy"]
    (genesis,) = house.entries(EntryType.LOG_GENESIS)
    assert genesis.pub["policy"] == digest(text.encode())
    policy = parse_policy(text)
    assert policy.broker == house.services.keys.broker.public
    assert policy.logs == (VerifierKey.parse(house.services.keys.log_vkey),)


async def test_the_bundle_is_logged_after_it_was_taken(house, tmp_path):
    await final_contract(house, await pool(house))
    size = house.services.writer.head().size
    answer = await house.alice.get("/operator/audit/bundle")
    assert answer.headers["content-type"] == "application/zip"
    last = house.entries()[-1]
    assert last.type is EntryType.EXPORT_AUDIT_BUNDLE
    assert (last.pub["bundle"], last.pub["to_size"]) == (digest(answer.content), size)
    assert list(house.services.settings.dir.glob(".bundle-*")) == []


async def test_the_status_says_how_the_broker_is(house):
    kita = await house.member("kita")
    shown = (await house.alice.get("/operator/status")).json()
    assert shown["members"] == {"active": 1}
    assert shown["log"]["frozen"] is None
    assert shown["log"]["size"] == house.services.writer.head().size
    assert code(await kita.get("/operator/status")) == (403, "identity.wrong-role")


# --- the catalogue ---


async def test_a_descriptor_is_published_and_replaced(house):
    kita = await house.member("kita")
    for episodes in ("100-299", "300-999"):
        envelope = descriptor(kita, episodes=episodes)
        answer = await kita.post("/catalogue/descriptors", envelope.to_json())
        assert answer.json() == {"dataset": "kita/pick", "digest": digest(envelope.payload)}
    (line,) = (await kita.get("/catalogue")).json()["datasets"]
    assert Envelope.from_json(line["envelope"]) == envelope


async def test_other_members_see_what_fits_and_no_more(house):
    kita, nord = await pool(house, "kita", "nord")
    await kita.post("/catalogue/descriptors", descriptor(kita).to_json())
    (line,) = (await nord.get("/catalogue")).json()["datasets"]
    assert line["envelope"] is None
    assert line["fits"] == [{"recipe": digest(RECIPE), "minimum_met": True}]
    (line,) = (await house.alice.get("/catalogue")).json()["datasets"]
    assert line["envelope"] is not None


async def test_a_descriptor_of_another_node_or_by_another_key_is_refused(house):
    kita, nord = await pool(house, "kita", "nord")
    foreign = descriptor(kita, node=nord.node)
    assert code(await kita.post("/catalogue/descriptors", foreign.to_json())) == (422, "catalogue.foreign")
    theirs = descriptor(nord)
    assert code(await kita.post("/catalogue/descriptors", theirs.to_json())) == (
        401,
        "identity.signature-invalid",
    )


async def test_a_descriptor_that_says_more_than_it_may_is_refused(house):
    kita = await house.member("kita")
    payload = canonical(
        Descriptor.parse(
            descriptor(kita).open_as("application/vnd.iriai.descriptor.v1+json", kita.key.public)
        ).model_dump(by_alias=True)
        | {"robot_serial": "R-17"}
    )
    envelope = Envelope.seal(payload, "application/vnd.iriai.descriptor.v1+json", kita.key)
    assert code(await kita.post("/catalogue/descriptors", envelope.to_json())) == (422, "data.descriptor-key")


async def test_others_may_search_by_what_they_may_know_and_by_nothing_else(house):
    kita, nord = await house.member("kita"), await house.member("nord")
    await kita.post("/catalogue/descriptors", descriptor(kita).to_json())
    await kita.post("/catalogue/descriptors?shown=fits", descriptor(kita, "kita/quiet").to_json())

    async def found(caller, query: str) -> list[str]:
        return [one["dataset"] for one in (await caller.get(f"/catalogue?{query}")).json()["datasets"]]

    assert await found(nord, "task=pick-place") == ["kita/pick"]
    assert await found(nord, "embodiment_class=6r-arm%2Bparallel-gripper&episodes=30-99") == ["kita/pick"]
    assert await found(nord, "episodes=300-999") == []
    assert await found(nord, "field=tcp_pos") == []  # members do not see each other's fields
    assert await found(nord, f"recipe={digest(RECIPE)}") == ["kita/pick", "kita/quiet"]
    assert await found(nord, "certified=true") == []
    assert await found(house.alice, "field=tcp_pos&task=pick-place") == ["kita/pick", "kita/quiet"]
    assert code(await nord.get("/catalogue?episodes=17"))[0] == 422
    open_line, quiet = (await nord.get("/catalogue")).json()["datasets"]
    assert set(open_line["view"]) == {"embodiment_class", "tasks", "episodes", "quality", "fits"}
    assert set(quiet["view"]) == {"fits"}


async def test_the_catalogue_is_dcat_with_the_callers_words_alone(house):
    kita, nord = await house.member("kita"), await house.member("nord")
    await kita.post("/catalogue/descriptors", descriptor(kita).to_json())
    made = (await nord.get("/catalogue/dcat")).json()
    (one,) = made["dcat:dataset"]
    assert (made["@type"], one["@type"], one["dct:title"]) == ("dcat:Catalog", "dcat:Dataset", "kita/pick")
    assert one["dcat:keyword"] == ["pick-place"]
    assert "tcp_pos" not in str(made)


async def test_a_descriptor_names_a_certificate_that_is_there(house):
    kita = await house.member("kita")
    named = descriptor(kita, quality=digest(b"no such certificate"))
    answer = await kita.post("/catalogue/descriptors", named.to_json())
    assert code(answer) == (409, "catalogue.no-certificate")
    assert (await kita.get("/catalogue")).json()["datasets"] == []


def certificate(sender: NodeSim, dataset: str = "", **changes) -> tuple[str, Envelope]:
    made = QualityCertificate.parse(
        {
            "schema": "iriai-quality-certificate/1",
            "node": sender.node,
            "dataset": dataset or f"{sender.name}/pick",
            "data_root": digest(b"root"),
            "checks": "iriai-quality/1",
            "thresholds": digest(b"thresholds"),
            "signal_maps": [digest(b"map")],
            "states": dict.fromkeys(CHECKS, "PASS"),
            "excluded": "none",
            "verdict": "admitted",
            "tool": "iriai/0.1.0",
            "at": "2026-11-29",
        }
        | changes
    )
    return made.digest, seal_certificate(made, sender.key)


async def test_a_certificate_comes_before_the_descriptor_that_names_it(house):
    kita, nord = await house.member("kita"), await house.member("nord")
    name, sealed = certificate(kita)
    assert (await kita.post("/catalogue/certificates", sealed.to_json())).json()["digest"] == name
    published = await kita.post("/catalogue/descriptors", descriptor(kita, quality=name).to_json())
    assert published.status_code == 200
    (one,) = (await nord.get("/catalogue?certified=true")).json()["datasets"]
    assert one["view"]["quality"] == name
    _, newer = certificate(kita, verdict="refused")
    await kita.post("/catalogue/certificates", newer.to_json())
    assert code(await kita.post("/catalogue/descriptors", descriptor(kita, quality=name).to_json())) == (
        409,
        "catalogue.no-certificate",
    )
    _, foreign = certificate(nord)
    assert (await kita.post("/catalogue/certificates", foreign.to_json())).status_code in (401, 422)
    resealed = seal_certificate(open_certificate(foreign, nord.key.public), kita.key)
    assert code(await kita.post("/catalogue/certificates", resealed.to_json())) == (422, "catalogue.foreign")


async def test_a_revoked_members_data_sets_leave_the_catalogue(house):
    kita, nord = await pool(house, "kita", "nord")
    await kita.post("/catalogue/descriptors", descriptor(kita).to_json())
    await house.remove(kita.org, reason="left")
    assert (await nord.get("/catalogue")).json()["datasets"] == []


async def test_a_member_describes_a_bounded_number_of_data_sets(house):
    kita = await house.member("kita")
    answers = [
        await kita.post("/catalogue/descriptors", descriptor(kita, f"kita/set{number}").to_json())
        for number in range(65)
    ]
    assert [one.status_code for one in answers] == [200] * 64 + [409]


# --- entries and proofs for who does not want to read tiles ---


async def test_an_entry_comes_with_its_proof_for_who_is_enrolled(house):
    kita, ernst = await house.member("kita"), await enrolled(house)
    for signer in (kita, ernst, house.alice):
        shown = (await signer.get("/log/entries/3")).json()
        receipt = parse_receipt(shown["proof"])
        receipt.verify(leaf_hash(shown["entry"].encode()), [VerifierKey.parse(house.services.keys.log_vkey)])
        assert (shown["index"], receipt.index) == (3, 3)
        assert receipt.checkpoint.size == house.services.writer.head().size
    for index in ("100000", "-1"):
        assert (await kita.get(f"/log/entries/{index}")).status_code == 404
    assert code(await kita.get("/log/entries/x"))[1] == "request.invalid"
    assert (await house.http.get("/api/v1/log/entries/3")).status_code == 401


async def test_anybody_asks_for_proofs_and_checks_them(house):
    await house.member("kita")
    size = house.services.writer.head().size
    shown = (await house.http.get(f"/api/v1/log/proofs/inclusion?index=2&size={size - 1}")).json()
    proof = [unb64(one) for one in shown["proof"]]
    verify_inclusion(unb64(shown["leaf_hash"]), 2, size - 1, proof, unb64(shown["root"]))
    assert unb64(shown["leaf_hash"]) == leaf_hash(house.services.writer.receipts.body(2))
    shown = (await house.http.get("/api/v1/log/proofs/consistency?old=3")).json()
    roots = unb64(shown["old_root"]), unb64(shown["new_root"])
    assert (shown["old"], shown["new"], roots[1]) == (3, size, house.services.writer.head().root)
    verify_consistency(3, size, *roots, [unb64(one) for one in shown["proof"]])


@pytest.mark.parametrize(
    "path",
    [
        "inclusion?index=0&size=100000",
        "inclusion?index=100000",
        "inclusion?index=5&size=5",
        "inclusion?index=0&size=0",
        "inclusion?index=-1",
        "inclusion?index=x",
        "inclusion",
        "consistency?old=0",
        "consistency?old=3&new=2",
        "consistency?old=100000",
        "consistency?old=1&new=100000",
        "consistency?old=99999999999999999999",
    ],
)
async def test_a_proof_of_what_never_was_is_refused(house, path):
    assert code(await house.http.get(f"/api/v1/log/proofs/{path}")) == (422, "request.invalid")
