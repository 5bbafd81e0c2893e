# SPDX-License-Identifier: Apache-2.0
"""The attack table of the log: a broker with all its keys rewrites and signs again, and who finds it by what.

Each attack runs twice: the four witnesses are honest, and all of them collude. What is not caught is said to
be not caught: the verdict then claims no more than its size, and the last column says what would have told,
and is run too. The table::

    python -m pytest tests/attack/test_log_rewritten.py -q -s -k table

Lies told while the history is made (``live``) are consistent for every witness: it cosigns them, and what
catches them is what members signed. Attacks on the running broker have their own tests; the table names them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from policies.encoding import canonical
from policies.identity import SigningKey
from policies.log.checkpoint import parse_note
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.entries import EntryType, Event, commitment, from_envelope
from policies.log.envelope import open_envelope
from policies.log.equivocation import parse_evidence, prove
from policies.log.errors import PolicyError, ProofError
from policies.log.merkle import MemoryTree, leaf_hash, node_hash, verify_inclusion
from policies.log.policy import parse_policy, policy_text, pool_policy
from policies.log.proofs import receipt_text
from policies.log.witness import Cosign, Refuse
from policies.log.witness_keys import witness_name
from policies.verify import Report, verify
from policies.verify.rules import RULES
from tests.auditsim import MakerSim, PoolSim, digest_from, seeded
from tests.rewritingbroker import VERSION, Rewriter, Shown, cosigned_at, kept, watchers
from tests.watchedsim import DAY_MS, WatchedSim

T = EntryType
ROOT = Path(__file__).parents[2]
HOUR_MS = 3_600_000
BY = {
    "AUD-012": "no quorum",
    "AUD-015": "--since",
    "AUD-016": "receipt",
    "AUD-017": "--as-of",
    "AUD-020": "root",
    "AUD-030": "strict bytes",
    "AUD-041": "member's signature",
    "AUD-042": "member's envelope",
    "AUD-043": "member's numbers",
    "AUD-045": "what members had seen",
    "AUD-048": "counted twice",
    "AUD-060": "spent twice",
    "AUD-061": "no spend",
    "AUD-062": "cost recomputed from the plan",
    "AUD-090": "time goes back",
    "AUD-092": "witness's time goes back",
    "AUD-100": "two signed notes",
}


@functools.cache
def true_history() -> WatchedSim:
    return WatchedSim().build()


def witnesses_said(shown: Shown) -> str:
    told = " ".join(f"{status}" for status in sorted(shown.refusals))
    return f"witnesses refuse ({told})" + (", equivocation.proof" if shown.proven() else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack, run by ``case`` with witnesses that collude or not.

    Attributes:
        attack: In words.
        case: What the auditor is shown.
        honest: Rules that must find it while witnesses are honest; none: nothing does.
        colluding: The same, with all witnesses on the broker's side.
        closes: What else finds it: the auditor's further inputs, and the rule.
        honest_closes: What else besides, if witnesses are honest.
        why: It is not caught without them.
    """

    attack: str
    case: Callable[[bool], Shown]
    honest: str
    colluding: str
    closes: Mapping[str, str] = field(default_factory=dict)
    honest_closes: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    @functools.cached_property
    def cells(self) -> tuple[str, str]:
        return self._cell(self.honest, collude=False), self._cell(self.colluding, collude=True)

    def _cell(self, rules: str, *, collude: bool) -> str:
        shown = self.case(collude)
        text = self._judged(shown, shown.audit(), rules.split())
        if shown.refusals:
            text = f"{witnesses_said(shown)}; {text}"
        if rules and not self.closes:
            return text
        closes = dict(self.closes) | ({} if collude else dict(self.honest_closes))
        found = [self._closed(shown, name, rule) for name, rule in closes.items()]
        return f"{text}; found with {', '.join(found)}"

    def _judged(self, shown: Shown, report: Report, rules: list[str]) -> str:
        assert set(rules) <= set(report.counts), (self.attack, report.lines())
        if rules:
            assert report.exit_code == (6 if "AUD-012" in rules else 3), report.lines()
            return ", ".join(f"{rule} {BY[rule]}" for rule in rules)
        severities = {RULES[one].severity for one in report.counts}
        size = int(shown.notes[-1].split("\n")[1])
        assert "error" not in severities, (self.attack, report.lines())
        assert report.verdict.startswith(f"complete up to size {size},"), report.verdict
        assert any(one.startswith("AUD-015") for one in report.unchecked)
        assert any(one.startswith("AUD-016") for one in report.unchecked)
        return f"NOT CAUGHT ({self.why}); verdict: {report.verdict.partition(' (')[0]}"

    def _closed(self, shown: Shown, name: str, rule: str) -> str:
        report = shown.audit(**OPTIONS[name](shown))
        assert rule in report.counts, (self.attack, name, report.lines())
        return f"{name} {rule}"


OPTIONS: dict[str, Callable[[Shown], dict[str, Any]]] = {
    "--since": lambda _: {"since": true_history().concluded},
    "a member's receipt": lambda _: {"receipts": kept(true_history())},
    "a receipt of the other view": lambda _: {"receipts": kept(other_world(), "vote hanbit")},
    "--as-of": lambda shown: {"as_of_ms": shown.sim.now_ms + 3 * DAY_MS},
}
ROWS: list[Row] = []
SPECIAL: dict[str, Callable[[], tuple[str, str]]] = {}
ELSEWHERE: dict[str, tuple[str, str, tuple[str, ...]]] = {}


def row(attack: str, **told: Any) -> Callable[[Callable[[bool], Shown]], Callable[[bool], Shown]]:
    def register(case: Callable[[bool], Shown]) -> Callable[[bool], Shown]:
        ROWS.append(Row(attack=attack, case=case, **told))
        return case

    return register


def special(attack: str) -> Callable[[Callable[[], tuple[str, str]]], Callable[[], tuple[str, str]]]:
    """A row of another form: the function asserts what the two cells say."""

    def register(case: Callable[[], tuple[str, str]]) -> Callable[[], tuple[str, str]]:
        SPECIAL[attack] = functools.cache(case)
        return case

    return register


def rewritten(
    change: Callable[[Rewriter], object], *, collude: bool, resign: bool = True, late_s: int = 0
) -> Shown:
    lie = Rewriter(true_history())
    change(lie)
    return lie.told(collude=collude, resign=resign, late_s=late_s)


def live(sim: WatchedSim, **changes: Any) -> Shown:
    """A history that was a lie from the start; every witness cosigned it, honest or not."""
    sim.build()
    return Shown(sim.bundle(version=VERSION, **changes), sim.policy, sim, sim.tree, sim.notes)


# --- split view ---


@dataclass
class SplitSim(WatchedSim):
    """hanbit, and with it the auditor's witness, are shown another reason of its refusal."""

    collude: bool = False
    eyes: str | None = None
    AWAY = ("hanbit", "audit-house")

    @property
    def tree(self) -> MemoryTree:
        bodies, at = list(self.bodies), self.names.get("verdict hanbit 2")
        if self.eyes in self.AWAY and at is not None:
            told = json.loads(bodies[at])
            told["pub"]["reason"] = "update.shape"
            bodies[at] = canonical(told)
        return MemoryTree(leaf_hash(body) for body in bodies)

    def said(self, maker: MakerSim, *args: Any, **place: Any) -> Event:
        self.eyes = maker.party
        try:
            return super().said(maker, *args, **place)
        finally:
            self.eyes = None

    def publish(self) -> str:
        """Each witness is offered its own view; a line under the other head does not fit this one."""
        note, at_s = self.signed(), self.now_ms // 1000 + 1
        if not self.notes:
            self.voters = watchers(self)
        for name, one in self.voters.items():
            self.eyes = name
            theirs = self.signed()
            verdict = one.offered(theirs, self.tree, at_s)
            self.eyes = None
            if self.collude:
                note = merge(note, [one.colludes(note, at_s)])
            elif parse_note(theirs).text == parse_note(note).text and isinstance(verdict, Cosign):
                note = merge(note, [verdict.line])
        if not self.notes or parse_note(self.notes[-1]).text != parse_note(note).text:
            self.notes.append(note)
        self.now_ms += 20_000
        return note


@row("split view: members are shown two histories, 2/2", honest="AUD-012 AUD-045", colluding="AUD-045")
def split_view(collude: bool) -> Shown:
    return live(SplitSim(collude=collude))


@row(
    "split view, and every auditor is shown one side only, without the other's envelopes",
    honest="AUD-012",
    colluding="",
    why="each side is whole",
    closes={"a receipt of the other view": "AUD-100"},
)
def two_worlds(collude: bool) -> Shown:
    left = WatchedSim()
    shown = live(left)
    if collude:
        return shown
    two = left.cosigned(left.signed(), by=("kita", "nord"))
    return replace(shown, bundle=left.bundle(version=VERSION, note=two, notes=[*left.notes[:-1], two]))


@functools.cache
def other_world() -> WatchedSim:
    def tamper(at: str, event: Event) -> Event:
        return replace(event, pub=event.pub | {"kind": "other"}) if at.startswith("incident") else event

    return WatchedSim(tamper=tamper).build()


# --- edit, delete ---


@row("edit: another reason of a refusal", honest="AUD-012 AUD-045", colluding="AUD-045")
def edit(collude: bool) -> Shown:
    return rewritten(lambda lie: lie.at("verdict hanbit 2").say(reason="update.shape"), collude=collude)


@row("edit: an amount that a member signed", honest="AUD-012 AUD-042", colluding="AUD-042 AUD-045")
def edit_signed(collude: bool) -> Shown:
    return rewritten(lambda lie: lie.at("spent kita 1").hide("rho_nano", 1), collude=collude)


@row("delete a refusal", honest="AUD-012 AUD-043", colluding="AUD-043 AUD-045")
def delete(collude: bool) -> Shown:
    return rewritten(lambda lie: lie.drop("submission hanbit 2", "verdict hanbit 2"), collude=collude)


@row(
    "edit behind the last word of every member and auditor",
    honest="AUD-012",
    colluding="",
    why="nobody has signed anything about it since",
    closes={"--since": "AUD-015", "a member's receipt": "AUD-016"},
)
def edit_tail(collude: bool) -> Shown:
    def change(lie: Rewriter) -> None:
        lie.drop("concluded")
        for name in ("incident", "incident closed"):
            lie.at(name).say(kind="other")

    return rewritten(change, collude=collude)


# --- order and time ---


def _swapped(lie: Rewriter) -> None:
    lie.swap("asked hanbit 1", "asked nord 1")


def _inserted(lie: Rewriter) -> None:
    late = lie.at("export action").copy().say(request=digest_from("made up")).move(-HOUR_MS)
    lie.insert(lie.place("round 2 closed"), late)


@row("reorder two entries, without signing again", honest="AUD-020", colluding="AUD-020")
def reorder_unsigned(collude: bool) -> Shown:
    return rewritten(_swapped, collude=collude, resign=False)


@row("reorder two entries", honest="AUD-012 AUD-045", colluding="AUD-045")
def reorder(collude: bool) -> Shown:
    return rewritten(_swapped, collude=collude)


@row("insert an entry that is dated back by an hour", honest="AUD-012 AUD-090", colluding="AUD-045 AUD-090")
def insert(collude: bool) -> Shown:
    return rewritten(_inserted, collude=collude)


@functools.cache
def quiet_day() -> WatchedSim:
    """A day in which nothing happens, before the operators' last entries; nobody concludes."""
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | None:
        sim.now_ms += DAY_MS if at == "grant action" else 0
        return None if at == "concluded" else event

    sim.tamper = tamper
    return sim.build()


@row(
    "date the end back, and all witnesses' clocks with it",
    honest="AUD-012",
    colluding="",
    why="no clock is left that he does not have: a time stamp of somebody else is one, AUD-093",
    closes={"a member's receipt of the quiet day": "AUD-016"},
)
def back_date(collude: bool) -> Shown:
    lie, by_s = Rewriter(quiet_day()), 20 * 3600
    for one in lie.records[lie.place("grant action") :]:
        one.move(-by_s * 1000)
    return lie.told(collude=collude, late_s=-by_s)


OPTIONS["a member's receipt of the quiet day"] = lambda _: {
    "receipts": kept(quiet_day(), "vote kita", grade="signed")
}


@special("a witness's clock turned back")
def clock_back() -> tuple[str, str]:
    sim = true_history()
    one = watchers(sim, sim.notes)["kita"]
    before, at_s = one.state, cosigned_at(sim, sim.notes[-1])
    assert isinstance(one.offered(sim.notes[-1], sim.tree, at_s), Cosign)
    before = one.state
    verdict = one.offered(sim.notes[-1], sim.tree, at_s - 3600)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, one.state) == (503, before)
    liar = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        liar.clocks = dict.fromkeys(liar.owners, -250) if at == "round 2 opened" else liar.clocks
        return event

    liar.tamper = tamper
    report = live(liar).audit()
    assert "AUD-092" in report.counts
    return "witness refuses (503), its state is unchanged", "AUD-092 witness's time goes back"


# --- truncation, restore ---


@functools.cache
def published() -> int:
    """Size of a head that was shown with cosignatures, some heads before the newest."""
    return int(true_history().notes[-4].split("\n")[1])


@row(
    "truncate the tail, to a checkpoint that was published",
    honest="",
    colluding="",
    why="it was true once",
    closes={"--since": "AUD-015", "a member's receipt": "AUD-016"},
    honest_closes={"--as-of": "AUD-017"},
)
def truncate(collude: bool) -> Shown:
    """Those who collude cosign the old head once more, so that it is not old."""
    return rewritten(lambda lie: lie.cut(published()), collude=collude, late_s=3 * DAY_MS // 1000)


@row(
    "truncate the tail, to any size",
    honest="AUD-012",
    colluding="",
    why="nobody else knows the end",
    closes={"--since": "AUD-015", "a member's receipt": "AUD-016"},
)
def truncate_anywhere(collude: bool) -> Shown:
    return rewritten(lambda lie: lie.drop("concluded").cut(95), collude=collude)


@row(
    "restore an older copy with its signer, and go on from there",
    honest="AUD-012",
    colluding="",
    why="who had seen more is refused (log.seen-unknown) and keeps the evidence",
    closes={"--since": "AUD-015", "a member's receipt": "AUD-016"},
)
def restore(collude: bool) -> Shown:
    def change(lie: Rewriter) -> None:
        made = [lie.at("export action").copy() for _ in range(40)]
        lie.cut(published())
        for number, one in enumerate(made):
            one.say(request=digest_from(f"after the restore {number}"))
        lie.insert(published(), *made)

    return rewritten(change, collude=collude)


# --- keys and witnesses ---


@row("log key stolen: a new history without voters", honest="AUD-012", colluding="AUD-045")
def stolen_key(collude: bool) -> Shown:
    lie = Rewriter(true_history())
    lie.at("verdict hanbit 2").say(reason="update.shape")
    return lie.told(collude=collude, ask=collude)


class SybilSim(WatchedSim):
    """The same history, watched by four witnesses that the broker made and gave the names of members."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.witness_keys = {name: SigningKey.from_seed(seeded(f"sybil {name}")) for name in self.owners}
        keys = self.witness_keys.items()
        self.vkeys = {name: cosigner_vkey(key, witness_name(self.owners[name])) for name, key in keys}
        held = {name: (vkey,) for name, vkey in self.vkeys.items()}
        self.policy = pool_policy(logs=self.policy.logs, broker=self.policy.broker, witnesses=held)


@special("Sybil witness: the broker's own keys under members' names; five keys of one organisation")
def sybil() -> tuple[str, str]:
    sim = true_history()
    theirs = SybilSim().build()
    believed = verify(theirs.bundle(witnesses=[]), theirs.policy)
    assert (believed.exit_code, set(believed.counts)) == (3, {"AUD-013"})  # the policy is the broker's own
    assert believed.witnessed is not None
    assert believed.witnessed.have == 4
    assert all("no statement of its owner names" in one.evidence for one in believed.findings)
    report = verify(theirs.bundle(witnesses=[]), sim.policy)
    assert (report.exit_code, report.witnessed and report.witnessed.have) == (6, 0)
    more = [SigningKey.from_seed(seeded(f"more {number}")) for number in range(4)]
    owners = {name: (vkey,) for name, vkey in sim.vkeys.items()}
    owners["kita"] += tuple(cosigner_vkey(key, sim.vkeys["kita"].name) for key in more)
    policy = pool_policy(logs=sim.policy.logs, broker=sim.policy.broker, witnesses=owners)
    text, at_s = parse_note(sim.signed()).text, sim.now_ms // 1000
    five = merge(
        sim.cosigned(sim.signed(), by=("kita",)),
        [cosign(key, name=sim.vkeys["kita"].name, text=text, time_s=at_s) for key in more],
    )
    report = verify(sim.bundle(note=five, notes=[*sim.notes[:-1], five]), policy)
    assert (report.exit_code, report.witnessed and report.witnessed.have) == (6, 1)
    twice = policy_text(sim.policy).replace(
        f"witness nord {sim.vkeys['nord'].text()}",
        f"witness nord {replace(sim.vkeys['kita'], name=witness_name(sim.owners['nord'])).text()}",
    )
    with pytest.raises(PolicyError):
        parse_policy(twice)
    return "AUD-012 no quorum; one key under two names: the policy is refused", "AUD-012 five keys, one vote"


# --- what members signed ---

_REFUSAL = ("submission hanbit 2", "verdict hanbit 2")
_ABOUT_IT = ("disclosed", "erasure action", "erasure")  # the story's own entries about the refusal


def _without(*names: str, eventful: bool = False) -> WatchedSim:
    def tamper(at: str, event: Event) -> Event | None:
        if at in (*names, *_ABOUT_IT):
            return None
        if at == "round 2 closed" and names == _REFUSAL:
            told = {one: said for one, said in event.pub["parties"].items() if said["verdict"] != "refused"}
            return replace(event, pub=event.pub | {"received": 2, "refused": 0, "parties": told})
        return event

    sim = WatchedSim(tamper=tamper, eventful=eventful)
    sim.names["verdict hanbit 2"] = 0
    return sim


@row(
    "a refusal is never logged",
    honest="AUD-043",
    colluding="AUD-043",
    closes={"a member's receipt": "AUD-016"},
)
def refusal_left_out(_collude: bool) -> Shown:
    return live(_without(*_REFUSAL))


@row(
    "the last word of a member is never logged",
    honest="",
    colluding="",
    why="no number behind it is missing; without a receipt its node sends it again and warns",
    closes={"a receipt that was given for it": "AUD-016"},
)
def last_word_left_out(_collude: bool) -> Shown:
    sim = _without("exit decision", "exit hanbit", eventful=True)
    shown = live(sim)
    return replace(shown, bundle=sim.bundle(version=VERSION, notices=sim.notices[:-1]))


@functools.cache
def with_exit() -> WatchedSim:
    return WatchedSim(eventful=True).build()


OPTIONS["a receipt that was given for it"] = lambda _: {
    "receipts": kept(with_exit(), "exit hanbit", grade="signed")
}


def _resealed(sim: WatchedSim, event: Event, key: SigningKey, **changes: Any) -> Event:
    """The event under an envelope that somebody else signed."""
    assert event.envelope is not None
    payload = json.loads(event.envelope.payload)
    payload["body"] |= changes
    envelope = type(event.envelope).seal(canonical(payload), event.envelope.payload_type, key)
    return from_envelope(envelope, open_envelope(envelope, key.public), actor=event.actor, refs=event.refs)


@row("an invented contribution", honest="AUD-041", colluding="AUD-041")
def invented(_collude: bool) -> Shown:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        if at != "submission kita 2":
            return event
        return _resealed(sim, event, sim.broker_key, update=digest_from("the broker's own"))

    sim.tamper = tamper
    return live(sim)


@row("replay: an old submission in a later round", honest="AUD-048", colluding="AUD-048")
def replayed(_collude: bool) -> Shown:
    held: list[Event] = []

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at == "submission kita 1":
            held.append(event)
        if at != "submission kita 2":
            return event
        scope = event.scope
        return [event, replace(held[0], round=2, actor=event.actor, scope=scope)]

    return live(WatchedSim(tamper=tamper))


@row("epsilon counted twice", honest="AUD-060", colluding="AUD-060")
def spent_twice(_collude: bool) -> Shown:
    return live(WatchedSim(tamper=lambda at, one: [one, one] if at == "spent kita 1" else one))


@row("epsilon not counted", honest="AUD-061 AUD-043", colluding="AUD-061 AUD-043")
def spent_never(_collude: bool) -> Shown:
    return live(WatchedSim(tamper=lambda at, one: None if at == "spent kita 1" else one))


@row("epsilon shrunk in a rewritten entry", honest="AUD-012 AUD-042", colluding="AUD-042 AUD-045")
def spent_less(collude: bool) -> Shown:
    return rewritten(lambda lie: lie.at("spent kita 1").hide("epsilon_after", "0.000001"), collude=collude)


class ThriftySim(WatchedSim):
    """kita, in league with the broker, signs that it spent half of what its plan costs."""

    def said(self, maker: MakerSim, kind: EntryType, body: Mapping[str, Any], **place: Any) -> Event:
        if kind is T.EPSILON_SPENT and maker.party == "kita":
            body = dict(body) | {"rho_nano": body["rho_nano"] // 2}
        return super().said(maker, kind, body, **place)


@row("epsilon too small, signed by a member in league", honest="AUD-062", colluding="AUD-062")
def spent_less_by_owner(_collude: bool) -> Shown:
    return live(ThriftySim())


# --- bytes ---

GAMES: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda body: b'{"actor":"broker",' + body[1:],
    "NaN": lambda body: body.replace(b'"round":null', b'"round":NaN'),
    "2^53": lambda body: body.replace(b'"round":null', b'"round":9007199254740992'),
    "not NFC": lambda body: body.replace(b'"operator":"anna"', '"operator":"anna\u0301e\u0301"'.encode()),
    "a lone surrogate": lambda body: body.replace(b'"operator":"anna"', b'"operator":"\\ud800"'),
}


@special("canonicalisation games: a key twice, NaN, 2^53, not NFC, a lone surrogate")
def games() -> tuple[str, str]:
    for name, game in GAMES.items():
        for collude in (False, True):
            lie = Rewriter(true_history())
            lie.at("export action").raw = game
            assert lie.at("export action").bytes() != true_history().bodies[lie.place("export action")], name
            report = lie.told(collude=collude).audit()
            assert "AUD-030" in report.counts, (name, report.lines())
            assert report.exit_code == (3 if collude else 6)
    return "AUD-012 no quorum, AUD-030 strict bytes", "AUD-030 strict bytes; refused at intake as well"


@special("a node is given out as a leaf, odd proofs")
def node_as_leaf() -> tuple[str, str]:
    sim = true_history()
    tree, size = sim.tree, len(sim.bodies)
    pair = node_hash(tree.leaf(0), tree.leaf(1))
    proof = tree.inclusion(0)
    with pytest.raises(ProofError):
        verify_inclusion(pair, 0, size, proof[1:], tree.root())
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(tree.leaf(0) + tree.leaf(1)), 0, size, proof[1:], tree.root())
    note = sim.notes[-1]
    odd = {
        "short": (0, proof[1:]),
        "long": (0, [*proof, bytes(32)]),
        "other place": (1, proof),
        "turned": (0, proof[::-1]),
        "none": (0, []),
    }
    for name, (index, hashes) in odd.items():
        receipt = receipt_text(index=index, proof=hashes, note=note)
        report = verify(sim.bundle(), sim.policy, receipts={f"{name}.tlog-proof": receipt})
        assert set(report.counts) == {"AUD-016"}, name
    return "AUD-016 receipt", "AUD-016 receipt; verifiers agree with the definition on any proof"


@special("guess a hidden value")
def guess() -> tuple[str, str]:
    """A dictionary of everything that the field can be, as a rival would run it."""
    sim = true_history()
    index = sim.names["verdict hanbit 2"]
    hidden = json.loads(sim.bodies[index])["sd"]["got"]
    dictionary = [f"{number / 100:.2f}".rstrip("0").rstrip(".") for number in range(5_000)]
    assert "11.25" in dictionary  # the value is among them
    assert commitment(b"", "got", "11.25") in {commitment(b"", "got", one) for one in dictionary}  # no salt
    assert hidden not in {commitment(b"", "got", one) for one in dictionary}
    told = next(one for one in sim.disclosures if (one.index, one.field) == (index, "got"))
    assert commitment(told.salt, "got", "11.25") == hidden
    report = verify(sim.bundle(), sim.policy)  # erased: nobody opens it, and everything else holds
    assert (report.exit_code, report.counts) == (0, {})
    kept_open = {(one.index, one.field) for one in sim.contents().disclosures}
    assert (index, "got") not in kept_open
    return "5,000 guesses, no match", "the same: witnesses know no salt either"


# --- the running broker ---

ELSEWHERE |= {
    "edit in the database file": (
        "frozen: corrupt; nothing is signed",
        "the same: it is found before a witness is asked",
        (
            "tests/attack/test_log_rewritten_database.py::test_a_thousand_random_bit_flips_are_found_and_none_is_signed",
            "tests/attack/test_log_restored_or_edited.py::test_a_history_rewritten_in_every_table_is_a_fork",
        ),
    ),
    "restore from backup, without the signer": (
        "frozen: rolled-back",
        "the same: signer.db tells",
        (
            "tests/attack/test_log_restored_or_edited.py::test_a_restored_older_database_freezes_the_log_and_reads_go_on",
        ),
    ),
    "restore from backup, with the signer, on a running broker": (
        "a witness complains; frozen: amnesia",
        "NOT CAUGHT by the broker; row `restore an older copy with its signer`",
        (
            "tests/attack/test_witness_split_view.py::test_a_log_restored_from_a_copy_with_its_signer_is_found_by_any_witness",
            "tests/attack/test_log_restored_or_edited.py::test_a_larger_one_freezes_the_log",
            "tests/unit/test_log_writer.py::test_a_checkpoint_of_another_history_is_refused",
        ),
    ),
    "split view of a running broker": (
        "no view reaches the quorum; equivocation.proof; nodes stop",
        "row `split view`",
        (
            "tests/attack/test_witness_split_view.py::test_of_two_views_none_reaches_the_quorum_and_who_compares_has_evidence",
        ),
    ),
    "replay at intake": (
        "the old receipt, no new entry",
        "the same",
        (
            "tests/unit/test_log_writer.py::test_the_same_event_twenty_times_is_one_entry_with_the_same_index",
            "tests/unit/test_log_writer.py::test_a_used_number_is_refused_to_another_payload",
        ),
    ),
    "canonicalisation games at intake": (
        "log.not-canonical",
        "the same",
        ("tests/unit/test_log_entries.py::test_bytes_that_are_not_canonical_are_refused",),
    ),
    "odd proofs, at random": (
        "never accepted",
        "the same",
        (
            "tests/property/test_merkle_properties.py::test_the_inclusion_verifier_agrees_with_the_definition_on_any_proof",
            "tests/property/test_merkle_properties.py::test_the_consistency_verifier_agrees_with_the_definition_on_any_proof",
        ),
    ),
    "small-order key": (
        "identity.weak-key, each of the 48 encodings",
        "the same",
        (
            "tests/attack/test_broker_requests.py::test_every_weak_key_is_refused_at_the_door",
            "tests/unit/test_log_checkpoint.py::test_every_kind_of_ed25519_key_that_proves_nothing_is_refused",
        ),
    ),
    "hostile bundle": (
        "refused, or inert in terminal, page and tables; memory flat",
        "the same",
        (
            "tests/attack/test_log_rewritten_hostile.py::test_escapes_and_markup_in_every_string_are_inert_everywhere",
            "tests/attack/test_log_rewritten_hostile.py::test_memory_stays_flat_whatever_a_bundle_claims",
            "tests/unit/test_log_bundle.py::test_a_name_outside_the_layout_is_refused_at_both_ends",
        ),
    ),
    "log outage to hide": (
        "the business change is absent as well",
        "the same",
        (
            "tests/attack/test_log_storage_fails.py::test_a_full_disk_stores_nothing_and_says_so",
            "tests/attack/test_log_storage_fails.py::test_a_read_only_database_is_unavailable",
            "tests/attack/test_log_storage_fails.py::test_an_error_of_the_nth_statement_for_every_n_is_all_or_nothing",
        ),
    ),
}


# --- tests ---


def test_what_nobody_changed_is_told_byte_for_byte() -> None:
    """The rewriting adds nothing of its own: with nothing changed the bundle is the true one, and clean."""
    for collude in (False, True):
        shown = Rewriter(true_history()).told(collude=collude)
        assert shown.bundle == true_history().bundle(version=VERSION)
        assert not shown.refusals
    report = shown.audit(receipts=kept(true_history()), since=true_history().concluded)
    assert (report.exit_code, report.findings) == (0, []), report.lines()


@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.case.__name__)
def test_a_rewritten_history_is_caught_or_claims_no_more_than_it_can(one: Row) -> None:
    assert all(one.cells)
    assert bool(one.why) == ("" in (one.honest, one.colluding))
    assert bool(one.closes) or not one.why


@pytest.mark.parametrize("attack", SPECIAL, ids=lambda attack: SPECIAL[attack].__name__)
def test_an_attack_of_another_kind_ends_as_its_row_says(attack: str) -> None:
    assert all(SPECIAL[attack]())


@pytest.mark.parametrize("attack", ELSEWHERE)
def test_a_row_that_runs_elsewhere_names_tests_that_there_are(attack: str) -> None:
    for named in ELSEWHERE[attack][2]:
        path, _, name = named.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *(async )?def {re.escape(name)}\(", text, re.MULTILINE), named


@pytest.mark.parametrize("case", [edit, delete, reorder, edit_tail, restore, truncate_anywhere])
def test_honest_witnesses_have_evidence_or_at_least_refuse(case: Callable[[bool], Shown]) -> None:
    shown = case(False)
    assert shown.refusals
    assert not {200} & set(shown.refusals)
    assert bool(shown.proven()) == (case is not truncate_anywhere), case  # a prefix contradicts nothing


def test_two_sides_of_a_split_view_laid_side_by_side_are_evidence() -> None:
    keys = [true_history().policy.logs[0]]
    ours, theirs = true_history().notes[-1], other_world().notes[-1]
    assert "two roots" in parse_evidence(prove(ours, theirs).to_text()).check(keys)
    longer = prove(true_history().notes[-2], theirs, other_world().tree)
    assert "do not begin with" in parse_evidence(longer.to_text()).check(keys)
    with pytest.raises(ProofError):
        prove(true_history().notes[2], theirs, other_world().tree).check(keys)  # what both share


def test_an_old_head_that_witnesses_cosign_again_is_not_old() -> None:
    as_of = {"as_of_ms": true_history().now_ms + 3 * DAY_MS}
    assert "AUD-017" in truncate(False).audit(**as_of).counts
    assert "AUD-017" not in truncate(True).audit(**as_of).counts


def test_the_attack_works_where_its_mechanism_is_off() -> None:
    """Without witnesses in contract and policy, what follows the last word of everybody is the broker's to say."""
    sim = PoolSim().build()
    for index, body in enumerate(sim.bodies):
        told = json.loads(body)
        if told["type"] == "run.closed":
            told["pub"]["outcome"] = "stopped"
            sim.bodies[index] = canonical(told)
    sim.notes = [note for note in sim.notes[:-1] if int(note.split("\n")[1]) < len(sim.bodies)]
    sim.publish()
    report = verify(sim.bundle(), sim.policy)
    assert (report.exit_code, report.findings) == (0, []), report.lines()
    assert "witnesses: none required" in report.verdict


def test_the_table_is_printed() -> None:
    lines = ["attack | honest witnesses | all witnesses collude"]
    lines += [" | ".join((one.attack, *one.cells)) for one in ROWS]
    lines += [" | ".join((attack, *case())) for attack, case in SPECIAL.items()]
    lines += [" | ".join((attack, *cells)) for attack, (*cells, _) in ELSEWHERE.items()]
    print("\n" + "\n".join(lines))
    assert sum("NOT CAUGHT" in line for line in lines) == 8
