# SPDX-License-Identifier: Apache-2.0
"""What was found about an amendment, as one canonical document that anybody can check again.

    {"schema": "iriai-verdict/1", "old": "sha256:…", "new": "sha256:…", "kind": "tighten",
     "initiator": "kita", "no_looser": false, "basis": "proof", "z3": "5.4.1",
     "changes": […], "objections": […], "witnesses": […]}

- ``no_looser`` is true only where there is no objection: the successor allows nothing that its predecessor
  refuses, takes no entitlement from another party, and leaves alone what only people can judge.
- ``basis`` says on what that rests: the order table alone (``order``), or the search of z3 (``proof``).
- A *witness* is a concrete request that the successor allows and the predecessor refuses. It stands in a
  verdict only after `evaluate` said so too.
- An *objection* names a clause and why it keeps the amendment from being a tightening.

The digest of the bytes names the verdict in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from policies.contract.amendment.succession import as_under
from policies.contract.decision import evaluate
from policies.contract.errors import VerdictMalformedError
from policies.contract.findings import Outcome
from policies.contract.requests import request_from_json, request_to_json, state_from_json, state_to_json
from policies.encoding import canonical, digest
from policies.encoding import parse as parse_canonical
from policies.errors import EncodingError
from policies.limits import VERDICT_BYTES

if TYPE_CHECKING:
    from policies.contract.amendment.changes import Change
    from policies.contract.clauses import Contract
    from policies.contract.decision import Decision
    from policies.contract.requests import ContractState, Request

__all__ = ["SCHEMA", "Basis", "Objection", "Verdict", "Why", "Witness", "read_verdict"]

Json = Any  # a JSON value
SCHEMA: Final = "iriai-verdict/1"
Basis = Literal["order", "proof"]
Why = Literal["entitlement", "law", "looser", "witness", "not-proven"]
_KEYS: Final = frozenset(
    {
        "schema",
        "old",
        "new",
        "kind",
        "initiator",
        "no_looser",
        "basis",
        "z3",
        "changes",
        "objections",
        "witnesses",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why a clause keeps the amendment from being a tightening.

    Attributes:
        clause: Its id.
        why: ``entitlement`` (takes from another party), ``law`` (only people can judge it), ``looser`` (by
            the order table, where no proof over requests can say more), ``witness`` (a request shows it),
            ``not-proven`` (nobody could show that it is not looser).
        words: For people.
    """

    clause: str
    why: Why
    words: str

    def to_json(self) -> dict[str, Json]:
        """The objection as a verdict holds it."""
        return {"clause": self.clause, "why": self.why, "words": self.words}


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A request that the successor allows and one clause of the predecessor refuses.

    Attributes:
        clause: Of the predecessor.
        request: As asked under the successor.
        state: What is known about the contract then.
    """

    clause: str
    request: Request
    state: ContractState

    def replays(self, old: Contract, new: Contract) -> bool:
        """Whether the evaluator says so too: the new contract allows it, the clause of the old refuses it."""
        allowed = evaluate(new, self.state, self.request).allow
        return allowed and self.clause in self.under(old, new).clauses

    def under(self, old: Contract, new: Contract) -> Decision:
        """The predecessor's decision about the same request."""
        return evaluate(old, self.state, as_under(self.request, new, old))

    def words(self, old: Contract, new: Contract) -> str:
        """The request, and what the old clause finds in it, in one line."""
        found = [one for one in self.under(old, new).refusals if one.clause == self.clause]
        found.sort(key=lambda one: one.outcome is not Outcome.VIOLATED)
        said = f"{found[0].check} {found[0].found} (needs {found[0].need})" if found else "refused"
        who = self.request.party or "somebody"
        return (
            f"witness: {self.request.TYPE} {who}, {said}: "
            f"version {old.version} refuses, version {new.version} allows"
        )

    def to_json(self) -> dict[str, Json]:
        """The witness as a verdict holds it."""
        return {
            "clause": self.clause,
            "request": request_to_json(self.request),
            "state": state_to_json(self.state),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about a successor.

    Attributes:
        old: Digest of the predecessor.
        new: Digest of the successor.
        kind: ``tighten`` or ``change``.
        initiator: Short name of who starts the amendment; None for nobody in particular.
        no_looser: Whether it may enter as a tightening.
        basis: ``order`` or ``proof``.
        z3_version: Of the prover, where one was asked.
        changes: The semantic diff.
        objections: Empty exactly where `no_looser` is true.
        witnesses: One request for each clause that is looser, replayed.
    """

    old: str
    new: str
    kind: str
    initiator: str | None
    no_looser: bool
    basis: Basis
    z3_version: str | None
    changes: tuple[Change, ...]
    objections: tuple[Objection, ...]
    witnesses: tuple[Witness, ...]

    def to_json(self) -> dict[str, Json]:
        """The verdict as a JSON object."""
        return {
            "schema": SCHEMA,
            "old": self.old,
            "new": self.new,
            "kind": self.kind,
            "initiator": self.initiator,
            "no_looser": self.no_looser,
            "basis": self.basis,
            "z3": self.z3_version,
            "changes": [one.to_json() for one in self.changes],
            "objections": [one.to_json() for one in self.objections],
            "witnesses": [one.to_json() for one in self.witnesses],
        }

    def to_bytes(self) -> bytes:
        """The canonical bytes."""
        return canonical(self.to_json())

    @property
    def digest(self) -> str:
        """Digest of the canonical bytes; the log names the verdict by it."""
        return digest(self.to_bytes())


def read_verdict(data: bytes) -> dict[str, Json]:
    """The JSON object of a verdict's bytes.

    Raises:
        VerdictMalformedError: Not canonical, too large, or another shape.
    """
    if len(data) > VERDICT_BYTES:
        raise _malformed(f"at most {VERDICT_BYTES} bytes", f"{len(data)} bytes")
    try:
        tree = parse_canonical(data)
    except EncodingError as error:
        raise _malformed(error.need, error.found) from error
    if not isinstance(tree, dict) or set(tree) != _KEYS or tree["schema"] != SCHEMA:
        raise _malformed(f"an object of schema {SCHEMA}", type(tree).__name__)
    if not isinstance(tree["no_looser"], bool) or tree["kind"] not in ("tighten", "change"):
        raise _malformed("kind and no_looser", ascii((tree["kind"], tree["no_looser"]))[:80])
    if not (tree["initiator"] is None or isinstance(tree["initiator"], str)):
        raise _malformed("a short name or null", ascii(tree["initiator"])[:80])
    if not isinstance(tree["witnesses"], list) or not isinstance(tree["changes"], list):
        raise _malformed("lists of changes and witnesses", type(tree["witnesses"]).__name__)
    return tree


def read_witness(tree: Json) -> Witness:
    """The witness behind `Witness.to_json`.

    Raises:
        VerdictMalformedError: Another shape.
        RequestMalformedError: Its request or state has another shape.
    """
    if not isinstance(tree, dict) or set(tree) != {"clause", "request", "state"}:
        raise _malformed("a witness", type(tree).__name__)
    return Witness(
        clause=str(tree["clause"]),
        request=request_from_json(tree["request"]),
        state=state_from_json(tree["state"]),
    )


def _malformed(need: str, found: str) -> VerdictMalformedError:
    return VerdictMalformedError(
        need=need, found=found, remedy="ask for the verdict again; if it repeats, report its sender"
    )
