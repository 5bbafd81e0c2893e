# SPDX-License-Identifier: Apache-2.0
"""The composition of a broker: what the API and the round runner share, built once, from plain arguments.

    services = Services(settings, clock, entropy, writer, engine, keys)
    app = build(services)            # broker.app; its lifespan calls start() and stop()
    services.close()

- Nothing here is a global; two brokers in one process do not meet.
- `engine` reaches the nodes; the broker's own database is the truth and tells it at each start who is
  enrolled.
- `runner` moves runs forward. It is set after construction, because it needs the services itself; without
  one, runs can be opened and wait.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from broker.admission import Admission
from broker.auditing.auditors import Auditors
from broker.auditing.checks import Checks
from broker.auditing.erasure import Erasure
from broker.auditing.exports import Exports
from broker.auditing.grants import Grants
from broker.auditing.incidents import Incidents
from broker.auditing.samples import Samples
from broker.auditing.upkeep import Upkeep
from broker.auth.service import Auth
from broker.catalogue.service import Catalogue
from broker.contracts.amendments import Amendments
from broker.contracts.arrivals import Arrivals
from broker.contracts.bell import Bell
from broker.contracts.desk import NegotiationDesk
from broker.contracts.errors import NotPartyError
from broker.contracts.life import Lives
from broker.contracts.negotiations import Negotiations
from broker.contracts.offers import Offers
from broker.contracts.pool_book import PoolBook
from broker.contracts.proofs import Proofs
from broker.contracts.queries import Queries
from broker.contracts.refused import Refusals
from broker.contracts.service import Contracts, Seat
from broker.contracts.tightening import Tightenings
from broker.dataspace.callbacks import Courier
from broker.dataspace.counterparties import Counterparties
from broker.dataspace.facade import Facade
from broker.dataspace.offers import DSP_PATH, DspOffers
from broker.delivery.service import Delivery
from broker.draining import Draining
from broker.federation.books import Books
from broker.federation.outlook import Outlooks
from broker.large_bodies import LargeBodies
from broker.log.errors import LogError
from broker.log.static import StaticLog
from broker.membership.directory import Directory, Member
from broker.membership.service import Membership
from broker.nonces import FrozenNonces
from broker.ports import NoReference, Reference, Runner, TwoPersons
from broker.runs.service import Runs
from broker.tls import pin_of
from broker.witnessing import Witnessing

if TYPE_CHECKING:
    from broker.fleet import Fleet
    from broker.log import Writer
    from broker.settings import Settings
    from broker.store import Store
    from policies.contract import Contract
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["BrokerKeys", "Services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerKeys:
    """What identifies this broker: its signing key, its log's verifier key, its TLS certificate chain.

    After a change of the log's key the older one still signs for some time: `older_log_vkeys`.
    """

    broker: SigningKey
    log_vkey: str
    tls_chain_pem: bytes = field(repr=False)
    older_log_vkeys: tuple[str, ...] = ()

    @property
    def tls_sha256(self) -> str:
        """SHA-256 of the leaf certificate, 64 hex digits."""
        return pin_of(self.tls_chain_pem)


class Services:
    """Everything, composed; see the module.

    Attributes:
        acts: What takes two people; set once by whoever composes, because it needs the services itself.
    """

    acts: TwoPersons

    def __init__(  # noqa: PLR0917  the composition root; the order is part of the design
        self,
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        writer: Writer,
        engine: Fleet,
        keys: BrokerKeys,
        *,
        store: Store,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.entropy = entropy
        self.writer = writer
        self.store = store
        self.engine = engine
        self.keys = keys
        self.runner: Runner | None = None
        self.stage: Literal["starting", "serving", "stopping"] = "starting"
        self.started_ms = clock.now_ms()
        self.reference: Reference = NoReference()
        self.frozen_nonces = FrozenNonces()
        self.large_bodies = LargeBodies()
        self.admission = Admission(clock)
        self.draining = Draining()
        self.directory = Directory()
        self.witnessing = Witnessing(
            writer=writer,
            store=store,
            clock=clock,
            log_vkeys=(keys.log_vkey, *keys.older_log_vkeys),
            broker_key=keys.broker.public,
        )
        self.witnessing.more_voters = self._more_voters
        self.membership = Membership(
            clock=clock,
            entropy=entropy,
            directory=self.directory,
            url=settings.public_url,
            broker_key=keys.broker.public,
            tls_sha256=keys.tls_sha256,
        )
        self.auth = Auth(
            settings=settings, store=store, writer=writer, clock=clock, entropy=entropy, key=keys.broker
        )
        self.static = StaticLog(store, writer.receipts)
        self.auditors = Auditors(clock=clock, directory=self.directory)
        self.grants = Grants(clock=clock, entropy=entropy, auditors=self.auditors)
        self.erasure = Erasure(store=store, clock=clock)
        self.exports = Exports(settings.dir)
        self.checks = Checks(settings.dir, clock)
        self.samples = Samples()
        self.incidents = Incidents()
        self.refusals = Refusals()
        self.upkeep = Upkeep(writer=writer, erasure=self.erasure, exports=self.exports)
        self.contracts = Contracts(store=store, clock=clock, directory=self.directory)
        self.offers = Offers(directory=self.directory, broker_key=keys.broker, origin=writer.origin)
        self.proofs = Proofs()
        self.outlooks = Outlooks(self.contracts)
        self.amendments = Amendments(contracts=self.contracts, entropy=entropy)
        self.negotiations = Negotiations(
            contracts=self.contracts,
            offers=self.offers,
            amendments=self.amendments,
            book=PoolBook(contracts=self.contracts, broker_key=keys.broker),
            entropy=entropy,
        )
        self.arrivals = Arrivals(contracts=self.contracts, offers=self.offers, store=store)
        self.tightenings = Tightenings(
            contracts=self.contracts,
            offers=self.offers,
            negotiations=self.negotiations,
            amendments=self.amendments,
            store=store,
            broker_key=keys.broker,
        )
        self.desk = NegotiationDesk(
            negotiations=self.negotiations,
            amendments=self.amendments,
            contracts=self.contracts,
            store=store,
            writer=writer,
            clock=clock,
            bell=Bell(),
        )
        self.lives = Lives(
            contracts=self.contracts, store=store, clock=clock, entropy=entropy, broker_key=keys.broker
        )
        self.counterparties = Counterparties(directory=self.directory, clock=clock, entropy=entropy)
        self.dsp_offers = DspOffers(
            contracts=self.contracts, directory=self.directory, service=settings.public_url + DSP_PATH
        )
        self.facade = Facade(
            contracts=self.contracts,
            offers=self.dsp_offers,
            clock=clock,
            entropy=entropy,
            participant=settings.public_url,
        )
        self.courier = Courier(store=store, writer=writer, clock=clock, entropy=entropy, key=keys.broker)
        self.catalogue = Catalogue(directory=self.directory)
        self.queries = Queries(contracts=self.contracts, entropy=entropy)
        self.runs = Runs(
            clock=clock, entropy=entropy, contracts=self.contracts, queries=self.queries, presence=engine
        )
        self.delivery = Delivery(clock=clock, entropy=entropy, contracts=self.contracts, store=store)

    @property
    def policy(self) -> str:
        """An auditor's policy file as this broker sees itself and its witnesses.

        The log's first entry names the digest of the first one, ``policy.activated`` that of each later one.
        """
        return self.witnessing.keys.text

    def published_note(self) -> str:
        """The note behind ``/log/checkpoint``: the newest one that this broker's policy accepts."""
        return self.witnessing.checkpoint().note

    async def start(self) -> None:
        """Reads who is enrolled, starts the engine and tells it, lets the runner resume.

        Contracts whose term ended while nobody served them get their entry.
        """
        self.refresh()
        await self._settle_witnesses()
        await self.upkeep.look()
        self.upkeep.start()
        await self.desk.bring_up_to_date()  # before ends are logged: what is superseded has not expired
        await self.log_ends()
        await self.engine.start()
        for member in self.directory.members():
            if member.active:
                self.engine.enrol(member.node, member.fleet_key_pem.encode("ascii"), member.key)
        self.desk.amended = self._amended
        self.desk.start()
        if self.runner is not None:
            self.runner.resume()
        self.stage = "serving"

    def drain(self) -> None:
        """Ends held requests, so that the server can stop at once."""
        self.stage = "stopping"
        self.draining.begin()
        self.witnessing.drain()
        self.desk.drain()
        self.engine.drain()

    async def stop(self) -> None:
        """Stops the runner, then the engine; what was acknowledged is on the disk already."""
        self.stage = "stopping"
        await self.upkeep.stop()
        await self.checks.stop()
        await self.desk.stop()
        if self.runner is not None:
            await self.runner.stop()
        await self.engine.stop()

    def close(self) -> None:
        """Finishes what is being written and closes the databases."""
        self.samples.close()
        self.writer.close()
        self.store.close()

    def refresh(self) -> None:
        """Reads again who is enrolled, and who witnesses; after each change of membership."""
        with self.store.read() as session:
            self.directory.load(session)
        self.witnessing.load()

    async def _settle_witnesses(self) -> None:
        """Logs that witnesses whose owner left are none any more; what cannot be logged now, later."""
        if self.writer.frozen is None:
            with contextlib.suppress(LogError):
                await self.writer.run(self.witnessing.keys.settle)

    def _more_voters(self) -> None:
        """Lets the gate look again at candidates that may wait for witnesses. Repeatable."""
        if self.runner is None:
            return
        with self.store.read() as session:
            waiting = self.lives.all_waiting(session)
        for name in waiting:
            self.runner.voted(name)

    def enrolled(self, org: str) -> None:
        """Tells everybody who must know what became of an organisation, after the commit. Repeatable."""
        self.refresh()
        member = self.directory.member(org)
        if member.active:
            self.engine.enrol(member.node, member.fleet_key_pem.encode("ascii"), member.key)
        elif member.revoked:
            self.engine.revoke(member.node)
        elif member.suspended:
            self.engine.suspend(member.node)

    def rekeyed(self, org: str) -> None:
        """Tells everybody who must know an organisation's new key, after the commit. Repeatable."""
        self.refresh()
        member = self.directory.member(org)
        self.engine.rekey(member.node, member.key)

    def books(self) -> Books:
        """What new envelopes of members must fit, as the log stands now."""
        return Books(self.contracts, self.writer, self.store)

    async def log_ends(self) -> None:
        """Logs contracts whose term is over. What cannot be logged now is logged by whoever asks next."""
        with self.store.read() as session:
            due = self.lives.unlogged_ends(session)
        if due and self.writer.frozen is None:
            with contextlib.suppress(LogError):
                await self.writer.run(self.lives.note_expired)

    def lives_changed(self, contract: Contract) -> None:
        """Lets the gate look again at what waits, after a notice was taken. Repeatable."""
        if self.runner is None:
            return
        with self.store.read() as session:
            waiting = self.lives.waiting_candidates(session, contract)
        for name in waiting:
            self.runner.voted(name)

    def _amended(self, _old: Contract, new: Contract) -> None:
        """Lets the gate look again at candidates that went over to a successor. Repeatable."""
        self.lives_changed(new)

    def nodes(self) -> list[dict[str, str]]:
        """Every enrolled node: its organisation and whether it would answer now."""
        online = self.engine.online()
        return [
            {"org": one.org, "node": one.node, "state": "online" if one.node in online else one.state}
            for one in self.directory.members()
        ]

    # --- what the round runner asks ---

    def seats(self, contract: Contract) -> tuple[Seat, ...]:
        """Contributors of a contract with the active member (node, key) behind each pinned key."""
        return self.contracts.seats(contract)

    def member_of_node(self, node: str) -> Member | None:
        """The enrolled member of a node id."""
        return next((one for one in self.directory.members() if one.node == node), None)

    def party_of_node(self, contract: Contract, node: str) -> str | None:
        """Short name of a node's organisation in a contract."""
        member = self.member_of_node(node)
        if member is None:
            return None
        with contextlib.suppress(NotPartyError):
            return self.contracts.party_of(contract, member).party
        return None

    def alias(self, party: str, scope: str, run: str | None = None, round: int | None = None) -> str:  # noqa: A002
        """Name of a contributor in log entries of a contract (``scope``: its digest), run and round."""
        return self.contracts.alias(self.contracts.get(scope), party, run, round)

    def receipt_json(self, index: int) -> dict[str, str]:
        """An entry's bytes and its receipt, as members are given both."""
        return {
            "entry": self.writer.receipts.body(index).decode("utf-8"),
            "proof": self.writer.receipts.receipt(index).to_text(),
        }
