# SPDX-License-Identifier: Apache-2.0
"""Step 4, who cosigned, when, and whether it is enough. AUD-012, 013, 017, 018, 019, 084 and 092.

Who is believed stands in the auditor's policy alone; the log and the contracts only ask for more.

1. the quorum is safe: no single voter can vouch for two histories; it asks for at least as many voters as the
   audit clause of every contract that rules; no witness key of the log stands under two names; statements in
   ``witnesses/`` are looked at by `policies.verify.statements` (AUD-013);
2. the bundle's checkpoint has the quorum; an organisation has one vote, however many keys (AUD-012);
3. where a contract asks for ML-DSA-44, a log key of that kind signed the bundle's checkpoint (AUD-019);
4. along the published checkpoints no witness's time goes back (AUD-092);
5. the newest quorum is not older than ten minutes at ``--as-of`` (AUD-017), and no voter was away for more
   than a day while others cosigned, or up to ``--as-of`` (AUD-018);
6. witnesses and policy that the log names, and those that it named for a while, are those of the auditor's
   policy (AUD-084).

The *time of a quorum* is the time of the cosignature that completed it, by the witness's own clock.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from policies.errors import IriaiError
from policies.limits import WITNESS_MAX_AGE_MIN
from policies.log.checkpoint import KeyKind
from policies.log.entries import EntryType
from policies.log.errors import NoteError, QuorumUnsafeError
from policies.log.policy import check_safe
from policies.log.vkeys import VerifierKey
from policies.ports import iso_s, to_ms
from policies.verify.checkpoints import Cosigned, cosignatures
from policies.verify.report import Witnessed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from policies.contract.clauses import AuditClause
    from policies.log.policy import Policy
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_absence", "check_quorum", "check_trust", "most_votes", "quorum_time"]

_DAY_S = 86_400
_NEVER = 2**62


def quorum_time(policy: Policy, times: Mapping[VerifierKey, int]) -> int | None:
    """When these cosignatures became the quorum, in seconds; None if they are not, or none is asked for."""
    if policy.n == 0:
        return None
    signed: list[VerifierKey] = []
    for key, time_s in sorted(times.items(), key=lambda one: (one[1], one[0].name)):
        signed.append(key)
        if policy.satisfied(signed):
            return time_s
    return None


def most_votes(policy: Policy, cosigned: Sequence[Cosigned]) -> list[tuple[int, int, int]]:
    """Sizes from which on more voters had cosigned a checkpoint, or as many earlier; when; how many."""
    found: list[tuple[int, int, int]] = []
    earliest: dict[int, int] = {}
    for one in cosigned:
        most = max(earliest, default=0)
        late = min(one.times.values()) >= earliest.get(most, _NEVER)
        if late and len(policy.voters_of(one.times)) <= most:
            continue
        for at_s, votes in _arrivals(policy, one.times):
            if at_s < earliest.get(votes, _NEVER):
                earliest[votes] = at_s
                found.append((one.size, at_s, votes))
    return found


def _arrivals(policy: Policy, times: Mapping[VerifierKey, int]) -> Iterator[tuple[int, int]]:
    """When each further voter had cosigned, and how many had then."""
    signed: list[VerifierKey] = []
    before = 0
    for key, time_s in sorted(times.items(), key=lambda one: (one[1], one[0].name)):
        signed.append(key)
        votes = len(policy.voters_of(signed))
        if votes > before:
            yield time_s, votes
        before = votes


def check_quorum(history: History, note: str, report: Report) -> None:
    """AUD-012, and the policy's half of AUD-013; says in the report who witnessed.

    Args:
        history: Of the bundle.
        note: Of the bundle's checkpoint.
        report: Gets the findings.
    """
    policy = history.policy
    try:  # 1.
        check_safe(policy)
    except QuorumUnsafeError as error:
        report.add("AUD-013", f"needs {error.need}; found {error.found}")
    found = cosignatures(history, note, "AUD-014", "checkpoint", report)
    votes = policy.voters_of(found.times)
    report.witnessed = Witnessed(
        have=len(votes), voters=policy.n, needed=policy.k, time_s=quorum_time(policy, found.times)
    )
    if len(votes) < policy.k:  # 2.
        need = f"cosignatures of {policy.k} of {policy.n} voters: {' '.join(policy.voters)}"
        report.untrusted = f"needs {need}; found {len(votes)}: {' '.join(votes) or 'nobody'}"
        report.add("AUD-012", report.untrusted)
    elif not policy.n:
        report.not_checked(
            "AUD-012, 017, 018, and witnesses of a release (AUD-059): your policy asks for none (quorum none)"
        )


def _ruling(history: History) -> Iterator[tuple[str, AuditClause]]:
    """Audit clauses of contracts that are final and were not superseded, by digest."""
    gone = {entry.pub["old"] for _, entry in history.of(EntryType.CONTRACT_AMENDED)}
    for _, entry in history.of(EntryType.CONTRACT_FINALIZED):
        contract = history.contracts.get(entry.pub["contract"])
        if contract is not None and contract.audit is not None and contract.digest not in gone:
            yield contract.digest, contract.audit


def check_trust(history: History, note: str, report: Report) -> None:
    """AUD-084, and the contracts' half of AUD-013 and AUD-019; once contracts were read.

    Args:
        history: Of the bundle.
        note: Of the bundle's checkpoint.
        report: Gets the findings.
    """
    policy = history.policy
    required = False
    for named, clause in _ruling(history):
        if clause.witness_quorum > policy.k:  # 1.
            report.add(
                "AUD-013", f"contract {named} asks for {clause.witness_quorum}, your policy for {policy.k}"
            )
        required = required or clause.ml_dsa == "require"
    if required:  # 3.
        found = cosignatures(history, note, "AUD-014", "checkpoint", report).times
        if not any(key.kind is KeyKind.ML_DSA_44 and key in policy.logs for key in found):
            report.add("AUD-019", "a contract requires ML-DSA-44, and no such log key of your policy signed")
    in_force = _in_force(history, report)
    _check_same(history, in_force, report)  # 6.
    _check_policies(history, report)


def _in_force(history: History, report: Report) -> dict[str, tuple[str, int]]:
    """Witnesses that the log names at its end: vkey and entry by key name. AUD-013: a key under two names."""
    in_force: dict[str, tuple[str, int]] = {}
    keys: dict[str, bytes] = {}
    names: dict[bytes, dict[str, None]] = defaultdict(dict)
    for index, entry in history.of(EntryType.WITNESS_ADDED, EntryType.WITNESS_REMOVED):
        name, vkey = entry.pub["witness"], entry.pub["vkey"]
        removed = entry.type is EntryType.WITNESS_REMOVED
        try:
            key = None if removed else VerifierKey.parse(vkey).public_key
        except (NoteError, IriaiError) as error:
            report.add("AUD-013", f"witness {name}: needs {error.need}; found {error.found}", index=index)
            continue
        if name in keys:
            del names[keys.pop(name)][name]
        in_force.pop(name, None)
        if key is None:
            continue
        if names[key]:
            report.add("AUD-013", f"witness {name} has the key of {next(iter(names[key]))}", index=index)
        in_force[name], keys[name] = (vkey, index), key
        names[key][name] = None
    return in_force


def _check_same(history: History, in_force: Mapping[str, tuple[str, int]], report: Report) -> None:
    mine = {key.text() for key in history.policy.witnesses.values()}
    theirs = dict(in_force.values())
    if not mine:
        if theirs:
            report.not_checked(f"AUD-084: the log has {len(theirs)} witnesses, your policy names none")
        return
    for vkey in sorted(set(theirs) - mine):
        report.add("AUD-084", f"the log has witness {vkey}, your policy has not", index=theirs[vkey])
    for vkey in sorted(mine - set(theirs)):
        report.add("AUD-084", f"your policy has witness {vkey}, the log has not")
    gone = {
        entry.pub["vkey"]: index
        for index, entry in history.of(EntryType.WITNESS_ADDED)
        if entry.pub["vkey"] not in mine | set(theirs)
    }
    for vkey, index in sorted(gone.items()):
        report.add("AUD-084", f"the log had witness {vkey} for a while, your policy has not", index=index)


def _check_policies(history: History, report: Report) -> None:
    """Each change of the broker's own policy names the one before it."""
    last: str | None = None
    for index, entry in history.of(EntryType.LOG_GENESIS, EntryType.POLICY_ACTIVATED):
        if entry.type is EntryType.LOG_GENESIS:
            last = entry.pub["policy"]
        elif entry.pub["kind"] == "trust":
            if entry.pub["previous"] != last:
                report.add(
                    "AUD-084", f"it takes the place of {entry.pub['previous']}, not of {last}", index=index
                )
            last = entry.pub["digest"]


# --- over time ---


def check_absence(
    history: History, cosigned: Sequence[Cosigned], report: Report, *, as_of_ms: int | None
) -> None:
    """AUD-017, AUD-018 and AUD-092.

    Args:
        history: For the policy, and the times of entries about witnesses.
        cosigned: Published checkpoints with cosignatures, by size.
        report: Gets the findings.
        as_of_ms: When the auditor looks at it; None: no such time was given.
    """
    policy = history.policy
    last: dict[VerifierKey, int] = {}
    for one in cosigned:  # 4.
        for key, time_s in one.times.items():
            if time_s < last.get(key, 0):
                shown = f"{iso_s(time_s * 1000)} after {iso_s(last[key] * 1000)}"
                report.add("AUD-092", f"{key.name} at size {one.size}: {shown}")
            last[key] = max(time_s, last.get(key, 0))
    if policy.n == 0:
        return
    reached = [at_s for one in cosigned if (at_s := quorum_time(policy, one.times)) is not None]
    as_of_s = None if as_of_ms is None else as_of_ms // 1000
    if as_of_s is None:
        report.not_checked("AUD-017: how old the newest quorum is (--as-of)")
    elif as_of_s - max(reached, default=0) > WITNESS_MAX_AGE_MIN * 60:  # 5.
        newest = iso_s(max(reached) * 1000) if reached else "never"
        report.add("AUD-017", f"newest quorum {newest}, looked at {iso_s(as_of_s * 1000)}")
    for voter in policy.voters:
        keys = set(policy.keys_of(voter))
        for why in _away(history, cosigned, keys, as_of_s):
            report.add("AUD-018", f"{voter} {why}")


def _away(
    history: History, cosigned: Sequence[Cosigned], keys: set[VerifierKey], as_of_s: int | None
) -> Iterator[str]:
    """Stretches of more than a day in which others cosigned and none of these keys did."""
    texts = {key.text() for key in keys}
    added = [entry.ts for _, entry in history.of(EntryType.WITNESS_ADDED) if entry.pub["vkey"] in texts]
    begin = to_ms(min(added)) // 1000 if added else 0
    last, since, told = begin, 0, False
    for one in cosigned:
        mine = [time_s for key, time_s in one.times.items() if key in keys]
        if mine:
            last, since, told = max(last, *mine), 0, False
            continue
        now = max(one.times.values())
        since = since or max(now, begin)  # the first head that it missed, once it was a witness
        if now - since > _DAY_S and not told:
            yield f"cosigned nothing from {iso_s(since * 1000)} to {iso_s(now * 1000)}; others did"
            told = True
    if as_of_s is not None and as_of_s - last > _DAY_S and not told:
        yield f"cosigned nothing after {iso_s(last * 1000)}, looked at {iso_s(as_of_s * 1000)}"
