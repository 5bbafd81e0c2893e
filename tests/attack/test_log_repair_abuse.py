# SPDX-License-Identifier: Apache-2.0
"""A bundle that its keeper altered repairs nothing, and an envelope that is altered at rest is found at the next start."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.log import FreezeReason, export
from broker.log.errors import LogFrozenError, LogRepairError
from broker.log.repair import Repair
from broker.membership.records import key_added
from broker.store import tables
from policies.encoding import canonical, parse
from policies.identity import SigningKey, key_id, key_text
from policies.log.entries import EntryType, Event
from policies.log.envelope import PAYLOAD_TYPE
from policies.signing import Envelope
from tests.logsim import LogSim, MemberSim, console
from tests.unit.test_log_repair import bundle, changed, plan, repaired, restore, rows, sim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["sim"]

Line = dict[str, Any]
OTHER = SigningKey.from_seed(b"o" * 32)


def lines(data: bytes, change: Callable[[Line], Line | None]) -> bytes:
    found = [change(parse(one)) for one in data.split(b"\n") if one]
    return b"".join(canonical(one) + b"\n" for one in found if one is not None)


def altered(kept: Path, folder: str, change: Callable[[Line], Line | None]) -> Path:
    return changed(kept, lambda name, data: lines(data, change) if name.startswith(folder + "/") else data)


def signatures(*pairs: tuple[str, bytes]) -> Callable[[Line], Line]:
    """Puts others in the place of an envelope's signatures."""

    def change(line: Line) -> Line:
        said = [{"keyid": kid, "sig": base64.b64encode(sig).decode()} for kid, sig in pairs]
        return line | {"envelope": line["envelope"] | {"signatures": said}}

    return change


def resigned(line: Line) -> Line:
    """Signed, without a fault, by somebody else."""
    payload = Envelope.from_bytes(canonical(line["envelope"])).payload
    return line | {"envelope": Envelope.seal(payload, PAYLOAD_TYPE, OTHER).to_json()}


KITA = key_id(MemberSim("kita", None).key.public)  # type: ignore[arg-type]
ALTERED = {
    "a ruined signature": ("envelopes", signatures((KITA, bytes(64)))),
    "no signature": ("envelopes", signatures()),
    "two signatures": ("envelopes", signatures((KITA, bytes(64)), (KITA, bytes(64)))),
    "another id": ("envelopes", signatures(("0" * 16, bytes(64)))),
    "a stranger's signature": ("envelopes", resigned),
    "an index that is none": ("envelopes", lambda line: line | {"index": {"a": 1}}),
    "a list for an envelope": ("envelopes", lambda line: line | {"envelope": [1]}),
    "a field that is none": ("disclosures", lambda line: line | {"field": {"a": 1}}),
    "a place that is none": ("disclosures", lambda line: line | {"index": [1]}),
    "a salt that is none": ("disclosures", lambda line: line | {"salt": 7}),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_bundle_repairs_nothing_and_says_so_before_anybody_approves(sim: LogSim, name: str):
    folder, change = ALTERED[name]
    kept = bundle(sim)
    before = rows(sim)
    restore(sim)
    with pytest.raises(LogRepairError, match=r"nothing was changed|another copy"):
        plan(sim, altered(kept, folder, change))
    repaired(sim, kept)
    assert rows(sim) == before


def test_another_members_key_in_force_does_not_do_for_a_chain_that_is_known(tmp_path: Path):
    (tmp_path / "live").mkdir()
    with LogSim(tmp_path / "live") as made:
        made.started()
        member = made.member("kita")
        for key in (member.key, OTHER):
            made.add(key_added("node", "ed25519", key.public, shown=key_text(key.public)))
        _submit(made, member, 1)
        made.close()
        copies = {one.name: one.read_bytes() for one in made.paths()[:2]}
        made.open()
        _submit(made, member, 2)
        made.add(console(1))
        kept = bundle(made)
        made.close()
        for name, data in copies.items():
            (made.folder / name).write_bytes(data)
        made.open()
        forged = altered(kept, "envelopes", lambda line: line if line["index"] < 4 else resigned(line))
        with pytest.raises(LogRepairError, match="whoever began the chain"):
            plan(made, forged)
        repaired(made, kept)


def _submit(made: LogSim, member: MemberSim, rnd: int) -> None:
    event = member.submission(rnd=rnd)
    made.add(event)
    member.advance(event)


def test_a_key_that_was_revoked_before_signs_nothing_that_comes_back(tmp_path: Path):
    (tmp_path / "live").mkdir()
    with LogSim(tmp_path / "live") as made:
        made.started(entries=2)
        made.close()
        copies = {one.name: one.read_bytes() for one in made.paths()[:2]}
        made.open()
        member = made.member("kita")
        added = key_added("node", "ed25519", member.key.public, shown=key_text(member.key.public))
        kid = added.pub["kid"]
        made.add(
            added,
            Event(type=EntryType.KEY_REVOKED, pub={"kid": kid, "reason": "left", "valid_until": 3}),
        )
        _submit(made, member, 1)
        kept = bundle(made)
        made.close()
        for name, data in copies.items():
            (made.folder / name).write_bytes(data)
        made.open()
        with pytest.raises(LogRepairError, match="a key in force at entry 4"):
            plan(made, kept)


def test_the_approvers_are_told_how_many_confidential_values_are_lost(sim: LogSim):
    kept = bundle(sim)
    restore(sim)
    whole = plan(sim, kept)
    poor = plan(sim, altered(kept, "disclosures", lambda line: line if line["field"] == "key" else None))
    assert (whole.undisclosed, poor.undisclosed > 0) == (0, True)
    assert json.loads(poor.subject())["undisclosed"] == poor.undisclosed
    assert whole.subject() != poor.subject()


def test_a_key_that_nobody_has_the_text_of_is_refused_and_said(sim: LogSim):
    kept = bundle(sim)
    restore(sim)
    with pytest.raises(LogRepairError, match="the public key that signed the envelope of entry 6"):
        plan(sim, altered(kept, "disclosures", lambda _line: None))


# --- envelopes at rest ---


def edited(sim: LogSim, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(sim.paths()[0])) as database, database:
        for name in ("log_envelope_no_update", "log_envelope_no_delete"):
            database.execute(f"DROP TRIGGER IF EXISTS {name}")
        assert database.execute(sql, values).rowcount == 1


def envelope_at(sim: LogSim, index: int) -> Envelope:
    table = tables.log_envelope
    with sim.store.read() as session:
        return Envelope.from_bytes(bytes(session.scalar(select(table.c.dsse).where(table.c.idx == index))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("dsse = x'7b'", "is none"),
        ("dsse = other", "has another payload"),
        ("chain = '0000000000000000'", "has a row that differs"),
        ("seq = 77", "has a row that differs"),
        ("env = zeroblob(32)", "has a row that differs"),
        ("seen_size = 1", "has a row that differs"),
        ("signer = '0000000000000000'", "has other signatures"),
        ("idx = 9", "is missing"),
    ],
)
def test_an_envelope_that_is_altered_at_rest_freezes_the_log_at_the_next_start(
    sim: LogSim, change: str, says: str
):
    other = envelope_at(sim, 6).to_bytes()
    sim.close()
    wanted, values = (change, ()) if "other" not in change else ("dsse = ?", (other,))
    edited(sim, f"UPDATE log_envelope SET {wanted} WHERE idx = 7", *values)  # noqa: S608  of this test
    frozen = sim.open().frozen
    assert frozen is not None
    assert f"the envelope of entry 7 {says}" in str(frozen)
    assert FreezeReason.CORRUPT.value in str(frozen)


def test_a_lost_envelope_is_named_and_no_repair_covers_it_up(sim: LogSim):
    kept = bundle(sim)
    sim.close()
    edited(sim, "DELETE FROM log_envelope WHERE idx = 8")
    assert "the envelope of entry 8 is missing" in str(sim.open().frozen)
    with pytest.raises(LogRepairError, match="the envelope of entry 8"):
        plan(sim, kept)
    restore(sim)
    assert isinstance(repaired(sim, kept), Repair)


def test_a_bundle_of_a_damaged_envelope_is_refused_by_name_and_leaves_no_file(sim: LogSim, tmp_path: Path):
    edited(sim, "UPDATE log_envelope SET dsse = x'7b' WHERE idx = 7")
    assert sim.writer is not None
    with pytest.raises(LogFrozenError, match="the envelope of entry 7"):
        export(sim.store, sim.writer, tmp_path / "x.zip", policy="policy", software="0.1.0")
    assert not list(tmp_path.glob("x.zip*"))
