# SPDX-License-Identifier: Apache-2.0
"""Why this node's gate decided as it did: each finding with its clause in words, and whose the remedy is.

The kept facts are judged once more and give the same bytes as the record; a decision that does not replay
is not explained (`DecisionDiffersError`), because its words would be about something else.

    explain_run(outbox, shelf, "run_…")          # all about a run; what is said in the same words only once
    explain_decision(outbox, shelf, "sha256:…")  # one, by the digest in the log, or its first 12 hex digits
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, ranges
from client.contract.words import word
from client.errors import DecisionDiffersError, NoSuchThingError
from policies.contract import (
    Outcome,
    evaluate,
    plain_words,
    replay,
    request_from_json,
    state_from_json,
)
from policies.contract.render import remedy_text, value_words
from policies.encoding import canonical, digest, unb64

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from client.contract.shelf import ContractShelf
    from client.outbox import Outbox
    from client.outbox.rows import Decided, Stored
    from policies.contract import Contract, Decision, Finding

__all__ = ["explain_any", "explain_decision", "explain_run", "explained"]

_RUN: Final = re.compile(r"run_[a-z2-7]{16}")
_DECISION: Final = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_SETTINGS: Final = frozenset(("local:paused", "local:dataset", "local:fields", "local:epsilon"))
_KEPT: Final = 100_000  # decisions that are looked through for one digest
_OWNER, _BROKER, _ALL, _OTHERS = "who-owner", "who-broker", "who-all", "who-others"
_WHO: Final = {
    "amend-the-contract": _ALL,
    "amend-this-contract": _OWNER,
    "answer-in-slots": _OWNER,
    "ask-about-itself": _OWNER,
    "ask-as-a-party": _OWNER,
    "ask-by-pinned-key": _OWNER,
    "ask-for-a-listed-view": _OWNER,
    "ask-for-another-tier": _OWNER,
    "ask-for-approval": _OTHERS,
    "attest-the-use": "who-recipient",
    "cheaper-plan-or-amend": _ALL,
    "choose-as-agreed": _OWNER,
    "contribute-more": _OWNER,
    "file-the-consent": _OTHERS,
    "keep-it-at-home": _OWNER,
    "let-the-right-party-ask": _OWNER,
    "name-the-model": _OWNER,
    "prove-or-change": _ALL,
    "resume": _ALL,
    "sign": _OTHERS,
    "sign-a-notice": _OWNER,
    "state-the-fact": "who-program",
    "stop-or-amend": _ALL,
    "stop-or-new-contract": _ALL,
    "vouch-for-the-newcomer": _OTHERS,
    "wait-for-the-term": "who-nobody",
    "wait-for-the-time": "who-nobody",
}
"""Who can apply a remedy; the broker's operators where none is named."""
_OUTCOMES: Final = {
    Outcome.SATISFIED: "satisfied",
    Outcome.VIOLATED: "violated",
    Outcome.UNKNOWN: "unknown",
}


def explain_any(
    outbox: Outbox, shelf: ContractShelf, name: str, *, every: bool = False, lang: str = "en"
) -> Answer:
    """A run or a decision, whichever the name is."""
    explain = explain_run if name.startswith("run_") else explain_decision
    return explain(outbox, shelf, name, every=every, lang=lang)


def explain_run(
    outbox: Outbox, shelf: ContractShelf, run: str, *, every: bool = False, lang: str = "en"
) -> Answer:
    """Each decision about a run, newest first.

    Args:
        outbox: Keeps the decisions.
        shelf: Keeps the contracts.
        run: ``run_…``.
        every: Satisfied findings too.
        lang: ``en`` or ``ja``.

    Raises:
        NoSuchThingError: The gate decided nothing about this run.
    """
    if not _RUN.fullmatch(run):
        raise _nothing("a run: run_ and 16 letters or digits", run)
    rows = outbox.left.decisions(run=run, limit=None)
    if not rows:
        raise _not_asked(run)
    return _answer(
        {"run": run}, [_explained(one, outbox, shelf, every=every, lang=lang) for one in rows], lang
    )


def explain_decision(
    outbox: Outbox, shelf: ContractShelf, name: str, *, every: bool = False, lang: str = "en"
) -> Answer:
    """One decision, by the digest of its record or its first 12 hex digits.

    Raises:
        NoSuchThingError: None here, or several begin so.
    """
    wanted = name.removeprefix("sha256:")
    rows = outbox.left.decisions(limit=_KEPT) if _DECISION.fullmatch(name) else ()
    found = {
        _digest_of(one): one for one in rows if _digest_of(one).removeprefix("sha256:").startswith(wanted)
    }
    if len(found) != 1:
        raise _nothing("one decision of this node whose digest begins so", name)
    shown = [_explained(one, outbox, shelf, every=every, lang=lang) for one in found.values()]
    return _answer({"decision": next(iter(found))}, shown, lang)


def explained(
    one: Decided, outbox: Outbox, shelf: ContractShelf, *, every: bool = False, lang: str = "en"
) -> dict[str, Any]:
    """A decision that the caller has already, as `explain_decision` gives each.

    Raises:
        DecisionDiffersError: Its facts do not give its record.
        NoSuchThingError: Its contract is not here.
    """
    return _explained(one, outbox, shelf, every=every, lang=lang)


def _nothing(need: str, found: str) -> NoSuchThingError:
    return NoSuchThingError(need=need, found=ascii(found)[1:-1][:80], remedy="iriai-node guard log")


def _not_asked(run: str) -> NoSuchThingError:
    """A run may end before this node has its turn; then the reason is known where it was ended."""
    return NoSuchThingError(
        need="a run that this node was asked about",
        found=f"{run}: this node was asked nothing about it",
        remedy=f"ask the operator, who sees why with iriai-broker run show {run}; what is spent of your own "
        "budget shows iriai-node budget show; what this node was asked, iriai-node guard log",
    )


def _digest_of(one: Decided) -> str:
    record = one.document.get("record")
    return digest(unb64(record)) if isinstance(record, str) else ""


def _answer(about: dict[str, Any], shown: list[dict[str, Any]], lang: str) -> Answer:
    lines: list[str] = []
    for group in _alike(shown):
        newest = group[0]
        lines.append(_heading(group, lang) + (f"  {newest['decision']}" if newest["decision"] else ""))
        lines += [f"  {line}" for line in newest["words"]]
        for finding in newest["findings"]:
            lines += [f"  {line}" for line in _finding_lines(finding, lang)]
    return Answer(data={**about, "decisions": shown}, text=tuple(lines))


def _alike(shown: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The decisions that would be told in the same words together, newest first."""
    groups: dict[bytes, list[dict[str, Any]]] = {}
    for one in shown:
        said = canonical({name: one[name] for name in ("kind", "words", "findings")})
        groups.setdefault(said, []).append(one)
    return list(groups.values())


def _heading(group: list[dict[str, Any]], lang: str) -> str:
    """Which rounds and attempts it is about, and what was asked."""
    newest = group[0]
    if len(group) == 1:
        return word(lang, "round", round=newest["round"], attempt=newest["attempt"], kind=newest["kind"])
    rounds = ranges(sorted({int(one["round"]) for one in group}))
    return word(lang, "rounds", rounds=rounds, attempts=len(group), kind=newest["kind"])


def _finding_lines(finding: Mapping[str, Any], lang: str) -> Iterator[str]:
    yield f"{finding['label']} {finding['clause']} {finding['check']}"
    for text in finding["text"]:
        yield f"  {word(lang, 'clause')}  {text}"
    keys = (
        ("need", "found") if finding["outcome"] == Outcome.SATISFIED else ("need", "found", "remedy", "who")
    )
    for key in keys:
        yield f"  {word(lang, key)}  {finding[key]}"


def _explained(
    one: Decided, outbox: Outbox, shelf: ContractShelf, *, every: bool, lang: str
) -> dict[str, Any]:
    """A decision as JSON: `words` are one line each, `findings` have everything."""
    base = {
        "at_ms": one.at_ms,
        "kind": one.kind,
        "run": one.run,
        "round": one.round,
        "attempt": one.attempt,
        "allow": one.allow,
        "clauses": list(one.clauses),
        "decision": _digest_of(one) or None,
    }
    own = list(_local(one.document.get("local", ()), lang))
    if "request" not in one.document:  # nothing was judged by the contract
        words = word(lang, "refused", what=one.kind) if own else _judged(one, outbox, lang)
        return {**base, "words": [words], "findings": own}
    contract = shelf.get(one.contract).contract
    decision, who = _judged_again(one, contract)
    what = f"{decision.request_type} {who}"
    verdict = (
        word(lang, "allowed", what=what, count=len(decision.findings))
        if decision.allow
        else word(lang, "refused", what=what)
    )
    shown = decision.findings if every else decision.refusals
    findings = [*_findings(contract, shown, lang), *own]
    return {**base, "words": [verdict], "findings": findings}


def _judged(one: Decided, outbox: Outbox, lang: str) -> str:
    """That held-out episodes were read, and which vote left because of it."""
    candidate = one.document.get("evaluation", {}).get("candidate")
    if candidate is None:
        of_round = outbox.find(f"round.voted {one.run}/{one.round}")
        votes = [] if of_round is None else [_body(of_round)["vote"]]
    else:
        cast = map(_body, outbox.envelopes(run=one.run, kind="vote.cast"))
        votes = [body["vote"] for body in cast if body["subject"] == candidate]
    if votes:
        return word(lang, "held-out-vote", vote=votes[-1])
    return word(lang, "held-out" if candidate is None else "held-out-waits")


def _body(sealed: Stored) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(sealed.envelope.payload)["body"]
    return body


def _judged_again(one: Decided, contract: Contract) -> tuple[Decision, str]:
    """The decision on the kept facts, once it gives the kept bytes.

    Raises:
        DecisionDiffersError: It gives others.
    """
    document = one.document
    request, state = request_from_json(document["request"]), state_from_json(document["state"])
    record = replay(
        contract,
        point="node",
        request=document["request"],
        state=document["state"],
        salt16=bytes.fromhex(document["salt"]),
    )
    if digest(record) != _digest_of(one):
        raise DecisionDiffersError(
            need=f"the record {_digest_of(one)}",
            found=digest(record),
            remedy="use the version of iriai that decided; if it repeats, the outbox was changed: restore it",
        )
    return evaluate(contract, state, request), request.party or "?"


def _findings(contract: Contract, found: Iterable[Finding], lang: str) -> Iterator[dict[str, Any]]:
    texts: dict[str, list[str]] = {}
    for clause, sentence in plain_words(contract, lang=lang):
        texts.setdefault(clause, []).append(sentence)
    for one in found:
        yield {
            "clause": one.clause,
            "check": one.check,
            "outcome": one.outcome.value,
            "label": word(lang, _OUTCOMES[one.outcome]),
            "text": texts.get(one.clause) or [word(lang, "no-clause-text")],
            "need": value_words(one.need, lang),
            "found": value_words(one.found, lang),
            "remedy": remedy_text(one.remedy, lang),
            "who": word(lang, _WHO.get(one.remedy, _BROKER)),
        }


def _local(found: Iterable[Mapping[str, Any]], lang: str) -> Iterator[dict[str, Any]]:
    """What this site's own rules refused; no clause of the contract stands behind it."""
    for one in found:
        yield {
            "clause": one["clause"],
            "check": one["check"],
            "outcome": one["outcome"],
            "label": word(lang, "by-this-site"),
            "text": [],
            "need": one["need"],
            "found": one["found"],
            "remedy": one["remedy"],
            "who": word(lang, _whose(one["clause"])),
        }


def _whose(clause: str) -> str:
    """Where the owner applies a remedy: the settings, the ledger, the data, or the node as a whole."""
    if clause in _SETTINGS:
        return _OWNER
    if clause.startswith("local:budget"):
        return "who-ledger"
    return "who-data" if clause.startswith("local:data.") else "who-node"
