# SPDX-License-Identifier: Apache-2.0
"""What the evaluator is asked: four requests and the state of the contract. Facts only; nothing here decides.

- Every fact that can be missing is typed ``X | None``. ``None`` means *not known* and always refuses; it
  never means "does not apply".
- All facts are required by name, so that a caller cannot leave one out by accident.
- `request_to_json` and `request_from_json` are inverse to each other; the auditor replays decisions from that
  JSON. The readers are strict: exactly the keys of the type, exactly the types.

    TrainRound  the node's guard before it reads data; the broker before it schedules    point node, broker
    Aggregate   the broker before it opens and averages the accepted updates             point broker
    Release     the release gate, once per candidate and tier                            point gate
    Deliver     the gate per download; the receiving node again                          point gate, node
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from policies.contract.errors import RequestMalformedError

__all__ = [
    "PUBLIC",
    "Aggregate",
    "ContractState",
    "Deliver",
    "EpsilonAfter",
    "PlanFacts",
    "Release",
    "Request",
    "TrainRound",
    "request_from_json",
    "request_to_json",
    "state_from_json",
    "state_to_json",
]

Json = Any  # a JSON value

PUBLIC = "public"  # the asking "party" of a delivery to everybody (tier open)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What the recipe's privacy plan says. ``PlanFacts.none()`` is a recipe without a plan (NOT PRIVATE).

    Attributes:
        mode: ``dp``, or ``none`` for a recipe whose plan is null; then the other facts stay None.
        unit: What one clip covers (``episode``).
        adjacency: ``zero-out`` or ``add-remove``.
        delta: Decimal.
        noise: ``local-full``.
        filter: Stop rule of the node's ledger (``rdp-fixed-order``).
    """

    mode: str | None
    unit: str | None
    adjacency: str | None
    delta: str | None
    noise: str | None
    filter: str | None

    @classmethod
    def none(cls) -> PlanFacts:
        """The facts of a recipe whose plan is null."""
        return cls(mode="none", unit=None, adjacency=None, delta=None, noise=None, filter=None)


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
        secure_aggregation: ``off`` in this version.
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
        secure_aggregation: ``off`` in this version.
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
    """

    TYPE: ClassVar[str] = "Deliver"
    party: str | None
    key: str | None
    model: str | None
    recipe_digest: str | None
    tier: str | None
    released: bool | None


Request = TrainRound | Aggregate | Release | Deliver


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractState:
    """What is known about the contract itself when a request is judged.

    Attributes:
        now: ``2026-12-01T00:00:00Z`` (`policies.ports.iso_s`).
        executed: Whether every contributor and the broker have signed (`signatures.executed`).
        halted: Whether a halt is in force; no notice of halt exists yet, so callers pass False.
        exited_parties: Parties that left; nobody can leave yet, so callers pass ``()``.
    """

    now: str | None
    executed: bool | None
    halted: bool | None
    exited_parties: tuple[str, ...] | None


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
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed("an integer", value)
    return value


def _boolean(value: Json) -> bool:
    if not isinstance(value, bool):
        raise _malformed("true or false", value)
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _malformed("a list of strings", value)
    return tuple(_text(one) for one in value)


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _malformed("an object", value)
    return value


def _text_map(value: Json) -> dict[str, str]:
    return {key: _text(one) for key, one in _object(value).items()}


def _plan(value: Json) -> PlanFacts:
    return _read(PlanFacts, value)


def _epsilons(value: Json) -> dict[str, EpsilonAfter]:
    return {key: _read(EpsilonAfter, one) for key, one in _object(value).items()}


_READERS: dict[str, Callable[[Json], object]] = {
    "str | None": _text,
    "int | None": _integer,
    "bool | None": _boolean,
    "tuple[str, ...] | None": _texts,
    "Mapping[str, str] | None": _text_map,
    "PlanFacts | None": _plan,
    "Mapping[str, EpsilonAfter] | None": _epsilons,
}
_T = TypeVar("_T")


def _read(kind: type[_T], value: Json) -> _T:
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    tree = _object(value)
    if set(tree) != set(fields):
        raise _malformed("exactly the keys " + " ".join(sorted(fields)), sorted(tree))
    read = {
        name: None if tree[name] is None else _READERS[annotation](tree[name])
        for name, annotation in fields.items()
    }
    return kind(**read)


def _write(value: object) -> Json:
    if dataclasses.is_dataclass(value):
        return {field.name: _write(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _write(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_write(one) for one in value]
    return value


_TYPES: dict[str, type[TrainRound | Aggregate | Release | Deliver]] = {
    kind.TYPE: kind for kind in (TrainRound, Aggregate, Release, Deliver)
}


def request_to_json(request: Request) -> dict[str, Json]:
    """The JSON object of a request: its ``type`` and every fact, None as null."""
    return {"type": request.TYPE, **_write(request)}


def request_from_json(value: Json) -> Request:
    """The request behind `request_to_json`.

    Raises:
        RequestMalformedError: Another type name, other keys, other types.
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
