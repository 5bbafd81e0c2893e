# SPDX-License-Identifier: Apache-2.0
"""A new key for this node: said in every contract by the old key and the new one, then the old one is gone.

`rotate_key` goes in this order; each step is on the disk before the next one, and repeating the command after
a crash goes on with the same new key:

1. the worker does not run; nothing that the present key signed is under way: no notice unsent, no envelope
   without a receipt, no negotiation open. There is a contract to say it in, and each lets the old key say it;
2. the new key is in ``keys/next.key``, and the outbox seals nothing else from here on;
3. in every executed contract: a notice that both keys signed. It binds this node's guard at once;
4. each is posted, with its envelope for the log, by the key that the broker knows by then: the first one that
   it takes gives this organisation its new key. Every envelope gets its receipt;
5. the hand-over, signed by both keys, says where the new key begins in each budget ledger
   (`client.keyring`);
6. the new key becomes ``keys/node.key`` in one step, and the old private key is gone;
7. the outbox is the new key's: its chain of envelopes goes on where it was.

What a contract pins stays as it is; `Life.rotated` says which key is in force. Keys of the connection to the
fleet API and of the data stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from client.answers import Answer, short, table
from client.budgets import Budgets
from client.contract.notices import Notices
from client.contract.posting import exchange
from client.contract.reading import broker_rows, fetch, fetch_envelope
from client.contract.shelf import ContractShelf
from client.errors import (
    NoSuchThingError,
    NotConfirmedError,
    RemoteRefusalError,
    RotationWaitsError,
)
from client.keyring import HandOver, Mark, adopt_next, append, put_next, read_history
from client.membership import open_member
from client.outbox import Outbox
from client.receipts import LogView, collect, fetch_consistency
from client.settings import locked
from policies.contract.errors import NoticeEntitlementError
from policies.contract.lifecycle import key_of
from policies.contract.notices import Notice
from policies.identity import SigningKey, fingerprint, key_text
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from client.contract.shelf import Held
    from client.membership import Member
    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["rotate_key"]

_SEED_BYTES: Final = 32
_BY_OLD_KEY: Final = "by-old-key-or-all"
_UNKNOWN_KEY: Final = "identity.unknown-key"
_OVER: Final = frozenset({"FINALIZED", "TERMINATED"})


def rotate_key(
    home: Home,
    *,
    clock: Clock,
    entropy: Entropy,
    code: str,
    confirm: Callable[[str], bool],
    transport: httpx.BaseTransport | None = None,
) -> Answer:
    """Gives this node a new key, or goes on with a change that was begun; see the module for the steps.

    Args:
        home: The node's folder.
        clock: Of notices and envelopes.
        entropy: Of the new key and of nonces.
        code: Reason code, the same in every contract.
        confirm: Shows the new key's fingerprint to a person and gives their answer; asked before step 2.
        transport: Of httpx, for an application in the same process.

    Raises:
        NodeBusyError: Step 1: the worker runs.
        RotationWaitsError: Steps 1 and 4: something of the present key is still under way.
        NoSuchThingError: Step 1: no contract; nobody could check the new key.
        NoticeEntitlementError: Step 1: a contract lets only all the others replace a key.
        NotConfirmedError: Nobody said yes; nothing was changed.
        PeerUnreachableError: The broker is away; repeat the command.
        RemoteRefusalError: It does not take a notice; the change stays open.
    """
    home.need()
    lock = locked(home)
    try:
        with _opened(home, clock=clock, entropy=entropy, transport=transport) as work:
            if work.outbox.taken_over:
                return _done(work.member)  # a crash came between steps 6 and 7
            work.carry_out(code, confirm)
        with _opened(home, clock=clock, entropy=entropy, transport=transport) as work:  # 7.
            return _done(work.member)
    finally:
        lock.close()


def _done(member: Member) -> Answer:
    identity, rows = member.identity, read_history(member.home.keys).handovers
    facts = {
        "key": key_text(identity.key.public),
        "fingerprint": fingerprint(identity.key.public),
        "former": [{"key": one.old, "until": one.at} for one in rows],
    }
    lines = table(("former key", "until"), [(one.old, one.at) for one in rows])
    text = (
        f"fingerprint  {facts['fingerprint']}",
        *lines,
        "next: iriai-node run; tell the others the fingerprint",
    )
    return Answer(data=facts, text=text)


def _opened(
    home: Home, *, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None
) -> _Rotation:
    member = open_member(home, clock=clock, entropy=entropy, transport=transport)
    identity = member.identity
    outbox = Outbox.of(home, identity, origin=member.broker.origin, clock=clock, entropy=entropy)
    return _Rotation(member=member, outbox=outbox, shelf=ContractShelf(home, own_key=identity.key.public))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rotation:
    """One change of key, on open files; ``member`` speaks by the key that is given up."""

    member: Member
    outbox: Outbox
    shelf: ContractShelf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.outbox.close()
        self.member.client.close()

    def carry_out(self, code: str, confirm: Callable[[str], bool]) -> None:
        """Steps 1 to 6."""
        if self.outbox.rotation is None:
            self.require_ready()  # 1.
        new = self.new_key(confirm)  # 2.
        held = self.executed(self._speaking(new))
        for one in held:
            self.say(one, new, code)  # 3.
        for one in held:
            self.post(one, new)  # 4.
        self.require_receipts()
        self.hand_over(new)  # 5.
        adopt_next(self.member.home.keys)  # 6.

    # --- 1. ---

    def executed(self, member: Member) -> tuple[Held, ...]:
        """Every executed contract that the broker has as final, also one that ended: its models stay.

        The newest version comes first: a tightening goes on with the life of its predecessor, and must be
        told before that life knows the new key. A successor that never took effect is left out.
        """
        final = {str(row["digest"]) for row in broker_rows(member) if row.get("state") == "finalized"}
        held = [self.shelf.get(one) for one in self.shelf.digests() if one in final]
        held.sort(key=lambda one: (one.contract.contract_id, -one.contract.version))
        return tuple(one for one in held if one.is_executed)

    def require_ready(self) -> None:
        """Returns once nothing of the present key is under way, and every contract can be told."""
        self._require_no_talk()
        held = self.executed(self.member)
        if not held:
            raise NoSuchThingError(
                need="a contract that everybody signed, in which the new key is said",
                found="none",
                remedy="make a new node (iriai-node init in an empty folder) and join again",
            )
        for one in held:
            amendment = one.contract.amendment
            if amendment.key_rotation != _BY_OLD_KEY:
                raise NoticeEntitlementError(
                    need="a key that all the other contributors replace",
                    found="a change by this party alone",
                    remedy="make a successor contract that pins the new key",
                    clause=amendment.clause,
                )
            exchange(self.member, self.shelf, self.outbox, one)
            if Notices(self.shelf).unsent(one):
                raise _waits("every own notice taken", f"one about {short(one.contract.digest)} that is not")
        self._collect(self.member)
        self.require_receipts()

    def _require_no_talk(self) -> None:
        """No negotiation is open, and every contract that is final is here."""
        for row in broker_rows(self.member):
            digest, lane = str(row["digest"]), row.get("lane")
            if row.get("state") == "finalized":
                if not fetch(self.member, self.shelf, digest).is_executed:
                    fetch_envelope(self.member, self.shelf, digest)
            elif isinstance(lane, dict) and lane.get("state") not in _OVER:
                raise _waits(
                    "no open negotiation",
                    f"one about {short(digest)}",
                    "end it first: iriai-node contract sign, or refuse",
                )

    # --- 2. ---

    def new_key(self, confirm: Callable[[str], bool]) -> SigningKey:
        """The new key, on the disk, with an outbox that seals nothing but the change."""
        member, new = self.member, self.member.identity.next_key
        if new is None:
            new = SigningKey.from_seed(member.entropy.token_bytes(_SEED_BYTES))
        if self.outbox.rotation is None:
            if not confirm(fingerprint(new.public)):
                raise NotConfirmedError(
                    need="a person's word", found="no", remedy="repeat the command once you are sure"
                )
            put_next(member.home.keys, new)
        self.outbox.begin_rotation(key_text(new.public))
        return new

    # --- 3. ---

    def say(self, held: Held, new: SigningKey, code: str) -> None:
        """The notice of a contract, unless it was said before."""
        notices, party = Notices(self.shelf), held.party.party
        life = notices.life(held)
        if key_of(held.contract, life, party) == key_text(new.public):
            return
        said = Notice(
            kind="rotate",
            contract=held.contract.digest,
            party=party,
            seq=life.next_seq(party),
            at=life.next_at(party, iso_s(self.member.clock.now_ms())),
            code=code,
            subject=key_text(new.public),
        )
        notices.say(held, said, self.member.identity.key, new)

    # --- 4. ---

    def post(self, held: Held, new: SigningKey) -> None:
        """Has the broker take the notice of a contract, and its receipt here."""
        member, notices = self._speaking(new), Notices(self.shelf)
        name = key_text(new.public)
        mine = [one for one in notices.unsent(held) if one.kind == "rotate" and one.subject == name]
        if mine:
            later = replace(self.member, client=self.member.client.under(new))
            exchange(member, self.shelf, self.outbox, held, upto=mine[0].seq, afterwards=later)
        if any(one.subject == name for one in notices.unsent(held)):
            raise _waits("the change of key taken", f"not yet, about {short(held.contract.digest)}")
        self._collect(self._speaking(new))  # before the next one: what has no receipt would go along

    def _speaking(self, new: SigningKey) -> Member:
        """The member under the key that the broker knows by now."""
        member = self.member
        try:
            member.client.get("/membership/me")
        except RemoteRefusalError as error:
            if error.code != _UNKNOWN_KEY:
                raise
            return replace(member, client=member.client.under(new))
        return member

    def _collect(self, member: Member) -> None:
        """Asks for the receipts that are missing."""
        view = LogView(self.outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
        collect(member.client, self.outbox, view, older_than_ms=member.clock.now_ms())

    def require_receipts(self) -> None:
        """Returns if every envelope has its receipt.

        Raises:
            RotationWaitsError: One has none.
        """
        waiting = self.outbox.pending()
        if waiting:
            raise _waits(
                "a receipt for every envelope of the present key",
                f"{len(waiting)} without one",
                "iriai-node receipt fetch; what never arrived goes out with the next round",
            )

    # --- 5. ---

    def hand_over(self, new: SigningKey) -> None:
        """Where the new key begins in each ledger, signed by both; once."""
        member, old = self.member, self.member.identity.key
        budgets = Budgets(member.home, key=old, clock=member.clock)
        try:
            states = {stem: budgets.find(stem).state for stem in budgets.lineages()}
        finally:
            budgets.close()
        done = HandOver(
            old=key_text(old.public),
            new=key_text(new.public),
            at=iso_s(member.clock.now_ms()),
            ledgers={stem: Mark(one.seq, one.head) for stem, one in states.items()},
        )
        append(member.home.keys, done, old=old, new=new)


def _waits(need: str, found: str, remedy: str = "repeat the command") -> RotationWaitsError:
    return RotationWaitsError(need=need, found=found, remedy=remedy)
