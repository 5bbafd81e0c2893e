# SPDX-License-Identifier: Apache-2.0
"""Who witnesses this log: statements in which an owner's enrolled key names its witness key.

    registered = keys.register(session, tx, envelope, owner)     in the transaction of the request
    keys.load(session)                                           after the commit
    keys.policy                                                  what this broker would tell an auditor

`register` checks in this order, and stores nothing before all of it holds:
1. the statement is signed by the owner's key in force, for this log (`policies.log.witness_keys`);
2. it is about this owner, and the witness key signed it as well: whoever states a key holds it;
3. nobody else, and no log key, has that key;
4. nobody gave it up before, under any name: what a key signed once stays tied to the time in which it was in
   force, and to its owner.

A member's witness has a vote from then on: two people let the member in. An auditor is enrolled by one, who
alone must not fill the quorum: an auditor's first statement waits, is in no entry and in no policy, until two
people gave it a vote (`add`). Whoever has a vote may state another key at any time.

One statement is in force for each owner. A new one with the same key takes its place quietly; one with
another key is ``witness.removed``, ``witness.added`` and ``policy.activated``. `settle` writes the same for
members that left, and `remove` for one that two people put out; its key never comes back. A vote outlives the
access of its auditor: ending that takes one, and one takes no voter away. The policy that an entry names is
the text that holds after it.

The policy of a broker decides what ``/log/checkpoint`` waits for and which receipts count as witnessed here.
What a member or an auditor believes is decided by their own files (`policies.log.policy`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from broker.membership.directory import ACTIVE, SUSPENDED
from broker.store import tables
from broker.store.upserts import insert_or_update
from broker.witnessing.errors import WitnessKeyError
from policies.encoding import Json, digest, sha256
from policies.errors import IriaiError
from policies.identity import key_text, parse_key
from policies.log.entries import EntryType, Event, alias
from policies.log.policy import Policy, policy_text, pool_policy
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import open_statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session
    from policies.signing import Envelope

__all__ = ["Owner", "Registered", "WitnessKeys", "auditor_alias", "auditor_owner"]

_TABLE = tables.witness
_GONE: Final = "removed"
_WAITS: Final = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose witness key it is: name as in statements, enrolled key, name in the log.

    ``by_two``: whether a first statement waits for two people.
    """

    name: str
    key: bytes
    alias: str
    by_two: bool = False

    @classmethod
    def of(cls, member: Member) -> Owner:
        """A member's organisation."""
        return cls(name=member.org, key=member.key, alias=alias(member.alias_key, None, None, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A witness in force: its owner, its key, and the statement that ties both together (DSSE bytes)."""

    owner: str
    key: VerifierKey
    statement: bytes


def auditor_alias(name: str) -> str:
    """Name of an auditor in entries about witnesses; auditors have no alias key, and are no rivals."""
    return sha256(b"iriai/auditor/1\x00" + name.encode("utf-8")).hex()[:16]


class WitnessKeys:
    """The picture of everybody who witnesses; `load` replaces it whole."""

    def __init__(self, *, log_keys: tuple[VerifierKey, ...], broker_key: bytes) -> None:
        self._log_keys = log_keys
        self._broker = broker_key
        self._by_name: dict[str, Registered] = {}
        self.policy = self._policy(())

    @property
    def text(self) -> str:
        """The policy as a file."""
        return policy_text(self.policy)

    def everybody(self) -> tuple[Registered, ...]:
        """All witnesses in force, by the names of their keys."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def find(self, name: str) -> Registered | None:
        """The witness whose key has this name."""
        return self._by_name.get(name)

    def load(self, session: Session) -> None:
        """Reads again who witnesses; after each change."""
        found = _in_force(session)
        self._by_name = {one.key.name: one for one in found}
        self.policy = self._policy(found)

    def _policy(self, found: Iterable[Registered]) -> Policy:
        voters = {one.owner: (one.key,) for one in found}
        return pool_policy(logs=self._log_keys, broker=self._broker, witnesses=voters)

    def register(self, session: Session, tx: LogTx, envelope: Envelope, owner: Owner) -> bool:
        """Takes a statement; see the module. Gives whether it was news for the log.

        Raises:
            SignatureInvalidError, WitnessStatementError: Step 1.
            WitnessKeyError: Steps 2 to 4.
        """
        said = open_statement(envelope, owner.key, log=self._log_keys[0].name)  # 1.
        if said.org != owner.name:  # 2.
            raise _refuse(f"a statement about {owner.name}", said.org)
        if not said.proven:
            raise _unproven(said.key.name)
        key, vkey = said.key, said.key.text()
        mine = session.execute(select(_TABLE).where(_TABLE.c.name == key.name)).mappings().first()
        old = {"vkey": "", "state": _GONE} if mine is None else dict(mine)
        votes = old["state"] == ACTIVE or not owner.by_two
        state = ACTIVE if votes else _WAITS
        same = (old["vkey"], old["state"]) == (vkey, state)
        self._check_unused(session, key, same=same)  # 3. and 4.
        row = {"name": key.name, "org": owner.name, "vkey": vkey, "statement": envelope.to_bytes()}
        insert_or_update(session, _TABLE, row | {"state": state, "at_ms": tx.now_ms})
        if votes and not same:
            policy = self._digest(session)
            if old["state"] == ACTIVE:
                tx.add(_event(EntryType.WITNESS_REMOVED, key.name, old["vkey"], owner.alias, policy))
            tx.add(_event(EntryType.WITNESS_ADDED, key.name, vkey, owner.alias, policy))
            self._activate(session, tx, policy)
        return not same

    def _check_unused(self, session: Session, key: VerifierKey, *, same: bool) -> None:
        """Refuses a key of somebody else, and one that somebody gave up; see `register`."""
        used = (_TABLE.c.name != key.name) & (_TABLE.c.state != _WAITS)
        others = {
            VerifierKey.parse(one).public_key for one in session.scalars(select(_TABLE.c.vkey).where(used))
        }
        others |= {self._broker, *(one.public_key for one in self._log_keys)}
        if key.public_key in others:
            raise _refuse("a key of its own for each witness", "a key that is in use")
        if not same and _given_up(session, key):
            raise _refuse("a key that was never given up", "one that another took the place of")

    def waits(self, session: Session, owner: str) -> str | None:
        """Name of the witness of an owner that waits for two people; None if none does."""
        mine = (_TABLE.c.org == owner) & (_TABLE.c.state == _WAITS)
        found: str | None = session.scalar(select(_TABLE.c.name).where(mine))
        return found

    def voter(self, session: Session, owner: str) -> str | None:
        """Name of the witness with which an owner votes; None without one."""
        return next((one.key.name for one in _in_force(session) if one.owner == owner), None)

    def addable(self, session: Session, name: str) -> dict[str, Json]:
        """What a vote for an auditor's witness is about.

        Raises:
            WitnessKeyError: None waits under this name, its auditor has left, or its key is used or given up.
        """
        mine = (_TABLE.c.name == name) & (_TABLE.c.state == _WAITS)
        row = session.execute(select(_TABLE).where(mine)).mappings().first()
        owner = None if row is None else auditor_owner(session, row["org"])
        if row is None or owner is None:
            raise WitnessKeyError(
                need="the name of an auditor's witness that waits",
                found=ascii(name)[1:-1][:60],
                remedy="register its statement: iriai-broker auditor witness FILE",
            )
        self._check_unused(session, VerifierKey.parse(row["vkey"]), same=False)
        return {
            "witness": name,
            "owner": owner.name,
            "owner_key": key_text(owner.key),
            "vkey": row["vkey"],
            "statement": digest(bytes(row["statement"])),
        }

    def add(self, session: Session, tx: LogTx, name: str) -> dict[str, Json]:
        """Gives an auditor's witness a vote; two people's word is the caller's to check.

        Raises:
            WitnessKeyError: See `addable`.
        """
        new = self.addable(session, name)
        session.execute(update(_TABLE).where(_TABLE.c.name == name).values(state=ACTIVE, at_ms=tx.now_ms))
        policy = self._digest(session)
        actor = _alias_of(session, str(new["owner"]))
        tx.add(_event(EntryType.WITNESS_ADDED, name, str(new["vkey"]), actor, policy))
        self._activate(session, tx, policy)
        return {"witness": name, "owner": new["owner"], "votes": True}

    def removable(self, session: Session, name: str) -> dict[str, Json]:
        """What the end of a witness is about.

        Raises:
            WitnessKeyError: Nobody witnesses under this name.
        """
        found = next((one for one in _in_force(session) if one.key.name == name), None)
        if found is None:
            raise WitnessKeyError(
                need="the name of a witness in force",
                found=ascii(name)[1:-1][:60],
                remedy="iriai-broker witness list shows them",
            )
        return {"witness": name, "owner": found.owner, "vkey": found.key.text()}

    def remove(self, session: Session, tx: LogTx, name: str) -> dict[str, Json]:
        """Takes a voter from the policy; two people's word is the caller's to check.

        Raises:
            WitnessKeyError: See `removable`.
        """
        gone = self.removable(session, name)
        session.execute(update(_TABLE).where(_TABLE.c.name == name).values(state=_GONE))
        policy = self._digest(session)
        actor = _alias_of(session, str(gone["owner"]))
        tx.add(_event(EntryType.WITNESS_REMOVED, name, str(gone["vkey"]), actor, policy))
        self._activate(session, tx, policy)
        return {"witness": name, "owner": gone["owner"], "removed": True}

    def settle(self, session: Session, tx: LogTx) -> bool:
        """Removes witnesses of members that left; gives whether there were any. Repeatable."""
        in_force = {one.key.name for one in _in_force(session)}
        rows = session.execute(select(_TABLE).where(_TABLE.c.state == ACTIVE)).mappings().all()
        gone = [row for row in rows if row["name"] not in in_force]
        for row in gone:
            session.execute(update(_TABLE).where(_TABLE.c.name == row["name"]).values(state=_GONE))
        if gone:
            policy = self._digest(session)
            for row in gone:
                actor = _alias_of(session, row["org"])
                tx.add(_event(EntryType.WITNESS_REMOVED, row["name"], row["vkey"], actor, policy))
            self._activate(session, tx, policy)
        return bool(gone)

    def _digest(self, session: Session) -> str:
        return digest(policy_text(self._policy(_in_force(session))).encode("ascii"))

    def _activate(self, session: Session, tx: LogTx, policy: str) -> None:
        pub = {"kind": "trust", "digest": policy, "previous": _activated(session)}
        tx.add(Event(type=EntryType.POLICY_ACTIVATED, pub=pub))


def _refuse(need: str, found: str) -> WitnessKeyError:
    return WitnessKeyError(
        need=need,
        found=ascii(found)[1:-1][:120],
        remedy="let the node make a new key: move keys/witness.key and witness.json away, start it again",
    )


def _unproven(name: str) -> WitnessKeyError:
    return WitnessKeyError(
        need=f"a statement that the witness key {name} signed as well",
        found="its owner's signature alone",
        remedy="nodes make it anew at their start; auditors with iriai-verify witness --key … --statement …",
    )


def _event(kind: EntryType, name: str, vkey: str, actor: str, policy: str) -> Event:
    return Event(type=kind, pub={"witness": name, "vkey": vkey, "org": actor, "policy": policy})


def _in_force(session: Session) -> list[Registered]:
    """Statements in force. The suspended vote on, as do auditors who left: it takes two to remove a voter."""
    org, who = tables.organisation, tables.auditor
    owners = set(session.scalars(select(org.c.org_id).where(org.c.state.in_((ACTIVE, SUSPENDED)))))
    owners |= set(session.scalars(select(who.c.name)))
    rows = session.execute(select(_TABLE).where(_TABLE.c.state == ACTIVE).order_by(_TABLE.c.name)).mappings()
    return [
        Registered(owner=row["org"], key=VerifierKey.parse(row["vkey"]), statement=row["statement"])
        for row in rows
        if row["org"] in owners
    ]


def _alias_of(session: Session, owner: str) -> str:
    org = tables.organisation
    key = session.scalar(select(org.c.alias_key).where(org.c.org_id == owner))
    return alias(key, None, None, None) if key else auditor_alias(owner)


def _given_up(session: Session, key: VerifierKey) -> bool:
    """Whether anybody gave this key up, under whatever name."""
    entry = tables.log_entry
    kind = entry.c.type == EntryType.WITNESS_REMOVED.value
    bodies = session.scalars(select(entry.c.body).where(kind))
    gone = (VerifierKey.parse(json.loads(body)["pub"]["vkey"]) for body in bodies)
    return any(one.public_key == key.public_key for one in gone)


def _activated(session: Session) -> str | None:
    """Digest of the policy that the log names last."""
    entry = tables.log_entry
    kinds = (EntryType.POLICY_ACTIVATED.value, EntryType.LOG_GENESIS.value)
    bodies = session.scalars(select(entry.c.body).where(entry.c.type.in_(kinds)).order_by(entry.c.idx.desc()))
    for body in bodies:
        pub = json.loads(body)["pub"]
        if "policy" in pub:
            return str(pub["policy"])
        if pub["kind"] == "trust":
            return str(pub["digest"])
    return None


def auditor_owner(session: Session, name: str) -> Owner | None:
    """An auditor whose key is enrolled and in force."""
    who = tables.auditor
    key = session.scalar(select(who.c.key).where(who.c.name == name, who.c.state == ACTIVE))
    if key is None:
        return None
    try:
        return Owner(name=name, key=parse_key(key), alias=auditor_alias(name), by_two=True)
    except IriaiError:
        return None
