# SPDX-License-Identifier: Apache-2.0
"""The parts of a template that have as many lines as there are parties, recipes, secrets and caps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from policies.contract.clauses import PartyClause
from policies.contract.errors import AnswerError, ContractInvalidError
from policies.contract.grammar import At, rules_of
from policies.encoding import digest, new_id
from policies.errors import WeakKeyError
from policies.log.policy import default_quorum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["PartyRow", "RecipeFacts", "blocks", "broker_org", "prose_block", "read_parties"]

_CONTRIBUTOR: Final = "contributor"
_WITNESSES: Final = frozenset({"auditor", _CONTRIBUTOR})
_BROKER: Final = "broker"
_PDF: Final = b"%PDF-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyRow:
    """One party, as enrolled."""

    party: str
    org: str
    role: str
    group: str
    legal_name: str
    country: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFacts:
    """What a contract says about a recipe, read from the recipe's bytes.

    Attributes:
        digest: ``sha256:…``.
        fields: Every field that it reads.
        rounds: Of one run.
        local_steps: Per round.
        unit: Of its privacy plan.
        adjacency: Likewise.
        delta: Likewise.
        noise: Likewise.
        honest_min: Likewise; None without noise shares.
        epsilon: That one whole run of the plan spends, a decimal.
        plan: The document of the plan.
    """

    digest: str
    fields: tuple[str, ...]
    rounds: int
    local_steps: int
    unit: str
    adjacency: str
    delta: str
    noise: str
    epsilon: str
    honest_min: int | None = None
    plan: Mapping[str, Any] | None = None


def read_parties(tree: Any) -> tuple[PartyRow, ...]:  # noqa: ANN401  a YAML value
    """The parties of a file: a list of objects with the keys of `PartyRow`.

    ``role`` may be left out, and so may ``org`` of the broker, which is then the one of its key.

    Raises:
        AnswerError: Another form; the party and the key are named.
    """
    if not isinstance(tree, list) or not tree:
        raise _refuse("a list of parties", type(tree).__name__)
    return tuple(_read_party(index, one) for index, one in enumerate(tree))


def _read_party(index: int, tree: Any) -> PartyRow:  # noqa: ANN401  a YAML value
    wanted = [one.name for one in fields(PartyRow)]
    where = f"parties[{index}]"
    if not isinstance(tree, Mapping):
        raise _refuse(f"{where}: the keys {' '.join(wanted)}", type(tree).__name__)
    row = {"role": _CONTRIBUTOR, **tree}
    if row["role"] == _BROKER and isinstance(row.get("key"), str):
        row = {"org": broker_org(row["key"]), **row}
    if set(row) != set(wanted):
        raise _refuse(f"{where}: exactly the keys {' '.join(wanted)}", " ".join(sorted(map(str, row))))
    return PartyRow(**{name: _read_term(name, row[name], f"{where}.{name}") for name in wanted})


def _read_term(name: str, value: Any, where: str) -> str:  # noqa: ANN401  a YAML value
    try:
        return str(rules_of(PartyClause)[name].read(value, At(None, where)))
    except ContractInvalidError as error:
        raise _refuse(error.need, error.found) from error
    except WeakKeyError as error:
        raise _refuse(f"{where}: {error.need}", error.found) from error


def broker_org(key: str) -> str:
    """The organisation id of the broker of a key: the same in each of its contracts, whoever drafts it."""
    return new_id("org", bytes.fromhex(digest(key.encode("utf-8")).removeprefix("sha256:"))[:10])


def prose_block(data: bytes | None) -> str:
    """The clause that binds the text for people by its hash, or ``null``."""
    if data is None:
        return "null"
    kind = "application/pdf" if data.startswith(_PDF) else "text/plain"
    sha256 = digest(data).removeprefix("sha256:")
    return f'{{clause: prose-1, media_type: {kind}, prevails: true, sha256: "{sha256}"}}'


def _refuse(need: str, found: str) -> AnswerError:
    return AnswerError(
        need=need, found=found, remedy="write the parties as `iriai-broker org list` shows them"
    )


def blocks(
    values: Mapping[str, Any],
    parties: Sequence[PartyRow],
    recipes: Mapping[str, RecipeFacts],
    *,
    purpose: str,
) -> dict[str, str]:
    """The text of each block, by its name in the templates."""
    names = [one.party for one in parties if one.role == _CONTRIBUTOR]
    caps = {party: values[f"cap.{party}"] for party in names if values[f"cap.{party}"] is not None}
    secrets = {party: values[f"secret.{party}"] for party in names if values[f"secret.{party}"]}
    first = next(iter(recipes.values()))
    owned = [f"dp-{number + 2}" for number in range(len(caps))]
    owned += [f"secret-{number + 1}" for number in range(len(secrets))]
    return {
        "parties": "\n".join(_party(one) for one in parties),
        "recipes": "\n".join(_recipes(values, recipes, names, purpose)),
        "fields": _list(sorted({name for one in recipes.values() for name in one.fields})),
        "secrets": _rows(_secret(number, party, values) for number, party in enumerate(secrets, 1)),
        "caps": _rows(_cap(number, party, values) for number, party in enumerate(caps, 2)),
        "veto": _list(owned),
        **{term: _text(getattr(first, term)) for term in ("unit", "adjacency", "delta")},
        "noise": _noise(first),
        "witness_quorum": str(default_quorum(sum(one.role in _WITNESSES for one in parties))),
    }


def _noise(one: RecipeFacts) -> str:
    """What follows the colon of the noise, and the term that shares have besides."""
    honest = "" if one.honest_min is None else f"\n  honest_min: {one.honest_min}"
    return _text(one.noise) + honest


def _party(one: PartyRow) -> str:
    rows = [f"  - clause: party-{one.party}"]
    rows += [f"    {name}: {_text(value)}" for name, value in asdict(one).items()]
    return "\n".join(rows)


def _secret(number: int, party: str, values: Mapping[str, Any]) -> str:
    found, basis = _list(values[f"secret.{party}"]), _text(values[f"basis.{party}"])
    return f"{{clause: secret-{number}, party: {party}, fields: {found}, basis: {basis}}}"


def _cap(number: int, party: str, values: Mapping[str, Any]) -> str:
    return f"{{clause: dp-{number}, party: {party}, epsilon_total: {_text(values[f'cap.{party}'])}}}"


def _recipes(
    values: Mapping[str, Any], recipes: Mapping[str, RecipeFacts], names: Sequence[str], purpose: str
) -> Iterator[str]:
    for number, (slot, one) in enumerate(recipes.items(), 1):
        yield f"  - clause: recipe-{number}"
        yield f"    id: {slot}"
        yield f"    purpose: {purpose}"
        yield f"    recipe_digest: {_text(one.digest)}"
        yield f"    max_rounds: {values[f'max_rounds.{slot}']}"
        yield f"    max_local_steps_per_round: {one.local_steps}"
        yield "    datasets:"
        for party in names:
            yield f"      - {{party: {party}, dataset: {_text(values[f'dataset.{slot}.{party}'])}}}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(names) + "]"


def _rows(rows: Iterable[str]) -> str:
    """What follows the colon of a list of clauses."""
    found = list(rows)
    return "\n".join(["", *(f"    - {one}" for one in found)]) if found else " []"
