# SPDX-License-Identifier: Apache-2.0
"""What the evaluator is asked: seven requests, and the state of the contract. Facts; nothing here decides.

- Every fact that can be missing is typed ``X | None``. ``None`` means *not known* and always refuses; it
  never means "does not apply".
- All facts are required by name, so that a caller cannot leave one out by accident.
- `request_to_json` and `request_from_json` are inverse to each other; the auditor replays decisions from that
  JSON. The readers are strict: exactly the keys of the type, exactly the types, and no more of each than a
  contract can be about.

    TrainRound  the node's guard before it reads data; the broker before it schedules    point node, broker
    Aggregate   the broker before it opens and averages the accepted updates             point broker
    Release     the release gate, once per candidate and tier                            point gate
    Deliver     the gate per download; the receiving node again                          point gate, node
    Query       the broker, per view that somebody asks for                              point broker
    Join        who lets a successor of the contract in: the broker before it opens the
                amendment, broker and node before it takes effect                        point broker, node
    Exit        who leaves: its node before the notice, the broker when it arrives       point node, broker
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from policies.contract.errors import RequestMalformedError
from policies.limits import FACT_ITEMS, FACT_LISTS, INTEGER_MAX, PARTIES

__all__ = [
    "PUBLIC",
    "Aggregate",
    "ContractState",
    "Deliver",
    "EpsilonAfter",
    "Exit",
    "Join",
    "PlanFacts",
    "Query",
    "Release",
    "Request",
    "TrainRound",
    "request_from_json",
    "request_to_json",
    "state_from_json",
    "state_to_json",
]

Json = Any  # a JSON value

LEDGER_FILTER = "rdp-fixed-order"  # the stop rule of every ledger (`policies.privacy.ledger`)
PUBLIC = "public"  # the asking "party" of a delivery to everybody (tier open)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What the recipe's privacy plan says. ``PlanFacts.none()`` is a recipe without a plan (NOT PRIVATE).

    Attributes:
        mode: ``dp``, or ``none`` for a recipe whose plan is null; then the other facts stay None.
        unit: What one clip covers (``episode``).
        adjacency: ``zero-out`` or ``add-remove``.
        delta: Decimal.
        noise: ``local-full`` or ``shares``.
        honest_min: With ``shares``: how many honest silos each share is sized for; else not looked at.
        filter: Stop rule of the node's ledger (``rdp-fixed-order``).
    """

    mode: str | None
    unit: str | None
    adjacency: str | None
    delta: str | None
    noise: str | None
    honest_min: int | None
    filter: str | None

    @classmethod
    def of(cls, plan: Mapping[str, Json] | None) -> PlanFacts:
        """What the contract is asked about a recipe's plan, by its document; the same for every party."""
        if plan is None:
            return cls.none()
        named = {name: plan[name] for name in ("unit", "adjacency", "delta", "noise", "honest_min")}
        return cls(mode="dp", filter=LEDGER_FILTER, **named)

    @classmethod
    def none(cls) -> PlanFacts:
        """The facts of a recipe whose plan is null."""
        return cls(
            mode="none", unit=None, adjacency=None, delta=None, noise=None, honest_min=None, filter=None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonAfter:
    """Epsilon of one party if the step that is asked for happens.

    Attributes:
        release: Best-order epsilon of the plan, decimal rounded up to 6 digits.
        total: Fixed-order filter over everything this party spent under this contract, with this plan
            reserved.
    """

    release: str | None
    total: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRound:
    """May this party train one round on its own data?

    Attributes:
        party: Whose data are read: the contract's short name.
        key: Its signing key (``ed25519:...``) as enrolled, never copied out of the contract.
        recipe_digest: Digest of the recipe's bytes.
        purpose: Purpose id that the run was opened for.
        dataset: Name of the data set, as in the recipe clause.
        fields: Every canonical field that enters a training tensor.
        round: 1-based number of this round, counted over all runs of this recipe under this contract.
        local_steps: Optimiser steps of this round.
        cohort: Parties asked to take part in this round.
        privacy: The recipe's plan.
        epsilon_after_release: Decimal; see `EpsilonAfter.release`. Not looked at under ``mode: none``.
        epsilon_after_total: Decimal; see `EpsilonAfter.total`. Not looked at under ``mode: none``.
        secure_aggregation: ``required`` where the update leaves masked, ``off`` where the broker reads it.
        group_mac: ``on`` where each opened sum carries the members' tag, else ``off``.
        reply_slot_ms: Width of the slots at which the node answers; 0 means at once.
        seed_set: Digest of the open seed set that the recipe starts from, or ``none``.
        seed_consents: Digests of the donors' consents that are on record here.
    """

    TYPE: ClassVar[str] = "TrainRound"
    party: str | None
    key: str | None
    recipe_digest: str | None
    purpose: str | None
    dataset: str | None
    fields: tuple[str, ...] | None
    round: int | None
    local_steps: int | None
    cohort: tuple[str, ...] | None
    privacy: PlanFacts | None
    epsilon_after_release: str | None
    epsilon_after_total: str | None
    secure_aggregation: str | None
    group_mac: str | None
    reply_slot_ms: int | None
    seed_set: str | None
    seed_consents: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """May the broker average the updates of these parties?

    Attributes:
        party: The broker's short name.
        key: The broker's key.
        recipe_digest: Digest of the recipe's bytes.
        purpose: Purpose id that the run was opened for.
        round: As in `TrainRound`.
        survivors: Parties whose update was accepted (drop-outs are gone).
        weights: Weight of each survivor, decimals; only their ratio counts.
        norm_bound: Decimal; the bound that each update's norm was checked against.
        norms_within: Whether every update was within it.
        finite: Whether every number of every update is finite.
        privacy: The recipe's plan.
        secure_aggregation: ``required`` where only the sum was opened, ``off`` where updates came singly.
        validation: Whether each party accepted the latest model on its held-out episodes.
        rejected_rounds: How many models in a row a quorum did not accept, up to now.
        log_origin: Origin of the log that this goes into.
    """

    TYPE: ClassVar[str] = "Aggregate"
    party: str | None
    key: str | None
    recipe_digest: str | None
    purpose: str | None
    round: int | None
    survivors: tuple[str, ...] | None
    weights: Mapping[str, str] | None
    norm_bound: str | None
    norms_within: bool | None
    finite: bool | None
    privacy: PlanFacts | None
    secure_aggregation: str | None
    validation: Mapping[str, bool] | None
    rejected_rounds: int | None
    log_origin: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """May this candidate be released in this tier?

    Attributes:
        party: The broker's short name.
        key: The broker's key.
        model: Digest of the candidate.
        recipe_digest: Recipe that it came from.
        tier: ``open``, ``consortium``, ``participant`` or ``private``.
        cohort: Every party whose update is in the model.
        weights: Weight of each of them, as averaged.
        epsilon_after: Per party of the cohort. Not looked at under ``mode: none``.
        evidence: Names of the evidence that lies with the candidate.
        approvals: Parties that approved by signed vote.
        vetoes: Parties that vetoed by signed vote.
        privacy: The recipe's plan.
        made_at: When the candidate's last aggregate was made (``2026-12-02T00:00:00Z``).
        validation: Whether each party accepted the candidate on its held-out episodes.
        mia_auc: Decimal; the largest lower end of the areas of the membership-inference report.
        property_skill: Decimal; skill of the property-leak report.
        canaries_fired: None of the fields if the canary report passed, else every field that it is about.
        earlier_cohorts: Cohorts of what was released before under this recipe.
        log_origin: Origin of the log that this goes into.
        witnesses: How many witnesses cosigned the log's latest checkpoint.
    """

    TYPE: ClassVar[str] = "Release"
    party: str | None
    key: str | None
    model: str | None
    recipe_digest: str | None
    tier: str | None
    cohort: tuple[str, ...] | None
    weights: Mapping[str, str] | None
    epsilon_after: Mapping[str, EpsilonAfter] | None
    evidence: tuple[str, ...] | None
    approvals: tuple[str, ...] | None
    vetoes: tuple[str, ...] | None
    privacy: PlanFacts | None
    made_at: str | None
    validation: Mapping[str, bool] | None
    mia_auc: str | None
    property_skill: str | None
    canaries_fired: tuple[str, ...] | None
    earlier_cohorts: tuple[tuple[str, ...], ...] | None
    log_origin: str | None
    witnesses: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """May this party be given this model?

    Attributes:
        party: The recipient's short name, or `PUBLIC`.
        key: The recipient's key; not looked at for `PUBLIC`.
        model: Digest of the model.
        recipe_digest: Recipe that it came from.
        tier: Tier that it was released in.
        released: Whether a release of this model in this tier is on record.
        released_at: When it was released.
        made_at: When the model's last aggregate was made.
        country: Where the recipient is (ISO 3166-1 alpha-2).
        attestation: Digest of the recipient's signed attestation of its use, or ``none``.
        contribution_share: Decimal; the recipient's share of the contributions.
    """

    TYPE: ClassVar[str] = "Deliver"
    party: str | None
    key: str | None
    model: str | None
    recipe_digest: str | None
    tier: str | None
    released: bool | None
    released_at: str | None
    made_at: str | None
    country: str | None
    attestation: str | None
    contribution_share: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """May this party be shown this view?

    Attributes:
        party: Who asks.
        key: Its key.
        view: One of `policies.contract.registry.VIEWS`.
        subject: Party that the number is about, or ``all`` for a number about the pool.
        cohort: Parties whose data are behind the number.
        earlier_cohorts: Cohorts behind the numbers of this view that were shown before.
        made_at: When what the number is about was made.
        dp_noised: Whether the number carries differentially private noise, or depends on no episode.
    """

    TYPE: ClassVar[str] = "Query"
    party: str | None
    key: str | None
    view: str | None
    subject: str | None
    cohort: tuple[str, ...] | None
    earlier_cohorts: tuple[tuple[str, ...], ...] | None
    made_at: str | None
    dp_noised: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """May this successor of the contract be opened, or take effect?

    Attributes:
        party: Who starts the amendment; a party of this contract.
        key: Its key.
        stage: ``open``, before it is offered, or ``effect``, before anybody works under it.
        kind: ``tighten`` or ``change``.
        supersedes: Digest that the successor names.
        version: Version of the successor.
        no_looser: Whether it is proven that the successor allows nothing that this contract refuses and
            takes no entitlement from another party.
        signers: Parties of this contract with a valid signature over the successor.
        newcomers: Short names of parties that this contract does not have.
        attestations: Those of them whose signed admission statement is on record.
        groups: Group of each contributor of the successor.
        keys: Key of each party of the successor.
    """

    TYPE: ClassVar[str] = "Join"
    party: str | None
    key: str | None
    stage: str | None
    kind: str | None
    supersedes: str | None
    version: int | None
    no_looser: bool | None
    signers: tuple[str, ...] | None
    newcomers: tuple[str, ...] | None
    attestations: tuple[str, ...] | None
    groups: Mapping[str, str] | None
    keys: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """May this party leave?

    Attributes:
        party: Who leaves.
        key: Its key.
        notice: Digest of its signed notice.
        notice_at: Time in the notice.
        unreleased_models: Its choice: ``retrain`` without it, or ``discard``.
    """

    TYPE: ClassVar[str] = "Exit"
    party: str | None
    key: str | None
    notice: str | None
    notice_at: str | None
    unreleased_models: str | None


Request = TrainRound | Aggregate | Release | Deliver | Query | Join | Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractState:
    """What is known about the contract itself when a request is judged.

    Attributes:
        now: ``2026-12-01T00:00:00Z`` (`policies.ports.iso_s`).
        executed: Whether every contributor and the broker have signed (`signatures.executed`).
        halted: Whether a halt is in force.
        exited_parties: Parties whose notice of exit was accepted.
        standing: ``in-force``; or ``superseded`` by a successor, or ``terminated``.
        rotated_keys: The present key of each party that changed the one pinned in the contract.
    """

    now: str | None
    executed: bool | None
    halted: bool | None
    exited_parties: tuple[str, ...] | None
    standing: str | None
    rotated_keys: Mapping[str, str] | None


# --- JSON: one codec per annotation; an annotation without one fails at import ---


def _malformed(need: str, found: object) -> RequestMalformedError:
    return RequestMalformedError(
        need=need, found=repr(found)[:80], remedy="record requests with request_to_json only"
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise _malformed("a string", value)
    return value


def _integer(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INTEGER_MAX:
        raise _malformed(f"an integer up to {INTEGER_MAX}", value)
    return value


def _boolean(value: Json) -> bool:
    if not isinstance(value, bool):
        raise _malformed("true or false", value)
    return value


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(_text(one) for one in _bounded(value, FACT_ITEMS))


def _bounded(value: Json, most: int) -> list[Json]:
    if not isinstance(value, list):
        raise _malformed("a list", value)
    if len(value) > most:
        raise _malformed(f"a list of at most {most}", f"{len(value)} items")
    return value


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _malformed("an object", value)
    return value


def _by_party(value: Json) -> dict[str, Json]:
    """One value for each of some parties."""
    found = _object(value)
    if len(found) > PARTIES:
        raise _malformed(f"an object of at most {PARTIES} parties", f"{len(found)} keys")
    return found


def _text_map(value: Json) -> dict[str, str]:
    return {key: _text(one) for key, one in _by_party(value).items()}


def _text_lists(value: Json) -> tuple[tuple[str, ...], ...]:
    return tuple(_texts(one) for one in _bounded(value, FACT_LISTS))


def _flag_map(value: Json) -> dict[str, bool]:
    return {key: _boolean(one) for key, one in _by_party(value).items()}


def _plan(value: Json) -> PlanFacts:
    return _read(PlanFacts, value)


def _epsilons(value: Json) -> dict[str, EpsilonAfter]:
    return {key: _read(EpsilonAfter, one) for key, one in _by_party(value).items()}


_READERS: dict[str, Callable[[Json], object]] = {
    "str | None": _text,
    "int | None": _integer,
    "bool | None": _boolean,
    "tuple[str, ...] | None": _texts,
    "tuple[tuple[str, ...], ...] | None": _text_lists,
    "Mapping[str, str] | None": _text_map,
    "Mapping[str, bool] | None": _flag_map,
    "PlanFacts | None": _plan,
    "Mapping[str, EpsilonAfter] | None": _epsilons,
}
_T = TypeVar("_T")


_FIELDS: dict[type, dict[str, str]] = {}


def _fields(kind: type) -> dict[str, str]:
    """Annotations of a dataclass, by the names of its fields."""
    if kind not in _FIELDS:
        _FIELDS[kind] = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    return _FIELDS[kind]


def _read(kind: type[_T], value: Json) -> _T:
    fields = _fields(kind)
    tree = _object(value)
    if tree.keys() != fields.keys():
        raise _malformed("exactly the keys " + " ".join(sorted(fields)), sorted(tree))
    read = {
        name: None if tree[name] is None else _READERS[annotation](tree[name])
        for name, annotation in fields.items()
    }
    return kind(**read)


def _write(value: object) -> Json:
    if value is None or isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value):
        return {name: _write(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, Mapping):
        return {key: _write(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_write(one) for one in value]
    return value


_TYPES: dict[str, type[Request]] = {
    kind.TYPE: kind for kind in (TrainRound, Aggregate, Release, Deliver, Query, Join, Exit)
}


def request_to_json(request: Request) -> dict[str, Json]:
    """The JSON object of a request: its ``type`` and every fact, None as null."""
    return {"type": request.TYPE, **_write(request)}


def request_from_json(value: Json) -> Request:
    """The request behind `request_to_json`.

    Raises:
        RequestMalformedError: Another type name, other keys, other types, or more than a fact may hold.
    """
    tree = dict(_object(value))
    name = tree.pop("type", None)
    if not isinstance(name, str) or name not in _TYPES:
        raise _malformed("a request type of " + " ".join(_TYPES), name)
    return _read(_TYPES[name], tree)


def state_to_json(state: ContractState) -> dict[str, Json]:
    """The JSON object of a state."""
    written: dict[str, Json] = _write(state)
    return written


def state_from_json(value: Json) -> ContractState:
    """The state behind `state_to_json`.

    Raises:
        RequestMalformedError: Other keys or types.
    """
    return _read(ContractState, value)
