# SPDX-License-Identifier: Apache-2.0
"""The checked import: what a policy of our profile says, or every place where it says something else.

The protocol's own schema lets any property, operand and action through. Here nothing is skipped:

1. the message is an agreement or an offer, under the protocol's context alone, with the known keys only
2. the policy names our profile, a contract by digest, the clause, and who and what it is about
3. every rule has a known action and at least one constraint, and no nested duty
4. every constraint is one comparison of a left operand of the profile, by an operator of that operand, with
   a value written as its kind is, and names its clause

All refusals of a message are collected, each by its name and path, and raised together. A policy that passes
still proves nothing: `confirm` compares it with the contract behind the digest. The contract is the truth.

    view = read_view(message)
    pair = confirm(parse(fetch(view.digest)), view)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import OdrlRefusedError, ViewDisagreesError
from policies.contract.grammar import CLAUSE_ID
from policies.contract.odrl import agreement, offer, pairs
from policies.contract.odrl.dsp_messages import CONTEXT
from policies.contract.odrl.profile import ACTIONS, CLAUSE, CONTRACT_DIGEST, LEFT, PROFILE, value_of
from policies.encoding import is_digest
from policies.limits import DSP_ID_CHARS, ODRL_MESSAGES, ODRL_REFUSALS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.contract.clauses import Contract
    from policies.contract.odrl import Pair

__all__ = ["Comparison", "FoundRule", "Refusal", "View", "confirm", "read_bundle", "read_view"]

Json = Any  # a JSON value

_POLICIES: Final = {"ContractAgreementMessage": "agreement", "ContractOfferMessage": "offer"}
_MESSAGE_KEYS: Final = frozenset({"@context", "@type", "providerPid", "consumerPid", "callbackAddress"})
_OFFER_KEYS: Final = frozenset(
    {"@id", "@type", "profile", "target", CONTRACT_DIGEST, CLAUSE, "permission", "prohibition"}
)
_AGREEMENT_KEYS: Final = _OFFER_KEYS | {"assigner", "assignee", "timestamp"}
_RULE_KEYS: Final = frozenset({"action", "constraint"})
_CONSTRAINT_KEYS: Final = frozenset({"leftOperand", "operator", "rightOperand", CLAUSE})
_LOGICAL: Final = frozenset({"and", "or", "xone", "andSequence"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One place of a policy that is not read, and why."""

    path: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.name}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Comparison:
    """One constraint."""

    clause: str
    left: str
    operator: str
    value: str | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRule:
    """One rule: ``permission`` or ``prohibition``, its action, its constraints in the order of the policy."""

    kind: str
    action: str
    constraints: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a policy of the profile says.

    Attributes:
        kind: ``agreement`` or ``offer``.
        digest: Of the contract that it is a view of.
        clause: Of the recipe or tier.
        target: IRI of the data set or model.
        assigner: Who allows; None in an offer.
        assignee: Who is allowed; None in an offer.
        rules: In the order of the policy.
    """

    kind: str
    digest: str
    clause: str
    target: str
    assigner: str | None
    assignee: str | None
    rules: tuple[FoundRule, ...]


def read_view(tree: Json) -> View:
    """What a message says.

    Raises:
        OdrlRefusedError: It says something that is not of the profile; every place is named.
    """
    reader = _Reader()
    view = reader.message(tree)
    if view is None or reader.refusals:
        raise _refused(reader.refusals)
    return view


def read_bundle(trees: Iterable[Json]) -> tuple[View, ...]:
    """What the messages of one contract say; see `read_view`.

    Raises:
        OdrlRefusedError: One of them is refused, they are views of different contracts, there are none, or
            there are too many.
    """
    listed = list(trees)
    if not 0 < len(listed) <= ODRL_MESSAGES:
        why = f"a bundle has 1 to {ODRL_MESSAGES} messages"
        raise _refused([Refusal(path="", name=f"{len(listed)} messages", why=why)])
    reader = _Reader()
    views = []
    for index, tree in enumerate(listed):
        reader.prefix = f"[{index}]." if len(listed) > 1 else ""
        views.append(reader.message(tree))
    found = [one for one in views if one is not None]
    if reader.refusals or len(found) < len(views):
        raise _refused(reader.refusals)
    digests = sorted({one.digest for one in found})
    if len(digests) > 1:
        why = "one bundle is about one contract"
        raise _refused([Refusal(path="", name=", ".join(digests[:3]), why=why)])
    return tuple(found)


def _refused(refusals: list[Refusal]) -> OdrlRefusedError:
    shown = "; ".join(str(one) for one in refusals[:ODRL_REFUSALS])
    more = len(refusals) - ODRL_REFUSALS
    return OdrlRefusedError(
        need=f"a policy of the profile {PROFILE}, nothing besides",
        found=shown + (f"; and {more} more" if more > 0 else ""),
        remedy="agree on the terms in a contract of our language and export it; a policy makes no contract",
    )


@dataclass(slots=True)
class _Reader:
    """Collects refusals. Each method gives None where its part cannot be read."""

    refusals: list[Refusal] = field(default_factory=list)
    prefix: str = ""

    def refuse(self, path: str, name: object, why: str) -> None:
        shown = name if isinstance(name, str) else "nothing" if name is None else ascii(name)
        shown = ascii(shown)[1:-1][:120]
        self.refusals.append(Refusal(path=self.prefix + path, name=shown, why=why))

    def keys(self, tree: Mapping[str, Json], allowed: frozenset[str], at: str) -> None:
        for name in tree:
            if name not in allowed:
                why = "a nested duty: the profile has none" if name == "duty" else "an unknown property"
                self.refuse(f"{at}.{name}" if at else name, name, why)

    def text(self, tree: Mapping[str, Json], name: str, at: str) -> str:
        value = tree.get(name)
        if isinstance(value, str) and 0 < len(value) <= DSP_ID_CHARS and value.isprintable():
            return value
        self.refuse(f"{at}.{name}", value, "text is needed")
        return ""

    # 1.

    def message(self, tree: Json) -> View | None:
        """A message with one policy."""
        if not isinstance(tree, Mapping):
            self.refuse("message", type(tree).__name__, "a message is an object")
            return None
        name = _POLICIES.get(str(tree.get("@type")))
        if name is None:
            self.refuse("@type", tree.get("@type"), "no message that holds an agreement or an offer")
            return None
        if tree.get("@context") != [CONTEXT]:
            self.refuse(
                "@context", tree.get("@context"), f"only [{CONTEXT}]: another can give words a meaning"
            )
        self.keys(tree, _MESSAGE_KEYS | {name}, "")
        return self.policy(tree.get(name), name)

    # 2.

    def policy(self, tree: Json, at: str) -> View | None:
        """An agreement or an offer."""
        if not isinstance(tree, Mapping):
            self.refuse(at, tree, "a policy is an object")
            return None
        own = at == "agreement"
        self.keys(tree, _AGREEMENT_KEYS if own else _OFFER_KEYS, at)
        if tree.get("@type") != at.title():
            self.refuse(f"{at}.@type", tree.get("@type"), f"{at.title()} is needed")
        if tree.get("profile") != PROFILE:
            self.refuse(f"{at}.profile", tree.get("profile"), f"only the profile {PROFILE} is read")
        digest = tree.get(CONTRACT_DIGEST)
        if not is_digest(digest):
            self.refuse(f"{at}.{CONTRACT_DIGEST}", digest, "the digest of a contract is needed")
        self.text(tree, "@id", at)
        return View(
            kind=at,
            digest=str(digest),
            clause=self.clause(tree, at),
            target=self.text(tree, "target", at),
            assigner=self.text(tree, "assigner", at) if own else None,
            assignee=self.text(tree, "assignee", at) if own else None,
            rules=tuple(self.rules(tree, at)),
        )

    def clause(self, tree: Mapping[str, Json], at: str) -> str:
        value = tree.get(CLAUSE)
        if isinstance(value, str) and CLAUSE_ID.fullmatch(value):
            return value
        self.refuse(f"{at}.{CLAUSE}", value, "the id of a clause is needed")
        return ""

    # 3.

    def rules(self, tree: Mapping[str, Json], at: str) -> Iterable[FoundRule]:
        """The permissions, of which there is one at least, and the prohibitions."""
        for kind in ("permission", "prohibition"):
            listed = tree.get(kind, [] if kind == "prohibition" else None)
            if not isinstance(listed, list) or (kind in tree and not listed):
                self.refuse(f"{at}.{kind}", listed, "a list of rules is needed")
                continue
            for index, one in enumerate(listed):
                yield self.rule(one, kind, f"{at}.{kind}[{index}]")

    def rule(self, tree: Json, kind: str, at: str) -> FoundRule:
        if not isinstance(tree, Mapping):
            self.refuse(at, tree, "a rule is an object")
            return FoundRule(kind=kind, action="", constraints=())
        self.keys(tree, _RULE_KEYS, at)
        action = tree.get("action")
        if not isinstance(action, str) or action not in ACTIONS:
            self.refuse(f"{at}.action", action, "an unknown action")
        listed = tree.get("constraint")
        if not isinstance(listed, list) or not listed:
            self.refuse(f"{at}.constraint", listed, "at least one constraint is needed")
            listed = []
        found = [self.constraint(one, f"{at}.constraint[{i}]") for i, one in enumerate(listed)]
        return FoundRule(kind=kind, action=str(action), constraints=tuple(one for one in found if one))

    # 4.

    def constraint(self, tree: Json, at: str) -> Comparison | None:
        """One comparison."""
        if not isinstance(tree, Mapping):
            self.refuse(at, tree, "a constraint is an object")
            return None
        logical = sorted(_LOGICAL & set(tree))
        if logical:
            self.refuse(f"{at}.{logical[0]}", logical[0], "a logical constraint: the profile has none")
            return None
        self.keys(tree, _CONSTRAINT_KEYS, at)
        clause = self.clause(tree, at)
        left, operator = tree.get("leftOperand"), tree.get("operator")
        known = LEFT.get(left) if isinstance(left, str) else None
        if known is None:
            self.refuse(f"{at}.leftOperand", left, "an unknown leftOperand")
            return None
        if not isinstance(operator, str) or operator not in known.operators:
            self.refuse(f"{at}.operator", operator, f"{left} has " + " ".join(sorted(known.operators)))
        value = value_of(known.kind, tree.get("rightOperand"))
        if value is None:
            self.refuse(f"{at}.rightOperand", tree.get("rightOperand"), f"{left} is a {known.kind.value}")
            return None
        return Comparison(clause=clause, left=str(left), operator=str(operator), value=value)


def confirm(contract: Contract, view: View) -> Pair:
    """The pair of the contract that a policy is a view of.

    1. it names this contract
    2. the contract has a pair of this clause and target
    3. the rules are those that the contract gives this pair, no fewer and no more

    How the parties are called is not compared: connectors know each other by names of their own.

    Raises:
        ViewDisagreesError: One of them does not hold.
    """
    # 1.
    if view.digest != contract.digest:
        raise _disagrees(None, f"a view of {contract.digest}", view.digest)
    # 2.
    here = [one for one in pairs(contract) if (one.clause, one.target) == (view.clause, view.target)]
    if not here:
        raise _disagrees(None, "a clause and a target of the contract", f"{view.clause} {view.target}")
    # 3.
    for pair in here:
        if _meaning(view.rules) == _meaning(_own_rules(pair)):
            return pair
    ours = {one for pair in here for rule in _own_rules(pair) for one in rule.constraints}
    strange = sorted(one for rule in view.rules for one in rule.constraints if one not in ours)
    found = f"{strange[0].left} {strange[0].operator} {strange[0].value}" if strange else "other rules"
    raise _disagrees(strange[0].clause if strange else view.clause, "the rules of the contract", found)


def _own_rules(pair: Pair) -> tuple[FoundRule, ...]:
    own = offer(pair, target=True) if pair.assignee is None else agreement(pair)
    return tuple(_Reader().rules(own, "policy"))


def _meaning(rules: Iterable[FoundRule]) -> list[tuple[str, str, list[Comparison]]]:
    """Rules without their order, which means nothing."""
    return sorted((one.kind, one.action, sorted(one.constraints, key=_order)) for one in rules)


def _order(one: Comparison) -> tuple[str, str, str, str]:
    return one.clause, one.left, one.operator, ascii(one.value)


def _disagrees(clause: str | None, need: str, found: str) -> ViewDisagreesError:
    return ViewDisagreesError(
        clause=clause or None,
        need=need,
        found=ascii(found)[1:-1][:300],
        remedy="trust the contract, not the policy, and tell who sent the policy",
    )
