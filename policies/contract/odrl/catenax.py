# SPDX-License-Identifier: Apache-2.0
"""A read-only reader of Catena-X usage policies: what of one a contract of ours could say, and what not.

It answers the question of a member that has such a policy today: what of it can be agreed here? It makes no
contract and never will: the same word can mean another thing, so a person writes the clause.

- A constraint inside ``or`` or ``xone`` does not map: a contract has no alternatives.
- A left operand that the profile of Catena-X does not have is listed too, as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import OdrlRefusedError
from policies.contract.registry import KINDS
from policies.limits import CLAUSES, NESTING_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CatenaxConstraint", "read_catenax"]

Json = Any  # a JSON value

_SPACES: Final = (
    "https://w3id.org/catenax/2025/9/policy/",
    "https://w3id.org/catenax/policy/",
    "cx-policy:",
)
_RULES: Final = ("permission", "prohibition", "obligation")
_ALTERNATIVES: Final = frozenset({"or", "xone"})
_LOGICAL: Final = ("and", "andSequence", "or", "xone")
# left operand -> the kind of clause that says such a thing, and what to mind; no kind: nothing here says it
_MEANT: Final[dict[str, tuple[str | None, str]]] = {
    "AffiliatesBpnl": (None, "parties are named one by one, by key"),
    "AffiliatesRegion": (None, "parties are named one by one, by key"),
    "BusinessPartnerGroup": (None, "parties are named one by one, by key"),
    "BusinessPartnerNumber": ("party", "as an enrolled organisation with its key"),
    "ConfidentialInformationMeasures": (None, "data do not leave their owner"),
    "ConfidentialInformationSharing": (None, "data do not leave their owner"),
    "ContractReference": ("prose", "the text itself, by its hash"),
    "ContractTermination": ("exit", "with a notice and what becomes of models"),
    "DataFrequency": (None, "no data are delivered"),
    "DataProvisioningEndDate": ("term", "as expires"),
    "DataProvisioningEndDurationDays": (None, "a term has dates, no duration"),
    "DataUsageEndDate": ("term", "as expires; a released model stays under its licence"),
    "DataUsageEndDefinition": (None, "a term has dates, no event"),
    "DataUsageEndDurationDays": (None, "a term has dates, no duration"),
    "ExclusiveUsage": (None, "a pool is for all its contributors"),
    "FrameworkAgreement": (None, "nothing outside the contract binds its software"),
    "JurisdictionLocation": ("law", "as governing"),
    "JurisdictionLocationReference": ("law", "as forum"),
    "Liability": ("liability", "as cap_eur and uncapped"),
    "ManagedLegalEntityBpnl": (None, "parties are named one by one, by key"),
    "ManagedLegalEntityRegion": (None, "parties are named one by one, by key"),
    "Membership": (None, "two operators admit a member; no clause repeats it"),
    "Precedence": ("prose", "prevails is always true"),
    "UsagePurpose": ("purpose", "with a text, and a recipe that serves it"),
    "UsageRestriction": ("forbidden", "with the check that looks at it"),
    "VersionChanges": (None, "a recipe is named by its digest"),
    "Warranty": (None, "no clause says this"),
    "WarrantyDefinition": (None, "no clause says this"),
    "WarrantyDuration": (None, "no clause says this"),
    "WarrantyDurationMonths": (None, "no clause says this"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatenaxConstraint:
    """One constraint of a foreign policy.

    Attributes:
        path: Where it stands.
        left: Its left operand, without its namespace.
        value: Its right operand, as text.
        kind: Kind of the clause that could say it, or None.
        enforced: Whether code could refuse by such a clause; else it would be law only.
        words: What to mind, or why it does not map.
    """

    path: str
    left: str
    value: str
    kind: str | None
    enforced: bool
    words: str

    @property
    def maps(self) -> bool:
        """Whether a clause of ours could say it."""
        return self.kind is not None


def read_catenax(tree: Json) -> tuple[CatenaxConstraint, ...]:
    """Every constraint of a Catena-X policy, or of the policy in a message of the Dataspace Protocol.

    Raises:
        OdrlRefusedError: No policy in it, or one of an absurd size.
    """
    policy, at = _policy(tree)
    found: list[CatenaxConstraint] = []
    for kind in _RULES:
        rules = policy.get(kind, [])
        for index, rule in enumerate(rules if isinstance(rules, list) else [rules]):
            place = f"{at}{kind}[{index}]"
            below = rule.get("constraint", []) if isinstance(rule, Mapping) else []
            found.extend(_constraints(below, f"{place}.constraint", alternatives=False, depth=0))
            if len(found) > CLAUSES:
                raise _refuse(f"at most {CLAUSES} constraints", "more")
    return tuple(found)


def _policy(tree: Json) -> tuple[Mapping[str, Json], str]:
    if not isinstance(tree, Mapping):
        raise _refuse("an object", type(tree).__name__)
    for name in ("policy", "agreement", "offer"):
        if isinstance(tree.get(name), Mapping):
            return tree[name], f"{name}."
    if not any(name in tree for name in _RULES):
        raise _refuse("a policy with rules", str(sorted(tree)[:10]))
    return tree, ""


def _constraints(tree: Json, at: str, *, alternatives: bool, depth: int) -> Iterator[CatenaxConstraint]:
    if depth > NESTING_DEPTH:
        raise _refuse(f"nesting of at most {NESTING_DEPTH}", at)
    for index, one in enumerate(tree if isinstance(tree, list) else [tree]):
        place = f"{at}[{index}]" if isinstance(tree, list) else at
        if not isinstance(one, Mapping):
            continue
        logical = [name for name in _LOGICAL if name in one]
        for name in logical:
            inside = alternatives or name in _ALTERNATIVES
            yield from _constraints(one[name], f"{place}.{name}", alternatives=inside, depth=depth + 1)
        if not logical:
            yield _atom(one, place, alternatives=alternatives)


def _atom(tree: Mapping[str, Json], at: str, *, alternatives: bool) -> CatenaxConstraint:
    left = str(tree.get("leftOperand"))
    for space in _SPACES:
        left = left.removeprefix(space)
    kind, words = _MEANT.get(left, (None, "no left operand of the Catena-X profile"))
    if alternatives and kind is not None:
        kind, words = None, "one of several alternatives: a contract has none"
    return CatenaxConstraint(
        path=at,
        left=ascii(left)[1:-1][:120],
        value=ascii(tree.get("rightOperand"))[:200],
        kind=kind,
        enforced=kind is not None and bool(KINDS[kind].points),
        words=words,
    )


def _refuse(need: str, found: str) -> OdrlRefusedError:
    return OdrlRefusedError(
        need=need, found=ascii(found)[1:-1][:200], remedy="give a usage policy of the Catena-X profile"
    )
