# SPDX-License-Identifier: Apache-2.0
"""A data set leaves the catalogue by its owner's word alone, once, and the word is worth nothing afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from broker.store.tables import certificate as certificate_row
from broker.store.tables import descriptor as descriptor_row
from policies.encoding import canonical
from policies.limits import DESCRIPTORS_PER_NODE
from policies.messages import Descriptor
from policies.signing import Envelope
from policies.withdrawal import WITHDRAWAL_TYPE, Withdrawal, WithdrawalInvalidError, seal_withdrawal
from tests.attack.test_catalogue import certified, described, listed
from tests.brokersim import House, NodeSim, open_house, pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.identity import SigningKey


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


async def publish(sender: NodeSim, **changes: Any) -> None:
    assert (await sender.post("/catalogue/descriptors", described(sender, **changes).to_json())).is_success


async def withdrawal(owner: NodeSim, *, by: SigningKey | None = None, **changes: Any) -> Envelope:
    """What the owner would sign about its data set as it stands now."""
    mine = next(one for one in await listed(owner) if one["digest"] is not None)
    fields = {
        "node": owner.node,
        "dataset": mine["dataset"],
        "descriptor": Descriptor.parse(mine["view"]).digest,
        "number": mine["number"],
        "at": "2026-11-29",
    }
    return seal_withdrawal(Withdrawal.build(**(fields | changes)), by or owner.key)


async def names(caller: Any) -> list[str]:
    return [str(one["dataset"]) for one in await listed(caller)]


async def test_another_member_cannot_withdraw_mine_whatever_it_signs_or_sends(house: House) -> None:
    kita, nord = await pool(house, "kita", "nord")
    await publish(kita)
    await publish(nord)
    mine = await withdrawal(kita)
    attempts = {
        "the owner's own, sent by another": mine,
        "signed by another, in the owner's name": await withdrawal(kita, by=nord.key),
        "signed by another, in its own name": await withdrawal(kita, by=nord.key, node=nord.node),
    }
    codes = {}
    for what, envelope in attempts.items():
        answer = await nord.post("/catalogue/withdrawals", envelope.to_json())
        codes[what] = answer.json()["code"]
    assert codes == {
        "the owner's own, sent by another": "identity.signature-invalid",
        "signed by another, in the owner's name": "catalogue.foreign",
        "signed by another, in its own name": "catalogue.not-published",
    }
    assert await names(house.alice) == ["kita/pick", "nord/pick"]
    assert (await kita.post("/catalogue/withdrawals", mine.to_json())).is_success
    assert await names(house.alice) == ["nord/pick"]


async def test_an_old_withdrawal_does_nothing_to_the_next_publication_even_of_the_same_words(
    house: House,
) -> None:
    kita, nord = await pool(house, "kita", "nord")
    await publish(kita)
    old = await withdrawal(kita)
    for _ in range(2):  # twice is once
        answer = await kita.post("/catalogue/withdrawals", old.to_json())
        assert (answer.status_code, answer.json()["dataset"]) == (200, "kita/pick")
    assert await names(nord) == []
    await publish(kita)  # the same descriptor, byte by byte
    replayed = await kita.post("/catalogue/withdrawals", old.to_json())
    assert (replayed.status_code, replayed.json()["code"]) == (409, "catalogue.other-publication")
    assert await names(nord) == ["kita/pick"]
    assert (await kita.post("/catalogue/withdrawals", (await withdrawal(kita)).to_json())).is_success
    assert await names(nord) == []


async def test_of_what_was_withdrawn_no_word_is_left_and_only_owner_and_operators_know_that_it_was(
    house: House,
) -> None:
    kita, nord = await pool(house, "kita", "nord")
    digest, sealed = certified(kita)
    await kita.post("/catalogue/certificates", sealed.to_json())
    await publish(kita, quality=digest)
    ended = await withdrawal(kita)
    await kita.post("/catalogue/withdrawals", ended.to_json())
    for caller in (kita, nord, house.alice):
        assert (await caller.get("/catalogue/dcat")).json()["dcat:dataset"] == []
        assert await listed(caller, "?embodiment_class=6r-arm") == []
    told = [{"org": kita.org, "dataset": "kita/pick"}]
    assert (await kita.get("/catalogue")).json()["withdrawn"] == told
    assert (await house.alice.get("/catalogue")).json()["withdrawn"] == told
    assert "withdrawn" not in (await nord.get("/catalogue")).json()
    with house.services.store.read() as session:
        assert session.execute(select(certificate_row)).all() == []
        (row,) = session.execute(select(descriptor_row)).all()
    assert Envelope.from_bytes(row.bytes) == ended  # the record is the owner's own word


async def test_a_withdrawal_that_its_owner_never_signed_hides_nothing_from_operators(house: House) -> None:
    kita, _ = await pool(house, "kita", "nord")
    await publish(kita)
    with house.services.store.main.begin() as session:
        session.execute(update(descriptor_row).values(shown="withdrawn"))  # and its bytes are a descriptor
    told = (await house.alice.get("/catalogue")).json()
    assert told["unverified"] == [{"org": kita.org, "dataset": "kita/pick"}]
    assert "withdrawn" not in told


async def test_names_that_were_withdrawn_use_up_no_room_and_no_number_comes_twice(house: House) -> None:
    (kita,) = await pool(house, "kita")
    with house.services.store.main.begin() as session:
        ended = ended_bytes(kita)
        for number in range(1, DESCRIPTORS_PER_NODE + 1):
            session.execute(
                descriptor_row.insert().values(
                    node_id=kita.node,
                    dataset=f"kita/old{number}",
                    digest="sha256:" + "0" * 64,
                    bytes=ended,
                    shown="withdrawn",
                    signed_by="ed25519:" + kita.key.public.hex(),
                    number=number,
                )
            )
    await publish(kita)
    assert [one["number"] for one in await listed(kita)] == [DESCRIPTORS_PER_NODE + 1]
    with house.services.store.read() as session:
        kept = session.scalars(select(descriptor_row.c.number).order_by(descriptor_row.c.number)).all()
    assert kept == list(range(2, DESCRIPTORS_PER_NODE + 2))  # the oldest record went


def ended_bytes(owner: NodeSim) -> bytes:
    made = Withdrawal.build(
        node=owner.node,
        dataset="kita/old",
        descriptor="sha256:" + "0" * 64,
        number=1,
        at="2026-11-29",
    )
    return seal_withdrawal(made, owner.key).to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": True},
        {"number": 2**60},
        {"dataset": "../kita"},
        {"reason": "x"},
        {"at": ""},
    ],
)
def test_a_withdrawal_of_another_form_is_refused(change: dict[str, Any]) -> None:
    document = {
        "schema": "iriai-withdrawal/1",
        "node": "node_" + "a" * 16,
        "dataset": "kita/pick",
        "descriptor": "sha256:" + "0" * 64,
        "number": 1,
        "at": "2026-11-29",
    }
    Withdrawal.parse(document)
    with pytest.raises(WithdrawalInvalidError):
        Withdrawal.parse(document | change)


async def test_a_descriptor_is_no_withdrawal_and_a_large_one_is_not_read(house: House) -> None:
    kita, _ = await pool(house, "kita", "nord")
    await publish(kita)
    large = Envelope.seal(canonical({"x": "x" * 20_000}), WITHDRAWAL_TYPE, kita.key)
    for envelope, code in (
        (described(kita), "identity.signature-invalid"),
        (large, "catalogue.withdrawal-invalid"),
    ):
        answer = await kita.post("/catalogue/withdrawals", envelope.to_json())
        assert answer.json()["code"] == code
    assert await names(kita) == ["kita/pick"]
