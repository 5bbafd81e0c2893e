# SPDX-License-Identifier: Apache-2.0
"""Sections 5, 7 and 9: agreements in force, what operators did, keys and witnesses over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.checkpoint import KeyKind, open_note
from policies.log.entries import EntryType
from policies.log.errors import NoteError, QuorumError
from policies.ports import iso_s
from policies.verify.page.content import newest, section
from policies.verify.page.markup import Html, code, digest, link, para, table, tag
from policies.verify.prose import sentence
from policies.verify.shown import value_text
from policies.verify.tables import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.log.vkeys import VerifierKey
    from policies.verify.history import History
    from policies.verify.page.content import Page

__all__ = ["agreements", "operators", "trust"]

_T = EntryType
_AGREEMENTS = (
    _T.CONTRACT_PROPOSED,
    _T.CONTRACT_SIGNED,
    _T.CONTRACT_FINALIZED,
    _T.CONTRACT_AMENDED,
    _T.CONTRACT_HALTED,
    _T.CONTRACT_RESUMED,
    _T.CONTRACT_EXITED,
    _T.CONTRACT_EXPIRED,
    _T.CONTRACT_TERMINATED,
    _T.POLICY_ACTIVATED,
)
_KEYS = (
    _T.LOG_GENESIS,
    _T.KEY_ADDED,
    _T.KEY_ROTATED,
    _T.KEY_REVOKED,
    _T.WITNESS_ADDED,
    _T.WITNESS_REMOVED,
    _T.LOG_FROZEN,
)


def agreements(page: Page) -> Html:
    """Section 5."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 5, para(words["history_unread"]))
    heads = [words[key] for key in ("contract", "contract_title", "version", "term", "state", "parties")]
    rows = [_contract(page, history, one) for one in history.contracts.values()]
    told = table(words, words["s5"], heads, rows, class_="text") if rows else para(words["contracts_none"])
    return section(words, 5, told, tag("h3", words["timeline"]), _timeline(page, history, _AGREEMENTS))


def _contract(page: Page, history: History, contract: Contract) -> list[object]:
    parties = ", ".join(f"{one.party} ({page.words.said(one.role)})" for one in contract.parties)
    return [
        digest(contract.digest, page.words["nothing"]),
        contract.title,
        contract.version,
        f"{contract.term.effective[:10]} … {contract.term.expires[:10]}",
        _state(page, history, contract),
        parties,
    ]


def _state(page: Page, history: History, contract: Contract) -> str:
    """State of a contract after the last entry."""
    words = page.words
    ended = {
        entry.pub["contract"] for _, entry in history.of(_T.CONTRACT_EXPIRED, _T.CONTRACT_TERMINATED)
    } | {entry.pub["old"] for _, entry in history.of(_T.CONTRACT_AMENDED)}
    if contract.digest in ended:
        return words["state_ended"]
    life = history.life_before(contract.digest, history.size)
    if life is None:
        return words["state_open"]
    if life.ended:
        return words["state_ended"]
    if life.halts:
        return words.fill("state_halted", who=", ".join(sorted({one.party for one in life.halts})))
    return words["state_active"]


def _timeline(page: Page, history: History, kinds: Iterable[EntryType]) -> Html:
    words = page.words
    found, more = newest(history, kinds)
    rows = [
        [
            entry.ts[:16].replace("T", " "),
            link(index, page.detailed),
            sentence(entry, words.lang, history),
        ]
        for index, entry in reversed(found)
    ]
    heads = [words[key] for key in ("time", "at_entry", "happened")]
    return table(words, words["timeline"], heads, rows, more=more, class_="text last")


def operators(page: Page) -> Html:
    """Section 7."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 7, para(words["history_unread"]))
    found, more = newest(history, ACTIONS)
    if not found:
        return section(words, 7, para(words["actions_none"]))
    heads = [words[key] for key in ("time", "at_entry", "who", "what", "subject", "result")]
    rows = [_action(page, history, index, entry) for index, entry in found]
    return section(words, 7, table(words, words["s7"], heads, rows, more=more, class_="text"))


def _action(page: Page, history: History, index: int, entry: Entry) -> list[object]:
    pub, nothing = entry.pub, page.words["nothing"]
    at = history.opened.get(index, {}).get("at")
    about = {
        name: pub[name]
        for name in ("fields", "indexes", "grant", "grade", "from_size", "to_size")
        if name in pub
    }
    subject = pub.get("subject") or pub.get("bundle") or about or None
    return [
        str(at or entry.ts)[:19].replace("T", " "),
        link(index, page.detailed),
        pub.get("operator") or pub.get("grantee") or entry.actor,
        pub.get("action")
        or " ".join(filter(None, (entry.type.value, pub.get("resource"), pub.get("reason")))),
        value_text(subject, entry, history, nothing),
        page.words.said(pub.get("result") or ""),
    ]


def trust(page: Page) -> Html:
    """Section 9."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 9, para(words["history_unread"]))
    policy = history.policy
    keys = [[one.name, one.kind.name, code(one.text())] for one in policy.logs]
    parts: list[object] = [
        tag("h3", words["log_keys"]),
        table(
            words, words["log_keys"], [words["key_name"], words["what"], words["value"]], keys, class_="text"
        ),
        tag("h3", words["voters"]),
        _voters(page, history),
    ]
    notes = history.files["checkpoints.log"].count(b"\n")
    if policy.n:
        first = next((size for size, _, votes in history.cosigned if votes >= policy.k), words["nothing"])
        quorum = words.fill("quorum_line", k=policy.k, n=policy.n, f=max(policy.tolerates, 0))
        parts += [para(quorum), para(words.fill("published_line", count=notes, first=first))]
    parts += [tag("h3", words["key_events"]), _timeline(page, history, _KEYS)]
    return section(words, 9, *parts)


def _voters(page: Page, history: History) -> Html:
    words, policy = page.words, history.policy
    if not policy.n:
        return para(words["voters_none"])
    times = _times(history)
    rows = []
    for voter in policy.voters:
        for key in policy.keys_of(voter):
            time_s = times.get(key)
            shown = words["not_cosigned"] if time_s is None else iso_s(time_s * 1000)
            rows.append([voter, key.name, key.kind.name, shown])
    heads = [words[key] for key in ("voter", "key_name", "what", "cosigned_at")]
    return table(words, words["voters"], heads, rows, class_="text")


def _times(history: History) -> Mapping[VerifierKey, int]:
    """When each witness of the policy cosigned the bundle's checkpoint."""
    try:
        keys = [one for one in history.policy.witnesses.values() if one.kind is KeyKind.COSIGNER]
        opened = open_note(history.files["checkpoint"].decode("utf-8"), keys)
    except (NoteError, QuorumError):
        return {}
    return {key: opened.times[key.name] for key in opened.verified}
