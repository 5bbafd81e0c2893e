# SPDX-License-Identifier: Apache-2.0
"""The pool's history with everybody who watches it: witnesses, an auditor, grants, an erasure, a conclusion.

`WatchedSim` is `PoolSim` with four voters, of whom three are enough: the makers and the auditor. Each published
checkpoint is cosigned by all of them, one second later. The contract asks for that quorum. After each round its
makers acknowledge how it was closed. Behind the run the broker grants the auditor fields, discloses some, erases
a value, closes an incident and states a settlement; then the auditor concludes about what there was until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.contract import Release
from policies.encoding import canonical, digest
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import Checkpoint, parse_note, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.envelope import ChainState, Seen, open_envelope, seal_envelope
from policies.log.merkle import MemoryTree
from policies.log.policy import policy_text, pool_policy
from policies.log.proofs import receipt_text
from policies.log.witness_keys import seal_statement, witness_name
from policies.ports import iso_minute
from policies.signing import Envelope
from tests.auditsim import ORIGIN, RUN, MakerSim, PoolSim, digest_from, seeded

T = EntryType
AUDITOR = "audit-house"
GRANT = "grant_aaaaaaaaaaaaaaaa"
DAY_MS = 86_400_000


@dataclass
class WatchedSim(PoolSim):
    """See the module docstring. ``absent`` says who does not cosign a size; ``late_s`` by how much somebody's clock is off."""

    absent: Mapping[str, Iterable[int]] = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=dict)
    ml_dsa: str = "off"
    incentives: dict[str, Any] | None = None
    concluded: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.auditor_key = SigningKey.from_seed(seeded("auditor"))
        self.auditor_chain = ChainState(chain=seeded("chain auditor", 8).hex())
        owners = {name: one.org for name, one in self.makers.items()} | {AUDITOR: AUDITOR}
        self.owners = owners
        self.witness_keys = {name: SigningKey.from_seed(seeded("witness" + name)) for name in owners}
        vkeys = {
            name: cosigner_vkey(key, witness_name(owners[name])) for name, key in self.witness_keys.items()
        }
        self.vkeys = vkeys
        self.first_policy = self.policy_copy  # named by the genesis
        self.policy = pool_policy(
            logs=self.policy.logs,
            broker=self.policy.broker,
            witnesses={name: (vkey,) for name, vkey in vkeys.items()},
        )

    def _tree(self) -> dict[str, Any]:
        audit = {
            "clause": "audit-1",
            "who": ["auditor", "contributors"],
            "access": "log-proofs",
            "log_origin": ORIGIN,
            "witness_quorum": 3,
            "ml_dsa": self.ml_dsa,
            "notice_days": 10,
            "raw_data": "never",
        }
        return super()._tree() | {"audit": audit, "incentives": self.incentives}

    def _release(self, candidate: str) -> Release:
        return replace(super()._release(candidate), witnesses=3)

    # --- who watches ---

    def begin(self) -> None:
        super().begin()
        self.add("auditor action", self.action("anna", "auditor", "auditor.add"))
        pub = {"role": "auditor", "alg": "ed25519", "kid": digest(self.auditor_key.public), "vkey": None}
        told = {"key": key_text(self.auditor_key.public)}
        self.add("key auditor", Event(type=T.KEY_ADDED, pub=pub, private=told))
        previous = digest(self.first_policy.encode())
        for number, name in enumerate(self.owners, start=1):
            if name not in self.makers:
                about = {"witness": self.vkeys[name].name, "vkey": self.vkeys[name].text()}
                about |= {"owner": name, "owner_key": key_text(self.auditor_key.public)}
                self.approve(f"vote {name}", "witness.add", about)
            text = policy_text(self.policy) if number == len(self.owners) else f"policy {number}"
            self.add(f"witness {name}", self.witness_event(T.WITNESS_ADDED, name, digest(text.encode())))
            pub = {"kind": "trust", "digest": digest(text.encode()), "previous": previous}
            self.add(f"policy {name}", Event(type=T.POLICY_ACTIVATED, pub=pub))
            previous = pub["digest"]
        self.policy_copy = policy_text(self.policy)
        self.publish()

    def witness_event(self, kind: EntryType, name: str, policy: str) -> Event:
        shown = self.makers[name].alias(None) if name in self.makers else seeded("auditor alias", 8).hex()
        pub = {
            "witness": self.vkeys[name].name,
            "vkey": self.vkeys[name].text(),
            "org": shown,
            "policy": policy,
        }
        return Event(type=kind, pub=pub)

    def cosigned(self, note: str, *, at_ms: int | None = None, by: Iterable[str] | None = None) -> str:
        """The note with the lines of those who are there."""
        size = int(note.split("\n")[1])
        there = (
            [one for one in self.owners if size not in self.absent.get(one, ())] if by is None else list(by)
        )
        at_s = (self.now_ms if at_ms is None else at_ms) // 1000 + 1
        text = parse_note(note).text
        lines = [
            cosign(
                self.witness_keys[one],
                name=self.vkeys[one].name,
                text=text,
                time_s=at_s + self.clocks.get(one, 0),
            )
            for one in there
        ]
        return merge(note, lines)

    def signed(self) -> str:
        """The log's own note of everything so far."""
        tree = self.tree
        return sign_checkpoint(self.log_key, Checkpoint(ORIGIN, tree.size, tree.root()))

    def publish(self) -> str:
        note = self.cosigned(self.signed())
        if not self.notes or parse_note(self.notes[-1]).text != parse_note(note).text:
            self.notes.append(note)
        self.now_ms += 20_000
        return note

    def statement_of(self, name: str, key: SigningKey | None = None) -> Envelope:
        """In which a witness's owner names its key."""
        signer = key or (self.makers[name].key if name in self.makers else self.auditor_key)
        return seal_statement(
            signer,
            witness=self.witness_keys[name],
            log=ORIGIN,
            org=self.owners[name],
            vkey=self.vkeys[name].text(),
            time_ms=self.now_ms,
        )

    def witnessed_receipt(self, index: int, *, by: Iterable[str] | None = None) -> str:
        """A receipt at the newest published checkpoint, with cosignatures."""
        tree = self.tree
        size = int(self.notes[-1].split("\n")[1])
        note = self.notes[-1] if by is None else self.cosigned(self.signed(), by=by)
        proof = MemoryTree(tree.leaf(at) for at in range(size)).inclusion(index)
        return receipt_text(index=index, proof=proof, note=note)

    # --- what they watch ---

    def ack(self, maker: MakerSim, number: int, **changes: Any) -> Event:
        """A maker's word about a closed round."""
        closed = self.names[f"round {number} closed"]
        told = {"closed": closed, "leaf": "sha256:" + self.tree.leaf(closed).hex(), "count": 1}
        return self.said(maker, T.ROUND_ACK, told | changes, run=RUN, round=number)

    def round(self, number: int, base: str, run_opened: int | None) -> str:
        model = super().round(number, base, run_opened)
        for maker in self.makers.values():
            self.add(f"ack {maker.party} {number}", self.ack(maker, number))
        self.publish()
        return model

    def release(self, last: str) -> None:
        super().release(last)
        self.publish()
        self.watch()
        self.publish()
        self.conclude("clean")

    def by_operator(self, name: str, action: str, kind: EntryType, pub: Mapping[str, Any]) -> None:
        """An entry that an operator ordered, behind the action."""
        request = digest_from(f"request {name}")
        self.add(f"{name} action", self.action("anna", name, action, request=request))
        self.add(name, Event(type=kind, pub=dict(pub) | {"request": request}))

    def grant_pub(self, **changes: Any) -> dict[str, Any]:
        return {
            "grantee": AUDITOR,
            "resource": "confidential",
            "grant": GRANT,
            "fields": ["at", "got", "need"],
            "from_index": 0,
            "until": iso_minute(self.now_ms + 10 * DAY_MS),
        } | changes

    def watch(self) -> None:
        """Access, erasure, incident and settlement."""
        self.by_operator("grant", "audit.grant", T.ACCESS_GRANTED, self.grant_pub())
        use = {"grantee": AUDITOR, "resource": "confidential", "grant": GRANT, "request": digest_from("use")}
        self.add("used", Event(type=T.ACCESS_USED, pub=use))
        shown = [self.names["verdict hanbit 2"], self.names["round 1 closed"]]
        pub = {"indexes": sorted(shown), "fields": ["at", "got"], "grantee": AUDITOR, "grant": GRANT}
        self.add("disclosed", Event(type=T.DISCLOSURE_MADE, pub=pub))
        erased = {"indexes": [self.names["verdict hanbit 2"]], "fields": ["got"], "reason": "asked"}
        self.by_operator("erasure", "audit.erase", T.ERASURE_PERFORMED, erased)
        about = {"kind": "outage", "evidence": digest_from("outage")}
        self.add("incident", Event(type=T.INCIDENT_DECLARED, pub=about))
        self.add("close action", self.action("anna", "outage", "incident.close"))
        self.add("incident closed", Event(type=T.INCIDENT_CLOSED, pub=about))
        bundle = digest_from("a bundle")
        self.add("export action", self.action("anna", "a bundle", "audit.bundle"))
        pub = {"from_size": 0, "to_size": len(self.bodies), "grade": "auditor", "bundle": bundle}
        self.add("export", Event(type=T.EXPORT_AUDIT_BUNDLE, pub=pub))
        if self.incentives is not None:
            self.add("settlement", self.settlement(self.shares()))

    def shares(self) -> dict[str, str]:
        scope = self.contract.digest
        cut = {"hanbit": "0.25", "kita": "0.375", "nord": "0.375"}
        if self.incentives is not None and self.incentives["method"] == "flat":
            cut = {"hanbit": "0.333333", "kita": "0.333333", "nord": "0.333334"}
        return {one.alias(scope): cut[one.party] for one in self.makers.values()}

    def settlement(self, shares: Any, method: str | None = None) -> Event:
        assert self.incentives is not None
        pub = {
            "period": "q1",
            "method": method or self.incentives["method"],
            "statement": digest(canonical(shares)),
        }
        scope = self.contract.digest
        return Event(type=T.SETTLEMENT_STATED, scope=scope, pub=pub, private={"shares": shares})

    def conclude(self, conclusion: str) -> None:
        """The auditor's signed conclusion about the newest published checkpoint."""
        note = self.concluded = self.notes[-1]
        size = int(note.split("\n")[1])
        body = {
            "report": digest_from("report"),
            "checkpoint": digest(note.encode()),
            "conclusion": conclusion,
        }
        envelope = seal_envelope(
            self.auditor_key,
            log=ORIGIN,
            kind=T.AUDIT_CONCLUDED,
            chain=self.auditor_chain.chain,
            seq=self.auditor_chain.next_seq,
            prev=self.auditor_chain.prev,
            seen=Seen(size, self.tree.root(size)),
            time_ms=self.now_ms,
            nonce=seeded("nonce auditor", 16),
            scope=None,
            run=None,
            round=None,
            ack=None,
            body=body,
        )
        payload = open_envelope(envelope, self.auditor_key.public)
        self.auditor_chain = self.auditor_chain.accept(payload)
        self.add("concluded", from_envelope(envelope, payload, actor="auditor"))

    # --- what leaves ---

    def contents(self, **changes: Any) -> Any:
        erased = (self.names.get("verdict hanbit 2"), "got")
        gone = "erasure" in self.names
        kept = [one for one in self.disclosures if not gone or (one.index, one.field) != erased]
        stated = [self.statement_of(one) for one in self.owners]
        return super().contents(**({"disclosures": kept, "witnesses": stated} | changes))

    def options(self, **changes: Any) -> dict[str, Any]:
        """With everything that an auditor may bring."""
        receipts = {
            "kita.tlog-proof": self.witnessed_receipt(self.names["vote kita"]),
            "nord.tlog-proof": self.receipt(self.names["vote nord"]),
        }
        return {"receipts": receipts, "since": self.concluded, "as_of_ms": self.now_ms} | changes
