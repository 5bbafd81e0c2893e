# SPDX-License-Identifier: Apache-2.0
"""Step 6: envelopes, signatures, chains and aliases of members.

Whose envelope it is follows from the signature, never from a name in it: the organisation's alias key gives
the candidate, the contract pins the candidate's key or a notice rotated it, and the key must have been added
to the log before and not revoked or rotated away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.errors import EncodingError, IdentityError
from policies.identity import parse_key
from policies.log.entries import EntryType
from policies.log.envelope import ChainState, Seen, open_envelope, payload_digest
from policies.log.errors import ChainError, MemberEnvelopeError, SeenError, SeqGapError, SlotTakenError
from policies.log.schema import MEMBER_SET
from policies.verify.history import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.log.entries import Entry
    from policies.signing import Envelope
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_aliases", "check_chains", "check_disclosed", "check_envelopes"]

Json = Any
_ENDLESS = 2**60


def check_envelopes(history: History, report: Report) -> None:
    """AUD-040 to AUD-042 and the sender's half of AUD-049; fills `History.senders`."""
    lifetimes = _lifetimes(history)
    for index, entry in sorted(history.entries.items()):
        envelope = history.envelopes.get(index)
        if entry.env is None:
            if envelope is not None:
                report.add("AUD-040", "an envelope for an entry of the broker's own", index=index)
        elif envelope is None:
            _missing(history, index, report)
        elif digest(envelope.payload) != entry.env:
            report.add("AUD-040", "the envelope's payload has another digest", index=index)
        else:
            sender = _sender(history, entry, envelope, report, index)
            if sender is not None:
                _check_lifetime(sender, lifetimes, index, report)
                _check_agreement(history, entry, sender.payload, index, report)
                history.senders[index] = sender


def _missing(history: History, index: int, report: Report) -> None:
    if history.grade == "auditor":
        report.add("AUD-040", "no envelope in the bundle", index=index)
    else:
        report.not_checked("AUD-040 to 046: envelopes of other members (this is a member's bundle)")


def _candidates(history: History, entry: Entry, index: int) -> Iterator[tuple[str, str, bool]]:
    """Organisations with a key in force, whose alias fits first: (org, key text, alias fits)."""
    wanted = history.org_of(entry.actor, entry)
    scoped = history.contracts.get(entry.scope or "")
    before = None if scoped is None else history.contracts.get(scoped.supersedes or "")
    contracts = list(history.contracts.values())
    if scoped is not None:  # who signs a successor may have changed its key under the contract that rules
        contracts = [one for one in (scoped, before) if one is not None]
    moments = (
        (index, index + 1) if entry.type is EntryType.KEY_ROTATED else (index,)
    )  # by the old key or the new
    pairs = {
        (one.org, history.key_before(contract, one, at))
        for contract in contracts
        for one in contract.parties
        for at in moments
    }
    yield from ((org, key, True) for org, key in sorted(pairs) if org == wanted)
    yield from ((org, key, False) for org, key in sorted(pairs) if org != wanted)


def _sender(history: History, entry: Entry, envelope: Envelope, report: Report, index: int) -> Sender | None:
    for org, key, fits in _candidates(history, entry, index):
        public = parse_key(key)
        if not envelope.signed_by(public):
            continue
        try:
            payload = open_envelope(envelope, public)
        except (MemberEnvelopeError, EncodingError, IdentityError) as error:
            report.add("AUD-041", f"needs {error.need}; found {error.found}", index=index)
            return None
        if not fits and org in history.aliases:
            report.add("AUD-049", f"actor {entry.actor} is not the alias of the signer", index=index)
        elif not fits:
            report.not_checked(f"AUD-049: aliases of {org}: its alias key is not in the bundle")
        return Sender(org=org, key=key, payload=payload)
    report.add("AUD-041", "no key in force of a contract's party has signed it", index=index)
    return None


def _lifetimes(history: History) -> dict[str, tuple[int, int]]:
    """Per key digest: the index that added it, and the index from which it is not valid any more."""
    lifetimes: dict[str, tuple[int, int]] = {}
    for index, entry in history.of(EntryType.KEY_ADDED):
        lifetimes.setdefault(entry.pub["kid"], (index, _ENDLESS))
    for _, entry in history.of(EntryType.KEY_REVOKED):
        kid = entry.pub["kid"]
        if kid in lifetimes:
            lifetimes[kid] = (lifetimes[kid][0], entry.pub["valid_until"])
    for index, entry in history.of(EntryType.KEY_ROTATED):
        lifetimes.setdefault(entry.pub["new"], (index - 1, _ENDLESS))  # it may sign the rotation itself
    return lifetimes


def check_disclosed(history: History, report: Report) -> None:
    """AUD-082, second half: the auditor's bundle opens every commitment, but those that were erased."""
    if history.grade != "auditor":
        report.not_checked("AUD-082: confidential values of others (this is a member's bundle)")
        return
    erased = {
        (index, name)
        for _, entry in history.of(EntryType.ERASURE_PERFORMED)
        for index in entry.pub["indexes"]
        for name in entry.pub["fields"]
    }
    if erased:
        report.not_checked(f"AUD-082: {len(erased)} confidential values that were erased")
    for index, entry in sorted(history.entries.items()):
        told = history.opened.get(index, {})
        kept_back = sorted(name for name in entry.sd if name not in told and (index, name) not in erased)
        if kept_back:
            report.add("AUD-082", "not disclosed: " + " ".join(kept_back), index=index)


def _check_lifetime(
    sender: Sender, lifetimes: Mapping[str, tuple[int, int]], index: int, report: Report
) -> None:
    start, end = lifetimes.get(digest(parse_key(sender.key)), (_ENDLESS, 0))
    if not start < index:
        report.add("AUD-041", "the key was not added to the log before", index=index)
    elif index >= end:
        report.add("AUD-041", f"the key was revoked from index {end} on", index=index)


def _check_agreement(
    history: History, entry: Entry, payload: Mapping[str, Json], index: int, report: Report
) -> None:
    """AUD-042: log, type, scope, run, round, every field in clear, and every opened one."""
    header = {
        "log": entry.log,
        "kind": entry.type.value,
        "scope": entry.scope,
        "run": entry.run,
        "round": entry.round,
    }
    different = [name for name, value in header.items() if payload[name] != value]
    body: Mapping[str, Json] = payload["body"]
    different += [f"pub.{name}" for name, value in entry.pub.items() if body.get(name) != value]
    stated = {name for name in body if name not in entry.schema.pub}
    committed = set(entry.sd) - {"at"} - set(MEMBER_SET)
    different += [f"sd.{name}" for name in stated ^ committed]
    for name, value in history.opened.get(index, {}).items():
        if name != "at" and (payload[name] if name in MEMBER_SET else body.get(name)) != value:
            different.append(f"sd.{name}")
    if different:
        report.add("AUD-042", " ".join(sorted(set(different))), index=index)


def check_chains(history: History, report: Report) -> None:
    """AUD-043 to AUD-046 along every chain, in log order."""
    states: dict[str, ChainState] = {}
    owners: dict[str, str] = {}
    for index, sender in sorted(history.senders.items()):
        payload = sender.payload
        chain = payload["chain"]
        if owners.setdefault(chain, sender.org) != sender.org:
            report.add("AUD-041", f"chain {chain} belongs to another organisation", index=index)
            continue
        states[chain] = _step(states.get(chain, ChainState(chain=chain)), payload, index, report)
        _check_seen(history, Seen.from_json(payload["seen"]), index, report)
    report.facts["chains"] = len(states)


def _step(state: ChainState, payload: Mapping[str, Json], index: int, report: Report) -> ChainState:
    """The state after a payload; after a finding the chain goes on from that payload."""
    try:
        return state.accept(payload)
    except SeqGapError as error:
        report.add("AUD-043", f"needs {error.need}; found seq {error.found}", index=index)
    except SlotTakenError as error:
        report.add("AUD-044", f"needs {error.need}; found seq {error.found} again", index=index)
    except SeenError as error:
        report.add("AUD-046", f"needs {error.need}; found {error.found}", index=index)
    except ChainError as error:
        report.add("AUD-043", f"needs {error.need}; found {error.found}", index=index)
    return ChainState(
        chain=state.chain,
        next_seq=max(state.next_seq, payload["seq"] + 1),
        prev=payload_digest(payload),
        seen_size=max(state.seen_size, payload["seen"]["size"]),
    )


def _check_seen(history: History, seen: Seen, index: int, report: Report) -> None:
    if seen.size > index:
        report.add("AUD-045", f"saw size {seen.size} before it was in the log", index=index)
    elif history.tree.root(seen.size) != seen.root:
        report.add("AUD-045", f"saw another root at size {seen.size}", index=index)


def check_aliases(history: History, report: Report) -> None:
    """AUD-049 for aliases in clear fields, and AUD-048 for envelopes that stand twice."""
    seen: dict[str, int] = {}
    for index, entry in sorted(history.entries.items()):
        if entry.env is not None and seen.setdefault(entry.env, index) != index:
            report.add("AUD-048", f"the envelope of entry {seen[entry.env]} again", index=index)
        if entry.type is EntryType.CONTRACT_SIGNED and entry.pub["party"] != entry.actor:
            report.add("AUD-049", "signed for another party", index=index)
        if entry.type is EntryType.ORG_ONBOARDED:
            _check_onboarded(history, index, report)


def _check_onboarded(history: History, index: int, report: Report) -> None:
    entry = history.entries[index]
    org = history.org_of(entry.pub["org"], entry)
    told = history.opened.get(index, {}).get("org")
    if org is None:
        report.not_checked("AUD-049: an organisation whose alias key is not in the bundle")
    if told is not None and org != told:
        report.add("AUD-049", "the alias is not that of the organisation it names", index=index)
