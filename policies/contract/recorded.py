# SPDX-License-Identifier: Apache-2.0
"""A past decision's request, and the same request as somebody would have made it under a proposal.

- **What it does not say is not known.** A record of an earlier version lacks facts that are asked for today;
  they are read as None, so that a check which needs one stays open. A fact that no version has, or of another
  type, makes the record unreadable.
- **Names are matched, not digests.** Parties keep their short names and recipes their ids: where the record
  names the pinned key or the recipe digest of the contract that judged it, the proposal's takes its place.
  That needs the earlier contract; without it, the record stays as it is.
- **Times keep their distances.** A record from before the proposal's first second is moved there with all its
  times, so that a term which has not begun does not refuse the whole past.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, get_args

from policies.contract.amendment.succession import as_under
from policies.contract.errors import RequestMalformedError
from policies.contract.requests import (
    ContractState,
    PlanFacts,
    Request,
    request_from_json,
    state_from_json,
)
from policies.ports import iso_s, to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract

__all__ = ["RecordedRequest", "as_asked"]

Json = Any  # a JSON value

_KINDS: Final[dict[str, type[Request]]] = {kind.TYPE: kind for kind in get_args(Request)}
_TIMES: Final = ("made_at", "notice_at", "released_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One past decision, as its maker keeps it.

    Attributes:
        contract: Digest of the contract that judged.
        request: JSON of `request_to_json`, perhaps of an earlier version with fewer facts.
        state: JSON of `state_to_json`, likewise.
        allowed: What was decided.
        clauses: Who refused, where it was refused.
        run: The run that it belongs to.
        round: The round of that run.
    """

    contract: str
    request: Mapping[str, Json]
    state: Mapping[str, Json]
    allowed: bool
    clauses: tuple[str, ...]
    run: str | None
    round: int | None


def as_asked(
    one: RecordedRequest, earlier: Contract | None, proposal: Contract
) -> tuple[Request, ContractState]:
    """The request and the state of a record, under a proposal.

    1. read it
    2. name what the proposal names
    3. move its times into the proposal's term

    Raises:
        RequestMalformedError: Step 1.
    """
    request, state = _read(one)  # 1
    if earlier is not None:
        request = _renamed(request, earlier, proposal)  # 2
    return _moved(request, state, proposal.term.effective)  # 3


def _read(one: RecordedRequest) -> tuple[Request, ContractState]:
    """The recorded facts; those of later versions are not known.

    Raises:
        RequestMalformedError: A fact of another type, or one that no version has.
    """
    name = str(one.request.get("type"))
    if name not in _KINDS:
        raise RequestMalformedError(
            need="a type of request", found=ascii(name)[:80], remedy="read it with the version that wrote it"
        )
    kind = _KINDS[name]
    facts = dict.fromkeys(field.name for field in dataclasses.fields(kind))
    request = {**facts, **one.request}
    if "privacy" in facts and isinstance(request["privacy"], dict):
        request["privacy"] = {
            **dict.fromkeys(field.name for field in dataclasses.fields(PlanFacts)),
            **request["privacy"],
        }
    state = {**dict.fromkeys(field.name for field in dataclasses.fields(ContractState)), **one.state}
    return request_from_json(request), state_from_json(state)


def _renamed(request: Request, earlier: Contract, proposal: Contract) -> Request:
    """The same request in the proposal's names."""
    changes: dict[str, Json] = {}
    was, becomes = earlier.party(request.party), proposal.party(request.party)
    if was is not None and becomes is not None and request.key == was.key:
        changes["key"] = becomes.key
    recipe = earlier.recipe(getattr(request, "recipe_digest", None))
    if recipe is not None:
        successors = [one.recipe_digest for one in proposal.recipes if one.id == recipe.id]
        changes["recipe_digest"] = successors[0] if successors else recipe.recipe_digest
    return as_under(replace(request, **changes), earlier, proposal)


def _moved(request: Request, state: ContractState, effective: str) -> tuple[Request, ContractState]:
    """The same request at the proposal's first second, if it was made before it."""
    now = _ms(state.now)
    ahead = 0 if now is None else max(0, to_ms(effective) - now)
    if not ahead:
        return request, state
    times: dict[str, Json] = {
        name: _later(getattr(request, name), ahead) for name in _TIMES if hasattr(request, name)
    }
    return replace(request, **times), replace(state, now=_later(state.now, ahead))


def _later(text: str | None, ahead_ms: int) -> str | None:
    moment = _ms(text)
    return text if moment is None else iso_s(moment + ahead_ms)


def _ms(text: str | None) -> int | None:
    try:
        return None if text is None else to_ms(text)
    except ValueError:
        return None
