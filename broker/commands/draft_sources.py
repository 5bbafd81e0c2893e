# SPDX-License-Identifier: Apache-2.0
"""Where the facts of a draft come from: the bytes of recipes, and the broker's list of members.

The broker's own organisation has no id of its own in the list: the draft names it by its key, so that every
contract of this broker has the same one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.errors import UsageError
from policies.contract.errors import AnswerError
from policies.contract.grammar import Prose, Word
from policies.contract.templates import Blank, PartyRow, RecipeFacts, broker_org
from policies.encoding import digest
from policies.privacy.accounting import epsilon_text
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.commands import Where
    from policies.contract.templates import Template

__all__ = ["BROKER_BLANKS", "enrolled", "read_recipes", "recipe_facts", "with_broker"]

_BROKER: Final = "broker"
_ACTIVE: Final = "active"
_RESERVED: Final = frozenset({_BROKER, "public"})
_NAME_CHARS: Final = 32
BROKER_BLANKS: Final = (
    Blank(name="broker_name", asks="Legal name of the broker", rule=Prose(200), default=None),
    Blank(
        name="broker_country",
        asks="Country of the broker (two letters)",
        rule=Word(r"[A-Z]{2}"),
        default=None,
    ),
)


# --- recipes ---


def read_recipes(template: Template, named: Sequence[str]) -> dict[str, RecipeFacts]:
    """Facts of each slot's recipe, in the template's order.

    Raises:
        UsageError: A slot that the template has not, or one too many.
        RecipeError, AnswerError: A file is no recipe with a plan.
    """
    files: dict[str, str] = {}
    free = [one for one in template.slots if not any(text.startswith(f"{one}=") for text in named)]
    for text in named:
        slot, equals, file = text.partition("=")
        if equals and slot not in template.slots and not Path(text).exists():
            raise UsageError(
                need=f"a slot of {template.name}: {' '.join(template.slots)}",
                found=slot,
                remedy=f"write --recipe {template.slots[0]}=FILE",
            )
        if not equals or slot not in template.slots:
            slot, file = (free.pop(0), text) if free else ("", text)
        if not slot or slot in files:
            raise UsageError(
                need="one --recipe for each of " + " ".join(template.slots),
                found=" ".join(named),
                remedy="write --recipe SLOT=FILE",
            )
        files[slot] = file
    return {
        slot: recipe_facts(slot, Path(files[slot]).read_bytes()) for slot in template.slots if slot in files
    }


def recipe_facts(slot: str, data: bytes) -> RecipeFacts:
    """What a contract says about a recipe.

    Raises:
        RecipeError: The bytes are no recipe.
        AnswerError: It has no privacy plan.
    """
    recipe = load_recipe(data)
    plan = recipe.plan
    if plan is None:
        raise AnswerError(
            need=f"recipe {slot}: a privacy plan",
            found="none: its models are NOT PRIVATE",
            remedy="add a plan to the recipe; a pool without one is written by hand, with test_only: true",
        )
    return RecipeFacts(
        digest=digest(data),
        fields=recipe.fields,
        rounds=recipe.rounds,
        local_steps=recipe.local_steps,
        unit=plan.unit,
        adjacency=plan.adjacency,
        delta=str(plan.delta),
        noise=plan.noise,
        epsilon=epsilon_text(plan.epsilon_rdp),
        honest_min=plan.honest_min,
        plan=recipe.plan_document,
    )


# --- parties ---


def enrolled(where: Where, wanted: Sequence[str]) -> tuple[tuple[PartyRow, ...], dict[str, Any]]:
    """The active members and the broker, whose name is still blank; and what the broker says of its log.

    Raises:
        UsageError: A wanted one is no active member, or several are meant by it.
    """
    with where.client() as client:
        listed = client.get("/operator/organisations")["organisations"]
        status = client.get("/operator/status")
    active = [one for one in listed if one["state"] == _ACTIVE]
    rows: list[PartyRow] = []
    for one in _chosen(active, wanted):
        rows.append(
            PartyRow(
                party=_short_name(one, {row.party for row in rows}),
                org=one["org"],
                role="contributor",
                group=one["group"],
                legal_name=one["legal_name"],
                country=one["country"],
                key=one["node_key"],
            )
        )
    rows.append(
        PartyRow(
            party=_BROKER,
            org=broker_org(status["broker_key"]),
            role=_BROKER,
            group=_BROKER,
            legal_name="",
            country="",
            key=status["broker_key"],
        )
    )
    return tuple(rows), {"log_origin": status["origin"]}


def _chosen(active: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    """The members that were named, each by its organisation or its group, in the order of the list."""
    known = "; ".join(f"{one['org']} ({one['group']}, {one['legal_name']})" for one in active)
    taken: set[str] = set()
    for name in wanted:
        found = [str(one["org"]) for one in active if name in {one["org"], one["group"]}]
        if len(found) != 1:
            raise UsageError(
                need=f"--member with organisation or group of one active member: {known or 'there are none'}",
                found=f"{name}: " + (f"{len(found)} of them, {' '.join(found)}" if found else "none of them"),
                remedy="correct the name; where a group has several organisations, name each by its org_ id",
            )
        taken.add(found[0])
    return [one for one in active if not wanted or one["org"] in taken]


def _short_name(row: Mapping[str, Any], taken: set[str]) -> str:
    """A short name from the group, else the legal name; never one that is taken."""
    for text in (str(row["group"]), str(row["legal_name"])):
        name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_CHARS].strip("-")
        if re.fullmatch(r"[a-z][a-z0-9-]*", name) and name not in taken | _RESERVED:
            return name
    return f"m{len(taken) + 1}"


def with_broker(parties: Sequence[PartyRow], name: str, country: str) -> tuple[PartyRow, ...]:
    """The parties, with the broker's name and country filled in."""
    return tuple(
        replace(one, legal_name=name, country=country) if one.role == _BROKER else one for one in parties
    )
