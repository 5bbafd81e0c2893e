# SPDX-License-Identifier: Apache-2.0
"""The catalogue: which data could be trained together, and what the contracts let each recipe use.

What a person of a member sees of others' data sets is what `policies.shown_data` says, by the same functions
as its node; a search looks only at that. Operators and approvers see whole descriptors.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from broker.console.errors import FormError
from broker.console.operator.texts import PARTIES, contract_rows, link_to
from broker.console.screens import Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Digest, Link, Name, Nothing, Share, State, T, Value
from policies.messages import EMBODIMENT_CLASSES
from policies.shown_data import EPISODE_BUCKETS, Sought

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.catalogue.service import Listing
    from broker.console.viewing import View

__all__ = ["room"]

room = Room("catalogue")
PAGE: Final = 50
_RECIPES: Final = 100
_IN_FORCE: Final = frozenset({"ACTIVE", "PENDING", "HALTED"})
_WORDS: Final = ("embodiment_class", "task", "episodes", "field", "label", "recipe")
_CHARS: Final = 80


@room.screen(
    "/console/catalogue",
    name="catalogue",
    title=T("Catalogue"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker catalogue list --dir DIR --key FILE",
    nav=True,
)
def catalogue(view: View) -> Screen:
    """What could be trained together."""
    sought = _sought(view)
    listing = view.services.catalogue.list_for(view.session, view.party, sought)
    panels = [
        _datasets(view, listing, sought),
        _overlap(view, listing),
        view.panel("recipes", T("What the contracts let recipes use"), lambda: _recipes(view, listing)),
    ]
    if listing.unverified:
        panels.insert(1, _unverified(listing))
    return Screen(panels=panels)


def _sought(view: View) -> Sought:
    """What the address asks for.

    Raises:
        FormError: A word that is no choice, or too long.
    """
    asked: dict[str, Any] = {name: view.query.get(name, "").strip() or None for name in _WORDS}
    for name, choices in (("embodiment_class", EMBODIMENT_CLASSES), ("episodes", EPISODE_BUCKETS)):
        if asked[name] is not None and asked[name] not in choices:
            raise FormError(
                need=f"{name}: one of " + ", ".join(sorted(choices)),
                found=ascii(asked[name])[1:-1][:_CHARS],
                remedy="choose from the list",
            )
    if any(len(one or "") > _CHARS for one in asked.values()):
        raise FormError(
            need=f"words of at most {_CHARS} characters", found="a longer one", remedy="shorten it"
        )
    return Sought(**asked, certified=view.query.get("certified") == "1")


def _datasets(view: View, listing: Listing, sought: Sought) -> Panel:
    found = listing.datasets
    after = view.query.get("after", "")
    place = next((number + 1 for number, one in enumerate(found) if _name(one) == after), 0)
    page = found[place : place + PAGE]
    table = Table(
        name="datasets",
        caption=T("Data sets as their owners describe them"),
        columns=(
            Column("dataset", T("Data set"), sort=True),
            Column("owner", T("Owner"), sort=True),
            Column("embodiment", T("Robot"), sort=True),
            Column("tasks", T("Tasks")),
            Column("episodes", T("Episodes")),
            Column("quality", T("Quality"), sort=True),
            Column("fits", T("Recipes that it fits")),
            Column("rate", T("Rate (Hz)")),
            Column("space", T("Action space")),
            Column("period", T("Period")),
        ),
        rows=[_row(view, one) for one in page],
        empty=T("No data set has all of this. Ask for less.")
        if sought != Sought()
        else T(
            "Nobody has described data yet. A node publishes it with {command}.",
            command=Code("iriai-node data publish DATASET"),
        ),
        more={"after": _name(page[-1])} if len(found) > place + PAGE else None,
        total=len(found),
    ).sorted_by(view.query)
    owners = {one["org"] for one in found}
    asked = () if _certified(found) == len(found) else (_asked(view),)
    return Panel(
        name="datasets",
        title=T("What there is"),
        prose=(
            T(
                "Data sets that are like this: {n}, of {owners} organisations.",
                n=Count(len(found)),
                owners=Count(len(owners)),
            ),
            *asked,
        ),
        facts=(
            Fact("datasets", T("Data sets"), Count(len(found))),
            Fact("owners", T("Organisations"), Count(len(owners))),
            Fact("certified", T("With an admitting certificate"), Count(_certified(found))),
            *_withdrawn(listing),
        ),
        table=table,
        forms=(_search(sought),),
    )


def _asked(view: View) -> T:
    """Whether a data set without a certificate is kept from anything by the recipes of this screen."""
    names: list[str] = []
    for contract, row in contract_rows(view):
        if row["standing"] in _IN_FORCE:
            for one in contract.recipes[: _RECIPES - len(names)]:
                recipe = json.loads(view.services.contracts.annex(view.session, contract, one.recipe_digest))
                names += [one.id] if recipe.get("quality") is not None else []
    if names:
        return T(
            "These recipes of contracts in force ask for a certificate, "
            "and train on no data set without one: {names}.",
            names=Name(", ".join(names)),
        )
    return T(
        "No recipe of a contract in force asks for a certificate: "
        "a data set without one may train all the same."
    )


def _certified(found: list[dict[str, Any]]) -> int:
    return sum(bool(one["certified"]) for one in found)


def _withdrawn(listing: Listing) -> Iterator[Fact]:
    """How many were taken back out, of those that the reader may know of."""
    if listing.withdrawn:
        yield Fact("withdrawn", T("Withdrawn by their owners"), Count(len(listing.withdrawn)))


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['org']}/{one['dataset']}"


def _row(view: View, one: Mapping[str, Any]) -> Mapping[str, Value]:
    seen = one["view"]
    hidden = Nothing(T("its owner does not show it"))
    whole = "fields" in seen
    owner: Value = Name(str(one["legal_name"]))
    return {
        "dataset": Name(str(one["dataset"])),
        "owner": owner if view.role == "member" else Link(owner, f"/console/members/{one['org']}"),
        "embodiment": Code(seen["embodiment_class"]) if "embodiment_class" in seen else hidden,
        "tasks": Name(", ".join(seen["tasks"])) if "tasks" in seen else hidden,
        "episodes": Code(seen["episodes"]) if "episodes" in seen else hidden,
        "quality": State("admitted" if one["certified"] else "unverified"),
        "fits": T("{n} of {of}", n=Count(sum(fit["minimum_met"] for fit in one["fits"])), of=_of(one)),
        "rate": Code(seen["rate_hz"]) if whole else hidden,
        "space": Code(seen["action_space"]) if whole else hidden,
        "period": Code(seen["period"]) if whole else hidden,
    }


def _of(one: Mapping[str, Any]) -> Count:
    return Count(len(one["fits"]))


def _search(sought: Sought) -> Form:
    anything: tuple[str, Value] = ("", T("any"))
    robots: list[tuple[str, Value]] = [anything, *((one, Code(one)) for one in sorted(EMBODIMENT_CLASSES))]
    sizes: list[tuple[str, Value]] = [anything, *((one, Code(one)) for one in EPISODE_BUCKETS)]
    return Form(
        action="/console/catalogue",
        button=T("Search"),
        method="get",
        fields=(
            Field(
                name="embodiment_class",
                label=T("Robot"),
                kind="select",
                value=sought.embodiment_class or "",
                choices=robots,
            ),
            Field(
                name="episodes",
                label=T("Episodes, at least"),
                kind="select",
                value=sought.episodes or "",
                choices=sizes,
            ),
            Field(name="task", label=T("Task"), value=sought.task or "", required=False),
            Field(name="field", label=T("Field"), value=sought.field or "", required=False),
            Field(name="label", label=T("Label"), value=sought.label or "", required=False),
            Field(
                name="recipe", label=T("Fits the recipe (digest)"), value=sought.recipe or "", required=False
            ),
            Field(
                name="certified",
                label=T("With an admitting certificate"),
                kind="checkbox",
                value="1" if sought.certified else "",
                required=False,
            ),
        ),
    )


def _unverified(listing: Listing) -> Panel:
    rows: list[Mapping[str, Value]] = [
        {"dataset": Name(dataset), "owner": Link(Code(org), f"/console/members/{org}")}
        for org, dataset in listing.unverified
    ]
    table = Table(
        name="unverified",
        caption=T("Descriptors that no key of their owner signed"),
        columns=(Column("dataset", T("Data set")), Column("owner", T("Owner"))),
        rows=rows,
        empty=T("All verify."),
    )
    told = T("These are left out. Ask their owners to publish again: {n}.", n=Count(len(rows)))
    return Panel(name="unverified", title=T("What does not verify"), prose=(told,), table=table)


def _overlap(view: View, listing: Listing) -> Panel:
    """How many of the data sets above have each field: what a recipe could read of all of them."""
    whole = [one for one in listing.datasets if "fields" in one["view"]]
    counted = Counter(field for one in whole for field in one["view"]["fields"])
    labels = Counter(label for one in whole for label in one["view"]["labels"])
    rows = [
        *_shares(T("field"), counted, len(whole)),
        *_shares(T("label"), labels, len(whole)),
    ]
    table = Table(
        name="overlap",
        caption=T("Fields and labels of the data sets above"),
        columns=(
            Column("name", T("Name"), sort=True),
            Column("kind", T("Kind")),
            Column("datasets", T("Data sets"), sort=True),
            Column("share", T("Share"), sort=True),
        ),
        rows=rows,
        empty=T("No data set above shows its fields to you."),
    ).sorted_by(view.query)
    everywhere = sum(number == len(whole) for number in counted.values())
    told: list[Value] = (
        [T("Fields that all of them have: {n} of {of}.", n=Count(everywhere), of=Count(len(counted)))]
        if whole
        else []
    )
    if len(whole) < len(listing.datasets):
        told.append(T("Of others' data sets the fields are not shown; these are yours."))
    return Panel(name="overlap", title=T("What they have in common"), prose=told, table=table)


def _shares(kind: T, counted: Counter[str], of: int) -> Iterator[Mapping[str, Value]]:
    for name, number in sorted(counted.items(), key=lambda one: (-one[1], one[0])):
        yield {"name": Code(name), "kind": kind, "datasets": Count(number), "share": Share(number / of)}


def _recipes(view: View, listing: Listing) -> Panel:
    """What each recipe of a contract in force may read, and how much of it is in the catalogue."""
    described = {(one["org"], one["dataset"]) for one in listing.datasets}
    rows: list[Mapping[str, Value]] = []
    for contract, row in contract_rows(view):
        if row["standing"] not in _IN_FORCE:
            continue
        orgs = {one.party: one.org for one in contract.contributors}
        for recipe in contract.recipes:
            own = [ref for ref in recipe.datasets if (orgs.get(ref.party, ""), ref.dataset) in described]
            rows.append(
                {
                    "recipe": Code(recipe.id),
                    "contract": link_to(contract),
                    "purpose": Code(recipe.purpose),
                    "parties": Name(", ".join(recipe.participants)),
                    "datasets": Name("; ".join(f"{one.party}: {one.dataset}" for one in recipe.datasets)),
                    "described": T("{n} of {of}", n=Count(len(own)), of=Count(len(recipe.datasets))),
                    "fields": Name(", ".join(contract.fields.allow)),
                    "groups": Count(contract.aggregation.min_parties),
                    "digest": Digest(recipe.recipe_digest),
                }
            )
        if len(rows) >= _RECIPES:
            break
    table = Table(
        name="recipes",
        caption=T("Recipes of contracts in force"),
        columns=(
            Column("recipe", T("Recipe")),
            Column("contract", T("Contract")),
            Column("purpose", T("Purpose")),
            Column("parties", T("Parties")),
            Column("datasets", T("Data sets that it may read")),
            Column("described", T("Described above")),
            Column("fields", T("Fields that may be used")),
            Column("groups", T("Groups that it takes")),
            Column("digest", T("Digest of the recipe")),
        ),
        rows=rows,
        empty=T("No contract is in force, so no recipe may read anything."),
    )
    return Panel(name="recipes", title=T("What the contracts let recipes use"), table=table)
