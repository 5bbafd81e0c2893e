# SPDX-License-Identifier: Apache-2.0
"""A small but complete history of a pool, written by a broker that may lie: three makers, one run of two rounds, one release.

With ``eventful`` the contract has a life: a halt that all resume, an attestation, a key that is changed, an exit after the release.
With ``successor`` (``change`` or ``tighten``) another version takes effect between the rounds.

`PoolSim` is the broker with its log key and, for building, every member's key. A `tamper` function sees each event before it is
logged, by name, and may change it, drop it, or add others: members have signed and counted on by then, as in a real attack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from policies.contract import (
    Aggregate,
    Contract,
    Deliver,
    EpsilonAfter,
    Join,
    PlanFacts,
    Release,
    Request,
    TrainRound,
    decision_bytes,
    evaluate,
    from_tree,
    request_to_json,
    seal,
    state_to_json,
)
from policies.contract.amendment import judge_amendment
from policies.contract.lifecycle import begin, contract_state, exit_request, finalized, take
from policies.contract.lint import lint
from policies.contract.notices import Notice, seal_notice
from policies.encoding import canonical, digest, digest_of
from policies.identity import SigningKey, key_text
from policies.log.bundle import Contents, DecisionRecord, Disclosure, files_of, manifest_of, pack
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.entries import (
    EntryType,
    Event,
    alias,
    entry_body,
    from_envelope,
    private_values,
)
from policies.log.envelope import ChainState, Seen, open_envelope, seal_envelope
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import Policy, policy_text
from policies.log.proofs import receipt_text
from policies.ports import iso_s
from policies.privacy.accounting import epsilon_filter, epsilon_rdp, epsilon_text, filter_order, rho_step_nano
from policies.privacy.receipts import MadeWith
from policies.privacy.statement import PAYLOAD_TYPE as STATEMENT_TYPE
from policies.privacy.statement import Subject, Terms, build_statement, claim, statement_bytes
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

ORIGIN = "pool.example/log/sim"
START_MS = 1_796_500_000_000  # 2026-12-05
AGAIN_MS = START_MS + 3 * 86_400_000
RUN = "run_aaaaaaaaaaaaaaaa"
PARTIES = ("hanbit", "kita", "nord")
EVIDENCE = ("federated-evaluation", "log-root", "privacy-statement")
T = EntryType
_SAID = {"halt": T.CONTRACT_HALTED, "resume": T.CONTRACT_RESUMED, "exit": T.CONTRACT_EXITED}

PLAN: dict[str, Any] = {
    "schema": "iriai-dp-plan/1",
    "unit": "episode",
    "adjacency": "zero-out",
    "mechanism": "poisson-gaussian",
    "noise": "local-full",
    "honest_min": None,
    "sampling_prob": "0.2",
    "noise_multiplier": "6.2244",
    "clip_norm": "1",
    "steps": 200,
    "steps_per_round": 1,
    "normalizer": "200",
    "clipping": "flat",
    "strata_target": None,
    "frames_per_unit": 32,
    "delta": "0.00001",
    "test_only": False,
}
EVALUATION: dict[str, Any] = {
    "schema": "iriai-eval-plan/1",
    "unit": "episode",
    "adjacency": "zero-out",
    "delta": "0.00001",
    "loss_bound": "1",
    "noise_multiplier": "5",
    "normalizer": "50",
    "steps": 1,
}
RECIPE = canonical({"schema": "iriai-recipe/1", "rounds": 2, "plan": PLAN, "evaluation": EVALUATION})
FACTS = PlanFacts(
    mode="dp",
    unit="episode",
    adjacency="zero-out",
    delta="0.00001",
    noise="local-full",
    honest_min=None,
    filter="rdp-fixed-order",
)
DELTA = "0.00001"
ORDER = filter_order(epsilon_total="8", epsilon_per_release="2.1", delta=DELTA)
EPSILON = epsilon_text(epsilon_rdp(q=0.2, sigma=6.2244, steps=200, delta=1e-5))

Tamper = Callable[[str, Event], "Event | list[Event] | None"]


def seeded(text: str, size: int = 32) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)


def digest_from(text: str) -> str:
    return digest(text.encode())


def org_of(party: str) -> str:
    letters = "".join(chr(ord("a") + byte % 26) for byte in seeded("org" + party, 16))
    return "org_" + letters


@dataclass
class MakerSim:
    """A manufacturer's node."""

    party: str
    state: ChainState = field(init=False)
    rho: int = 0

    def __post_init__(self) -> None:
        self.key = SigningKey.from_seed(seeded("key" + self.party))
        self.alias_key = seeded("alias" + self.party)
        self.org = org_of(self.party)
        self.state = ChainState(chain=seeded("chain" + self.party, 8).hex())

    def alias(self, scope: str | None, run: str | None = None, number: int | None = None) -> str:
        return alias(self.alias_key, scope, run, number)


def honest(_name: str, event: Event) -> Event:
    return event


@dataclass
class PoolSim:
    """See the module docstring. `build` runs the whole story; `bundle` exports it."""

    tamper: Tamper = honest
    makers: dict[str, MakerSim] = field(default_factory=lambda: {name: MakerSim(name) for name in PARTIES})
    now_ms: int = START_MS
    bodies: list[bytes] = field(default_factory=list)
    envelopes: dict[int, Envelope] = field(default_factory=dict)
    decisions: list[DecisionRecord] = field(default_factory=list)
    disclosures: list[Disclosure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    statements: list[bytes] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    notices: list[Envelope] = field(default_factory=list)
    eventful: bool = False
    evidence: tuple[str, ...] = EVIDENCE
    recipe: bytes = RECIPE
    successor: str | None = None
    earlier: list[tuple[bytes, Envelope]] = field(default_factory=list)
    approvals: list[bytes] = field(default_factory=list)
    # of a story with other sums (`tests.sumsim`): terms of the aggregation clause, whom the broker refuses in
    # which round, and the attempt that a round is averaged in where it is not the first
    pooling: ClassVar[Mapping[str, Any]] = {}
    refused: ClassVar[tuple[int, str] | None] = (2, "hanbit")
    attempts: ClassVar[Mapping[int, int]] = {}

    def __post_init__(self) -> None:
        self.log_key = SigningKey.from_seed(seeded("log key"))
        self.broker_key = SigningKey.from_seed(seeded("broker key"))
        self.policy = Policy(logs=(VerifierKey(ORIGIN, self.log_key.public),), broker=self.broker_key.public)
        self.policy_copy = policy_text(self.policy)
        self.contract = self._contract()
        keys = [*(one.key for one in self.makers.values()), self.broker_key]
        self.signatures = seal(self.contract, *keys)
        self.life = begin(self.contract)
        self.salts = 0
        self.verdicts: list[bytes] = []

    def _contract(self) -> Contract:
        return from_tree(self._tree())

    def _tree(self) -> dict[str, Any]:
        def party(name: str, role: str, org: str, key: SigningKey) -> dict[str, Any]:
            return {
                "clause": f"party-{name}",
                "party": name,
                "org": org,
                "role": role,
                "group": name,
                "legal_name": name.title(),
                "country": "JP",
                "key": key_text(key.public),
            }

        return {
            "schema": "iriai-contract/1",
            "contract_id": "ctr_lkihp6tr36wod3m4",
            "version": 1,
            "title": "Pick pool",
            "language": "en",
            "sign_by": iso_s(START_MS + 86_400_000),
            "parties": [party(one.party, "contributor", one.org, one.key) for one in self.makers.values()]
            + [party("broker", "broker", org_of("broker"), self.broker_key)],
            "term": {
                "clause": "term-1",
                "effective": iso_s(START_MS + 86_400_000),
                "expires": iso_s(START_MS + 90 * 86_400_000),
            },
            "purposes": [{"clause": "purpose-1", "id": "improve-common-model", "text": "Train models."}],
            "recipes": [
                {
                    "clause": "recipe-1",
                    "id": "pick",
                    "purpose": "improve-common-model",
                    "recipe_digest": digest(self.recipe),
                    "max_rounds": 200,
                    "max_local_steps_per_round": 1,
                    "datasets": [{"party": name, "dataset": f"{name}/pick"} for name in PARTIES],
                }
            ],
            "fields": {"clause": "fields-1", "allow": ["tcp_pos", "goal_pos"], "personal_data": "none"},
            "privacy": {
                "clause": "dp-1",
                "mode": "dp",
                "unit": "episode",
                "adjacency": "zero-out",
                "delta": DELTA,
                "epsilon_per_release": "2.1",
                "epsilon_total": "8",
                "filter": "rdp-fixed-order",
                "noise": "local-full",
            },
            "aggregation": {
                "clause": "k-1",
                "min_parties": 2,
                "max_share": "0.60",
                "weights": "equal",
                "secure_aggregation": "off",
                "update_norm_max": "10",
                "delay_hours": 0,
                "differencing_guard": "off",
            }
            | dict(self.pooling),
            "tiers": [
                {
                    "clause": "tier-1",
                    "tier": "consortium",
                    "recipe": "pick",
                    "model": "pick",
                    "licence": "pool-1",
                }
            ],
            "release": {
                "clause": "release-1",
                "approvals": {"of": "contributors", "min": 2, "veto": []},
                "evidence": list(self.evidence),
            },
            "exit": {
                "clause": "exit-1",
                "notice_days": 30,
                "released_models": "keep",
                "unreleased_models": "leaver-chooses",
                "influence": "bounded-not-erased",
            },
            "amendment": {
                "clause": "amend-1",
                "change": "all-contributors",
                "tighten": "any-contributor",
                "key_rotation": "by-old-key-or-all",
            },
            "halt": {
                "clause": "halt-1",
                "who": ["any-contributor", "broker"],
                "effect": "no-new-round-no-release",
                "resume": "all-contributors",
            },
            "conflict": {"clause": "conflict-1", "rule": "prohibit-wins", "unknown": "refuse"},
        }

    # --- the log ---

    @property
    def tree(self) -> MemoryTree:
        return MemoryTree(leaf_hash(body) for body in self.bodies)

    def salt(self) -> bytes:
        self.salts += 1
        return seeded(f"salt {self.salts}", 16)

    def add(self, name: str, event: Event) -> int | None:
        """Logs an event, after the tamper function saw it; the index of the last one logged, or None."""
        changed = self.tamper(name, event)
        events = changed if isinstance(changed, list) else [] if changed is None else [changed]
        for one in events:
            index = len(self.bodies)
            self.append(one)
            self.names.setdefault(name, index)
            self.times.setdefault(name, iso_s(self.now_ms))
        return len(self.bodies) - 1 if events else None

    def append(self, event: Event, **changes: bytes) -> None:
        """Logs an event as it is."""
        index = len(self.bodies)
        values = private_values(event, self.now_ms)
        salts = {field_name: self.salt() for field_name in values}
        self.bodies.append(entry_body(event, log=ORIGIN, now_ms=self.now_ms, salts=salts))
        self.disclosures += [
            Disclosure(index=index, field=name, salt=salts[name], value=value)
            for name, value in values.items()
        ]
        if event.envelope is not None:
            self.envelopes[index] = event.envelope
        if event.type is T.DECISION_RECORDED and event.pub["decision"] in self.fit:
            request, state, salt = self.fit[event.pub["decision"]]
            self.decisions.append(
                DecisionRecord(
                    index=index, decision=event.pub["decision"], request=request, state=state, salt=salt
                )
            )

    def publish(self) -> str:
        """Signs and publishes a checkpoint of everything so far; time moves on."""
        tree = self.tree
        note = sign_checkpoint(self.log_key, Checkpoint(ORIGIN, tree.size, tree.root()))
        if not self.notes or self.notes[-1] != note:
            self.notes.append(note)
        self.now_ms += 20_000
        return note

    def refs(self, *indexes: int | None) -> tuple[int, ...]:
        return tuple(index for index in indexes if index is not None)

    def said(self, maker: MakerSim, kind: EntryType, body: Mapping[str, Any], **place: Any) -> Event:
        """The event of the maker's next envelope; the maker counts on at once, whatever the broker does with it."""
        tree = self.tree
        size = tree.size
        envelope = seal_envelope(
            maker.key,
            log=ORIGIN,
            kind=kind,
            chain=maker.state.chain,
            seq=maker.state.next_seq,
            prev=maker.state.prev,
            seen=Seen(size, tree.root()),
            time_ms=self.now_ms,
            nonce=seeded(f"nonce {maker.party} {maker.state.next_seq}", 16),
            scope=self.contract.digest,
            run=place.get("run"),
            round=place.get("round"),
            ack=None,
            body=body,
        )
        payload = open_envelope(envelope, maker.key.public)
        maker.state = maker.state.accept(payload)
        return from_envelope(
            envelope, payload, actor=maker.alias(self.contract.digest, place.get("run"), place.get("round"))
        )

    def by_broker(self, kind: EntryType, pub: Mapping[str, Any], **fields: Any) -> Event:
        return Event(type=kind, pub=dict(pub), scope=self.contract.digest, run=RUN, **fields)

    def decide(self, request: Request, point: str, **state_changes: Any) -> dict[str, Any]:
        """``pub`` of a decision; its record is kept."""
        state = replace(contract_state(self.contract, self.life, iso_s(self.now_ms)), **state_changes)
        decision = evaluate(self.contract, state, request)
        salt = self.salt()
        record = decision_bytes(
            decision,
            contract_digest=self.contract.digest,
            point=point,
            request=request,
            state=state,
            salt16=salt,
        )
        self.fit[digest(record)] = (request_to_json(request), state_to_json(state), salt)
        return {
            "point": point,
            "outcome": "allow" if decision.allow else "refuse",
            "clauses": list(decision.clauses),
            "decision": digest(record),
        }

    # --- the story ---

    def build(self) -> PoolSim:
        self.begin()
        self.found()
        run_opened = self.open_run()
        self.now_ms += 2 * 86_400_000
        base = self.initial()
        for number in (1, 2):
            base = self.round(number, base, run_opened)
            if number == 1 and self.eventful:
                self.interlude()
            if number == 1 and self.successor:
                self.succeed(self.successor)
        self.release(base)
        if self.eventful:
            self.say("hanbit", "exit", code="new-strategy", choice="discard")
        self.publish()
        return self

    def interlude(self) -> None:
        """Between the rounds nord halts, all resume; kita changes its key and attests its use."""
        halt = self.say("nord", "halt", code="cell.incident", clause="fields-1", text="a camera saw a face")
        for party in PARTIES:
            self.say(party, "resume", code="cause.removed", refers=halt.digest)
        self.say("kita", "attest", code="own-use", subject="use:inspection;country:JP")
        fresh = SigningKey.from_seed(seeded("second key of kita"))
        self.say("kita", "rotate", code="key-age", subject=key_text(fresh.public))
        self.publish()

    def succeed(self, kind: str) -> None:
        """kita starts a successor: looser for a change, tighter else; it takes effect with its term."""
        old, new = self.contract, from_tree(self.terms(kind))
        makers = list(self.makers.values()) if kind == "change" else [self.makers["kita"]]
        self.earlier.append((old.canonical, self.signatures))
        signatures = seal(new, *(one.key for one in makers), self.broker_key)
        pub = {"contract": new.digest, "version": 2, "supersedes": old.digest}
        self.add("proposed again", Event(type=T.CONTRACT_PROPOSED, scope=new.digest, pub=pub))
        for maker in makers:
            self.contract = new
            body = {"contract": new.digest, "party": maker.alias(new.digest)}
            self.add(f"signed again {maker.party}", self.said(maker, T.CONTRACT_SIGNED, body))
            self.contract = old
        if kind == "change":  # a tightening takes nobody of the broker
            self.approve("activate again", "contract.activate", {"contract": new.digest})
        pub = {"contract": new.digest, "signatures": digest(signatures.to_bytes()), "prose": None}
        self.add("finalized again", Event(type=T.CONTRACT_FINALIZED, scope=new.digest, pub=pub))
        self.verdicts = [self.judged(old, new, kind)]
        self.now_ms = max(self.now_ms, AGAIN_MS)
        joined = self.decide(self._join(new, kind, tuple(one.party for one in makers)), "broker")
        self.add("join decision", Event(type=T.DECISION_RECORDED, scope=old.digest, pub=joined))
        pub = {"old": old.digest, "new": new.digest, "kind": kind, "proof": digest(self.verdicts[0])}
        self.add("amended", Event(type=T.CONTRACT_AMENDED, scope=old.digest, pub=pub))
        self.contract, self.signatures = new, signatures
        self.life = begin(new, finalized_at=iso_s(self.now_ms))
        self.publish()

    def terms(self, kind: str) -> dict[str, Any]:
        """The successor's document."""
        tree = self._tree() | {"version": 2, "supersedes": self.contract.digest, "sign_by": iso_s(AGAIN_MS)}
        tree["term"] = tree["term"] | {"effective": iso_s(AGAIN_MS)}
        tree["recipes"][0]["max_rounds"] = 300 if kind == "change" else 150
        return tree

    def judged(self, old: Contract, new: Contract, kind: str) -> bytes:
        """The verdict about it."""
        return judge_amendment(old, new, kind=kind, initiator="kita").to_bytes()

    def _join(self, new: Contract, kind: str, signed: tuple[str, ...]) -> Join:
        return Join(
            party="kita",
            key=key_text(self.makers["kita"].key.public),
            stage="effect",
            kind=kind,
            supersedes=new.supersedes,
            version=new.version,
            no_looser=kind == "tighten",
            signers=(*signed, "broker"),
            newcomers=(),
            attestations=(),
            groups={one.party: one.group for one in new.contributors},
            keys={one.party: one.key for one in new.parties},
        )

    def say(self, party: str, kind: str, **terms: Any) -> Notice:
        """A notice of a party with its entry; the life goes on as the broker's does."""
        maker, contract = self.makers[party], self.contract
        notice = Notice(
            kind=kind,
            contract=contract.digest,
            party=party,
            seq=self.life.next_seq(party),
            at=iso_s(self.now_ms),
            **terms,
        )
        fresh = SigningKey.from_seed(seeded("second key of kita"))
        keys = (maker.key, fresh) if kind == "rotate" else (maker.key,)
        envelope = seal_notice(notice, *keys)
        self.notices.append(envelope)
        if kind == "exit":
            pub = self.decide(exit_request(contract, self.life, notice), "broker")
            self.add("exit decision", Event(type=T.DECISION_RECORDED, scope=contract.digest, pub=pub))
        self.life, _ = take(contract, self.life, envelope)
        if kind == "rotate":
            kids = {"old": digest(maker.key.public), "new": digest(fresh.public), "role": "node"}
            body = kids | {"vkey": key_text(fresh.public)}
            self.add(f"rotate {party}", self.said(maker, T.KEY_ROTATED, body))
            maker.key = fresh
        elif kind in _SAID:
            body = {"contract": contract.digest, "clause": notice.clause, "reason": notice.code}
            self.add(f"{kind} {party}", self.said(maker, _SAID[kind], body | {"notice": notice.digest}))
        return notice

    def approve(self, name: str, action: str, what: Mapping[str, Any], *, log: str = ORIGIN) -> None:
        """anna and ben approve what takes two; the document goes along in the bundle."""
        document = canonical(
            {"action": action, "log": log, "proposal": f"prop_{name}", "proposer": "anna", "what": dict(what)}
        )
        self.approvals.append(document)
        for operator in ("anna", "ben"):
            said = self.action(operator, name, action, subject=digest(document))
            self.add(f"{name} {operator}", said)

    def action(self, operator: str, about: str, action: str = "org.approve", **pub: Any) -> Event:
        """An operator's action; its request is of its own."""
        told = {"operator": operator, "action": action, "subject": digest_from(about), "result": "done"}
        told |= {"request": digest_from(f"{operator} {action} {about}")}
        return Event(type=T.CONSOLE_ACTION, pub=told | pub)

    def begin(self) -> None:
        genesis = {"software": "0.1.0", "policy": digest(self.policy_copy.encode()), "predecessor": None}
        self.add("genesis", Event(type=T.LOG_GENESIS, pub=genesis))
        for role, key in (("log", self.log_key), ("broker", self.broker_key)):
            pub = {"role": role, "alg": "ed25519", "kid": digest(key.public), "vkey": None}
            self.add(f"key {role}", Event(type=T.KEY_ADDED, pub=pub))
        for maker in self.makers.values():
            for operator in ("anna", "ben"):
                self.add(f"approve {maker.party} {operator}", self.action(operator, maker.party))
            self.add(
                f"onboard {maker.party}",
                Event(
                    type=T.ORG_ONBOARDED,
                    pub={
                        "org": maker.alias(None),
                        "evidence": digest_from(maker.party),
                        "approvers": ["anna", "ben"],
                    },
                    private={"org": maker.org},
                ),
            )
            pub = {"role": "node", "alg": "ed25519", "kid": digest(maker.key.public), "vkey": None}
            self.add(
                f"key {maker.party}",
                Event(type=T.KEY_ADDED, pub=pub, private={"key": key_text(maker.key.public)}),
            )
        self.publish()

    def found(self) -> None:
        contract = self.contract
        self.add(
            "proposed",
            Event(
                type=T.CONTRACT_PROPOSED,
                scope=contract.digest,
                pub={"contract": contract.digest, "version": 1, "supersedes": None},
            ),
        )
        for maker in self.makers.values():
            body: dict[str, Any] = {"contract": contract.digest, "party": maker.alias(contract.digest)}
            warnings = [one.id for one in lint(contract) if one.severity != "error"]
            body |= {"acknowledged": sorted(warnings)} if warnings else {}
            self.add(f"signed {maker.party}", self.said(maker, T.CONTRACT_SIGNED, body))
        signed = {
            "contract": contract.digest,
            "signatures": digest(self.signatures.to_bytes()),
            "prose": None,
        }
        self.approve("activate", "contract.activate", {"contract": contract.digest})
        self.add("finalized", Event(type=T.CONTRACT_FINALIZED, scope=contract.digest, pub=signed))
        self.life = finalized(self.life, iso_s(self.now_ms))
        self.publish()

    def open_run(self) -> int | None:
        opened = self.add(
            "run opened",
            self.by_broker(T.RUN_OPENED, {"recipe": digest(self.recipe), "contract": self.contract.digest}),
        )
        for maker in self.makers.values():
            for plan in (PLAN, EVALUATION):
                body = {
                    "unit": "episode",
                    "adjacency": "zero-out",
                    "delta": DELTA,
                    "alpha_star": ORDER,
                    "plan": digest_of(plan),
                    "lineage": f"lineage-{maker.party}",
                    "epsilon_max": "8",
                }
                name = f"budget {maker.party} {plan['schema']}"
                self.add(name, self.said(maker, T.BUDGET_OPENED, body, run=RUN))
        self.publish()
        return opened

    def spend(self, maker: MakerSim, mechanism: str, plan: dict[str, Any], number: int | None) -> Event:
        q, sigma = float(plan.get("sampling_prob", 1)), float(plan["noise_multiplier"])
        cost = rho_step_nano(q=q, sigma=sigma, order=ORDER)
        maker.rho += cost
        body = {
            "mechanism": mechanism,
            "plan": digest_of(plan),
            "steps": 1,
            "lineage": f"lineage-{maker.party}",
            "rho_nano": cost,
            "epsilon_after": epsilon_text(epsilon_filter(rho_nano=maker.rho, delta=1e-5, order=ORDER)),
        }
        return self.said(maker, T.EPSILON_SPENT, body, run=RUN, round=number)

    def round(self, number: int, base: str, run_opened: int | None) -> str:
        """One round; in the second, the broker refuses hanbit's update."""
        for party in PARTIES:
            pub = self.decide(self._train(party, number), "broker")
            self.add(f"asked {party} {number}", self.by_broker(T.DECISION_RECORDED, pub, round=number))
        opened = self._open(f"round {number} opened", number, base, run_opened)
        used: list[int | None] = []
        parties: dict[str, Any] = {}
        survivors = []
        for maker in self.makers.values():
            submitted, spent = self._reply(maker, number)
            accepted = (number, maker.party) != self.refused
            verdict = self._verdict(maker, number, submitted, accepted=accepted)
            word = "accepted" if accepted else "refused"
            parties[maker.alias(self.contract.digest, RUN, number)] = {"received": 1, "verdict": word}
            if accepted:
                used += [submitted, spent, verdict]
                survivors.append(maker.party)
        model = self.made(number)
        decided = self.add(
            f"aggregate decision {number}",
            self.by_broker(
                T.DECISION_RECORDED, self.decide(self._aggregate(number, survivors), "broker"), round=number
            ),
        )
        aggregate = {
            "aggregate": self.averaged(number),
            "model": model,
            "attempt": self.attempts.get(number, 1),
            "count": len(survivors),
            "transcript": self.transcript(number),
        }
        released = self.add(
            f"aggregate {number}",
            self.by_broker(
                T.AGGREGATE_RELEASED, aggregate, round=number, refs=self.refs(opened, decided, *used)
            ),
        )
        closed = {
            "attempt": self.attempts.get(number, 1),
            "received": len(PARTIES),
            "accepted": len(survivors),
            "refused": len(PARTIES) - len(survivors),
            "withdrawn": 0,
            "parties": parties,
            "outcome": "aggregated",
        }
        self.add(
            f"round {number} closed",
            self.by_broker(T.ROUND_CLOSED, closed, round=number, refs=self.refs(opened, released)),
        )
        self.publish()
        return model

    def _open(
        self, name: str, number: int, base: str, run_opened: int | None, attempt: int | None = None
    ) -> int | None:
        pub = {
            "recipe": digest(self.recipe),
            "plan": digest_of(PLAN),
            "base_model": base,
            "deadline": iso_s(self.now_ms + 3_600_000)[:-3] + "00Z",
            "cohort": len(PARTIES),
            "attempt": attempt or self.attempts.get(number, 1),
        }
        refs = self.refs(run_opened)
        opened = self.add(name, self.by_broker(T.ROUND_OPENED, pub, round=number, refs=refs))
        self.publish()
        return opened

    def initial(self) -> str:
        """Digest of the model that the run begins with."""
        return digest_from("initial")

    def made(self, number: int) -> str:
        """Digest of a round's model."""
        return digest_from(f"model {number}")

    def candidate(self) -> str:
        """Digest of what is judged and released in the end."""
        return digest_from("average 2")

    def beside(self, _number: int) -> dict[str, Any]:
        """What else a maker says in its submission of a round."""
        return {}

    def averaged(self, number: int) -> str:
        """Digest of a round's sum or average."""
        return digest_from(f"aggregate {number}")

    def sent(self, maker: MakerSim, number: int) -> str:
        """Digest of what a maker sends first in a round."""
        return digest_from(f"{maker.party} {number}")

    def transcript(self, _number: int) -> str | None:
        """Digest of the transcript of a round's sum; None where updates come one by one."""
        return None

    def _reply(self, maker: MakerSim, number: int) -> tuple[int | None, int | None]:
        place = {"run": RUN, "round": number}
        name = f"{maker.party} {number}"
        decision = self.decide(self._train(maker.party, number), "node")
        self.add(f"decision {name}", self.said(maker, T.DECISION_RECORDED, decision, **place))
        spent = self.add(f"spent {name}", self.spend(maker, f"{RUN}/{number}/1", PLAN, number))
        receipt = MadeWith(engine="loop").receipt(
            steps_total=number, ledger_head=digest_from(f"ledger {name}")
        )
        body = {"update": self.sent(maker, number), "plan": digest_of(PLAN), "steps": 1, "attempt": 1}
        body |= {"receipt": receipt, **self.beside(number)}
        submitted = self.add(f"submission {name}", self.said(maker, T.SUBMISSION_RECEIVED, body, **place))
        return submitted, spent

    def _verdict(self, maker: MakerSim, number: int, submitted: int | None, *, accepted: bool) -> int | None:
        refs = self.refs(submitted)
        name = f"verdict {maker.party} {number}"
        if accepted:
            return self.add(name, self.by_broker(T.CONTRIBUTION_ACCEPTED, {}, round=number, refs=refs))
        return self.add(
            name,
            self.by_broker(
                T.CONTRIBUTION_REFUSED,
                {"reason": "update.norm", "clause": None},
                round=number,
                refs=refs,
                private={"need": "at most 10", "got": "11.25"},
            ),
        )

    def _train(self, party: str, number: int) -> TrainRound:
        return TrainRound(
            party=party,
            key=key_text(self.makers[party].key.public),
            recipe_digest=digest(self.recipe),
            purpose="improve-common-model",
            dataset=f"{party}/pick",
            fields=("tcp_pos",),
            round=number,
            local_steps=1,
            cohort=PARTIES,
            privacy=FACTS,
            epsilon_after_release=EPSILON,
            epsilon_after_total="4.5",
            secure_aggregation=self.contract.aggregation.secure_aggregation,
            group_mac=self.contract.aggregation.group_mac,
            reply_slot_ms=0,
            **self.start(),
        )

    def start(self) -> dict[str, Any]:
        """Facts about what the recipe starts from."""
        return {"seed_set": "none", "seed_consents": ()}

    def _aggregate(self, number: int, survivors: list[str]) -> Aggregate:
        return Aggregate(
            party="broker",
            key=key_text(self.broker_key.public),
            recipe_digest=digest(self.recipe),
            purpose="improve-common-model",
            round=number,
            survivors=tuple(survivors),
            weights=dict.fromkeys(survivors, "1"),
            norm_bound="10",
            norms_within=True,
            finite=True,
            privacy=FACTS,
            secure_aggregation=self.contract.aggregation.secure_aggregation,
            validation=None,
            rejected_rounds=None,
            log_origin=ORIGIN,
        )

    def release(self, _last: str) -> None:
        candidate = self.candidate()
        heard = []
        for maker in self.makers.values():
            mechanism = f"{RUN}/eval/{candidate.removeprefix('sha256:')}"
            self.add(f"spent {maker.party} eval", self.spend(maker, mechanism, EVALUATION, None))
            body = {"candidate": candidate, "evaluation": digest_of(EVALUATION)}
            said = self.said(maker, T.EVALUATION_RECEIVED, body, run=RUN)
            heard.append(self.add(f"evaluation {maker.party}", said))
            vote = {"subject": candidate, "vote": "approve", "clause": None}
            self.add(f"vote {maker.party}", self.said(maker, T.VOTE_CAST, vote, run=RUN))
        report = canonical(self.report(candidate))
        checked = {
            "candidate": candidate,
            "checks": self.checks(),
            "report": digest(report),
        }
        evaluated = self.add(
            "candidate",
            self.by_broker(
                T.CANDIDATE_EVALUATED, checked, refs=self.refs(self.names.get("aggregate 2"), *heard)
            ),
        )
        decided = self.add(
            "release decision",
            self.by_broker(T.DECISION_RECORDED, self.decide(self._release(candidate), "gate")),
        )
        self.statements = [self.statement(candidate), report]
        pub = {
            "model": candidate,
            "tier": "consortium",
            "clause": "tier-1",
            "statement": digest(self.statements[0]),
        }
        released = self.add(
            "released", self.by_broker(T.MODEL_RELEASED, pub, refs=self.refs(evaluated, decided))
        )
        delivery = self.add(
            "deliver decision",
            self.by_broker(T.DECISION_RECORDED, self.decide(self._deliver(candidate, "kita"), "gate")),
        )
        export = {
            "model": candidate,
            "recipient": self.makers["kita"].alias(self.contract.digest, RUN),
            "tier": "consortium",
            "attestation": said.notice if (said := self.life.attested.get("kita")) else None,
            "request": digest_from("pull"),
        }
        self.add("exported", self.by_broker(T.MODEL_EXPORTED, export, refs=self.refs(released, delivery)))
        self.add("run closed", self.by_broker(T.RUN_CLOSED, {"final_round": 2, "outcome": "completed"}))

    def checks(self) -> dict[str, str]:
        """Outcomes of the candidate's evaluation."""
        return {"federated-evaluation": "pass"}

    def report(self, candidate: str, **changes: Any) -> dict[str, Any]:
        """The evaluation report; ``changes`` replace fields of it."""
        makers = self.makers.values()
        return {
            "schema": "iriai-evaluation-report/1",
            "candidate": candidate,
            "run": RUN,
            "contract": self.contract.digest,
            "recipe": digest(self.recipe),
            "plan": digest_of(EVALUATION),
            "evaluations": {one.alias(self.contract.digest, RUN): digest_of(EVALUATION) for one in makers},
            "min_parties": 2,
            "passed": True,
        } | changes

    def claim_terms(self) -> Terms:
        """What else the statement's claims depend on."""
        return Terms(reply_slot_ms=self.contract.privacy.reply_slot_ms or 0)

    def statement(self, candidate: str, **changes: Any) -> bytes:
        """The signed privacy statement; ``changes`` replace what is told of its subject or claims."""
        told = {
            "subject": Subject(
                run=RUN, model=candidate, contract=self.contract.digest, recipe=digest(self.recipe)
            ),
            "claims": [
                claim(maker.alias(self.contract.digest, RUN), PLAN, epsilon_pld="1.834000")
                for maker in self.makers.values()
            ],
            "evaluation": EVALUATION,
            "votes": votes_plan(self.contract.validation, EVALUATION),
            "terms": self.claim_terms(),
        }
        about = {
            name: changes.pop(name) for name in ("run", "model", "contract", "recipe") if name in changes
        }
        told["subject"] = replace(told["subject"], **about)
        document = build_statement(**(told | changes))
        return Envelope.seal(statement_bytes(document), STATEMENT_TYPE, self.broker_key).to_bytes()

    def _release(self, candidate: str) -> Release:
        return Release(
            party="broker",
            key=key_text(self.broker_key.public),
            model=candidate,
            recipe_digest=digest(self.recipe),
            tier="consortium",
            cohort=PARTIES,
            weights=dict.fromkeys(PARTIES, "1"),
            epsilon_after=dict.fromkeys(PARTIES, EpsilonAfter(release=EPSILON, total="4.5")),
            evidence=self.evidence,
            approvals=PARTIES,
            vetoes=(),
            privacy=FACTS,
            made_at=self.times.get("aggregate 2"),
            validation=dict.fromkeys(PARTIES, True),
            mia_auc=None,
            property_skill=None,
            canaries_fired=None,
            earlier_cohorts=(),
            log_origin=ORIGIN,
            witnesses=0,
        )

    def _deliver(self, candidate: str, party: str) -> Deliver:
        return Deliver(
            party=party,
            key=key_text(self.makers[party].key.public),
            model=candidate,
            recipe_digest=digest(self.recipe),
            tier="consortium",
            released=True,
            released_at=self.times.get("released"),
            made_at=self.times.get("aggregate 2"),
            country="JP",
            attestation=said.notice if (said := self.life.attested.get(party)) else "none",
            contribution_share=None,
        )

    # --- what leaves ---

    def receipt(self, index: int) -> str:
        """A receipt for an entry at the newest checkpoint."""
        tree = self.tree
        note = sign_checkpoint(self.log_key, Checkpoint(ORIGIN, tree.size, tree.root()))
        return receipt_text(index=index, proof=tree.inclusion(index), note=note)

    def contents(self, **changes: Any) -> Contents:
        receipts = {
            self.names[name]: self.receipt(self.names[name]) for name in _RECEIPTED if name in self.names
        }
        contents = Contents(
            origin=ORIGIN,
            note=self.notes[-1],
            notes=list(self.notes),
            policy=self.policy_copy,
            software="0.1.0",
            bodies=list(self.bodies),
            envelopes=dict(self.envelopes),
            aliases={maker.org: maker.alias_key for maker in self.makers.values()},
            contracts=[*self.earlier, (self.contract.canonical, self.signatures)],
            annexes=[self.recipe],
            approvals=list(self.approvals),
            notices=list(self.notices),
            decisions=list(self.decisions),
            disclosures=list(self.disclosures),
            receipts=receipts,
            statements=[*self.statements, *self.verdicts],
        )
        return replace(contents, **changes)

    def bundle(self, **changes: Any) -> bytes:
        return pack(files_of(self.contents(**changes)))


_RECEIPTED = ("submission kita 1", "submission nord 2")


def repacked(files: Mapping[str, bytes]) -> bytes:
    """A bundle of these files with everything that only guards the transfer made to fit again."""
    made = dict(files)
    made["MANIFEST"] = manifest_of(made)
    return pack(made)
