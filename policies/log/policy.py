# SPDX-License-Identifier: Apache-2.0
"""Who is believed about a log (C2SP tlog-policy): its keys, its witnesses, and how many of them it takes.

A policy file is the auditor's, from the auditor's own hand; each broker also prints one as it sees itself.
One statement per line, words separated by spaces, ``#`` at a line's start or after a space begins a comment::

    log pool.example/log/2026a+<hash>+<key>     required; at least one of kind 0x01
    broker ed25519:<64 hex>                     required; the key that signs contracts and statements
    contract sha256:<64 hex>                    optional, repeatable; only these contracts are accepted
    witness kita kita.example/w+<hash>+<key>    repeatable; a short name, then a vkey of kind 0x04 or 0x06
    group pool 3 kita nord hanbit auditor       repeatable; any, all, or how many of these must cosign
    quorum pool                                 required; a witness or a group, or `none`

Members' keys are not in it: they stand in the signed contract, and the contract is pinned here by digest.
Without a ``contract`` line the contract, and with it the members' keys, is taken from the bundle, where the
broker's pinned key must have signed it; the report says so.

Rules:

- Refused: a weak key, the same public key twice whatever its name, two keys with one name and key hash, a
  second ``quorum`` line, a name before its definition, a name in two groups, one name for two things.
- **One vote per organisation.** What the quorum's group lists are the voters. Several keys of one
  organisation (its key names agree up to the last slash) are one voter: ``group org-kita any kita-1 kita-2``.
  A policy in which one organisation stands under two voters is refused.
- Two conflicting heads can both reach k of n voters only if 2k - n of them signed both. So a quorum
  tolerates ``2k - n - 1`` voters who sign everything; `check_safe` refuses one that tolerates none.
- Who opens a note by a policy calls `open_witnessed`; it fails closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.log.checkpoint import open_note, parse_checkpoint, parse_note, signed_by_log
from policies.log.errors import QuorumError, QuorumUnsafeError
from policies.log.policy_reader import NO_QUORUM, Group, PolicyReader, policy_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.log.checkpoint import Checkpoint, Note
    from policies.log.vkeys import VerifierKey

__all__ = [
    "NO_QUORUM",
    "Group",
    "Policy",
    "check_safe",
    "default_quorum",
    "open_witnessed",
    "parse_policy",
    "policy_text",
    "pool_policy",
]

POLICY_BYTES = 256 * 1024  # 64 witnesses with an ML-DSA-44 key each are half of it
POLICY_LINES = 500
_POOL = "pool"
_FEW_VOTERS = 5  # below it, one voter who signs everything is provided for; from it on, two


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What somebody trusts about a log.

    Attributes:
        logs: Keys of the log; several after a rotation.
        broker: Raw public key that signs contracts and statements.
        contracts: Digests of the contracts that are accepted; empty for any.
        witnesses: Witness keys by short name.
        groups: Groups by name, each after those it lists.
        quorum: Name of a witness or group, or ``none``.
    """

    logs: tuple[VerifierKey, ...]
    broker: bytes
    contracts: tuple[str, ...] = ()
    witnesses: Mapping[str, VerifierKey] = field(default_factory=dict, hash=False)
    groups: Mapping[str, Group] = field(default_factory=dict, hash=False)
    quorum: str = NO_QUORUM

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """Every key under which a signature of a note is known: the log's and the witnesses'."""
        return (*self.logs, *self.witnesses.values())

    @property
    def voters(self) -> tuple[str, ...]:
        """Names that have one vote each in the quorum; none for ``quorum none``."""
        group = self._top()
        if group is not None:
            return group.members
        return () if self.quorum == NO_QUORUM else (self.quorum,)

    @property
    def n(self) -> int:
        """How many voters there are."""
        return len(self.voters)

    @property
    def k(self) -> int:
        """How many of the voters must cosign."""
        group = self._top()
        return self.n if group is None else group.threshold

    @property
    def tolerates(self) -> int:
        """How many voters may sign two conflicting heads before both can reach the quorum."""
        return 2 * self.k - self.n - 1

    def voters_of(self, verified: Iterable[VerifierKey]) -> tuple[str, ...]:
        """Voters that cosigned, if these keys' signatures hold."""
        signed = frozenset(verified)
        return tuple(name for name in self.voters if self._holds(name, signed))

    def satisfied(self, verified: Iterable[VerifierKey]) -> bool:
        """Whether these keys' cosignatures are the quorum; always for ``quorum none``."""
        return len(self.voters_of(verified)) >= self.k

    def keys_of(self, name: str) -> tuple[VerifierKey, ...]:
        """Keys that stand under a voter, group or witness."""
        if name in self.witnesses:
            return (self.witnesses[name],)
        return tuple(key for member in self.groups[name].members for key in self.keys_of(member))

    def _top(self) -> Group | None:
        """The quorum's group; one whose only member is a group is that group."""
        group = self.groups.get(self.quorum)
        while group is not None and len(group.members) == 1 and group.members[0] in self.groups:
            group = self.groups[group.members[0]]
        return group

    def _holds(self, name: str, signed: frozenset[VerifierKey]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name] in signed
        group = self.groups[name]
        return sum(self._holds(member, signed) for member in group.members) >= group.threshold


def default_quorum(n: int) -> int:
    """How many of ``n`` voters a pool asks for: safe against one that signs everything, from five on two.

    Two voters are both needed, and one alone is asked although nothing protects against itself.
    """
    provided_for = 1 if n < _FEW_VOTERS else 2
    return min(n, (n + provided_for) // 2 + 1)


def check_safe(policy: Policy) -> None:
    """Refuses a quorum that one voter who signs everything could give to two histories.

    ``quorum none`` passes: it claims nothing. Whoever needs witnesses asks for `Policy.n` first.

    Raises:
        QuorumUnsafeError: With the smallest k that is safe.
    """
    if policy.n and policy.tolerates < 1:
        least = (policy.n + 1) // 2 + 1
        remedy = f"raise k to {least}" if least <= policy.n else "add voters: two are the least"
        raise QuorumUnsafeError(
            need="2k - n - 1 >= 1, so that one voter who signs two histories is not enough for both",
            found=f"k = {policy.k} of n = {policy.n}, which tolerates {max(policy.tolerates, 0)}",
            remedy=remedy,
        )


def open_witnessed(note: str, policy: Policy) -> tuple[Checkpoint, Note]:
    """The checkpoint of a note that a log key and the quorum of a policy signed, and who did when.

    1. the note parses and its text is a checkpoint; 2. no known signature fails; 3. a log key of the policy
    signed it, whose name is the origin; 4. the quorum cosigned it.

    Raises:
        NoteError: Steps 1 and 2.
        QuorumError: Steps 3 and 4.
    """
    checkpoint = parse_checkpoint(parse_note(note).text)
    opened = open_note(note, policy.keys)
    if not signed_by_log(checkpoint, opened):
        raise QuorumError(
            need="a signature by a log key of the policy: " + ", ".join(key.text() for key in policy.logs),
            found=f"none for {ascii(checkpoint.origin)[1:-1][:120]}",
            remedy="compare the log's vkey by another way; this may be another log, or a forged one",
        )
    if not policy.satisfied(opened.verified):
        have = policy.voters_of(opened.verified)
        raise QuorumError(
            need=f"cosignatures of {policy.k} of {policy.n} voters: " + " ".join(policy.voters),
            found=f"{len(have)} of them: " + (" ".join(have) or "nobody"),
            remedy="fetch a checkpoint again in a moment; ask the voters that are missing to come back",
        )
    return checkpoint, opened


def pool_policy(
    *,
    logs: Iterable[VerifierKey],
    broker: bytes,
    witnesses: Mapping[str, Iterable[VerifierKey]],
    contracts: Iterable[str] = (),
    k: int | None = None,
) -> Policy:
    """A policy in which each organisation has one vote.

    Args:
        logs: Keys of the log.
        broker: Raw public key of the broker.
        witnesses: Keys of each organisation, by a name for it; one without keys has no vote.
        contracts: Digests of contracts.
        k: How many organisations must cosign; `default_quorum` of their number without it, 0 for none.

    Raises:
        PolicyError: Two keys that are the same, or something else that no policy file may say.
        QuorumUnsafeError: Fewer organisations than ``k``.
    """
    named: dict[str, VerifierKey] = {}
    groups: dict[str, Group] = {}
    voters: list[str] = []
    for organisation, held in witnesses.items():
        keys = tuple(held)
        name = f"org:{organisation}" if organisation in (NO_QUORUM, _POOL) else organisation
        members = (name,) if len(keys) == 1 else tuple(f"{name}:{at}" for at, _ in enumerate(keys, start=1))
        named.update(zip(members, keys, strict=True))
        if len(keys) > 1:
            groups[name] = Group(1, members)
        if keys:
            voters.append(name)
    least = default_quorum(len(voters)) if k is None else k
    if least > len(voters):
        raise QuorumUnsafeError(
            need=f"{least} organisations with a witness key",
            found=f"{len(voters)}: " + (" ".join(voters) or "nobody"),
            remedy="let the missing organisations state their witness keys first",
        )
    if least:
        groups[_POOL] = Group(least, tuple(voters))
    made = Policy(
        logs=tuple(logs),
        broker=broker,
        contracts=tuple(contracts),
        witnesses=named,
        groups=groups,
        quorum=_POOL if least else NO_QUORUM,
    )
    return parse_policy(policy_text(made))  # so that its rules hold for what programs put together too


def policy_text(policy: Policy) -> str:
    """A policy file that `parse_policy` reads into this policy; its last line is the quorum."""
    lines = [f"log {key.text()}" for key in policy.logs]
    lines += [f"broker ed25519:{policy.broker.hex()}"]
    lines += [f"contract {one}" for one in policy.contracts]
    lines += [f"witness {name} {key.text()}" for name, key in policy.witnesses.items()]
    lines += [f"group {name} {one.threshold} {' '.join(one.members)}" for name, one in policy.groups.items()]
    return "\n".join([*lines, f"quorum {policy.quorum}", ""])


def _check_one_vote(policy: Policy) -> None:
    """Refuses a policy in which an organisation stands under two voters."""
    votes: dict[str, str] = {}
    for voter in policy.voters:
        for organisation in {key.organisation for key in policy.keys_of(voter)}:
            if organisation in votes:
                raise policy_error(
                    0,
                    f"one vote per organisation: put its keys into one group, `group NAME any {voter} ...`",
                    f"{organisation} under {votes[organisation]} and {voter}",
                )
            votes[organisation] = voter


def parse_policy(text: str) -> Policy:
    """The policy behind a policy file; see the module docstring.

    Raises:
        PolicyError: A line that is not understood, something unsafe, or a required line is missing.
    """
    lines = text.split("\n")
    if len(text) > POLICY_BYTES or len(lines) > POLICY_LINES:
        raise policy_error(0, f"at most {POLICY_BYTES} characters and {POLICY_LINES} lines", "more")
    reader = PolicyReader()
    for number, line in enumerate(lines, start=1):
        reader.read(number, line)
    reader.finish()
    policy = Policy(
        logs=tuple(reader.logs),
        broker=reader.brokers[0],
        contracts=tuple(reader.contracts),
        witnesses=reader.witnesses,
        groups=reader.groups,
        quorum=reader.quorum,
    )
    _check_one_vote(policy)
    return policy
