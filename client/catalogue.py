# SPDX-License-Identifier: Apache-2.0
"""Own data: imported under a contract's field list, described in coarse words, signed and published."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from client.answers import Answer, table
from client.contract.reading import fetch, latest
from client.errors import NoSuchThingError
from client.seeds.donated import is_given, withheld
from policies.encoding import digest

if TYPE_CHECKING:
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from client.settings import Home, LocalRules
    from policies.recipe import Recipe

__all__ = ["data_add", "data_list"]

_ENOUGH = 2  # half of the units that the plan's public divisor counts on


def needed_episodes(recipe: Recipe) -> int:
    """Training episodes below which a recipe's private step would mostly be noise; 1 without a plan."""
    plan = recipe.plan
    return 1 if plan is None else math.ceil(float(plan.normalizer) / float(plan.sampling_prob) / _ENOUGH)


def data_add(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    source: Path,
    *,
    dataset: str,
    signal_map: Path | None,
    contract: str | None,
    rules: LocalRules,
    publish: bool,
    source_format: str | None = None,
) -> Answer:
    """Imports a recording and publishes the descriptor of its data set.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node; the named one is fetched if it is not here.
        outbox: Notes what leaves.
        source: File or folder to read; never written to.
        dataset: Name of the data set, as the contract's recipes list it.
        signal_map: TOML file that says which channel is which field.
        contract: Digest; the newest contract of this node if left out.
        rules: The site's own field list tightens the contract's.
        publish: Whether the descriptor is sent.
        source_format: Name of the reader, where two claim the path.

    Raises:
        DataError: The import is refused; nothing was stored.
        NoSuchThingError: The contract lists no such data set for this party.
    """
    from client.data import import_path

    held = fetch(member, shelf, contract or latest(member, shelf))
    recipes = _recipes(shelf, held, dataset)
    allow = frozenset(held.contract.fields.allow) & frozenset(
        rules.fields if rules.fields is not None else held.contract.fields.allow
    )
    report = import_path(
        member.home.data,
        source,
        dataset=dataset,
        signal_map=signal_map,
        allow=allow,
        rights=held.contract.digest,
        node_key=member.identity.unit_key,
        clock=member.clock,
        required=frozenset(field for one in recipes for field in one.fields),
        units={one.plan.unit for one in recipes if one.plan is not None},
        source_format=source_format,
    )
    facts = {
        "dataset": dataset,
        "contract": held.contract.digest,
        "lineage": report.lineage,
        "episodes_added": report.episodes_added,
        "held_out_added": report.held_out_added,
        "frames_added": report.frames_added,
        "duplicates": report.duplicates,
        "excluded": report.excluded,
        "dropped_columns": list(report.dropped_columns),
        "fields": list(report.fields),
        "findings": {one.code: one.count for one in report.findings},
        "published": None,
    }
    if publish:
        facts["published"] = _publish(
            member, outbox, dataset=dataset, allow=allow, recipes=recipes, held=held
        )
    text = (
        f"data set   {dataset}",
        f"episodes   {report.episodes_added} added, {report.held_out_added} of them held out",
        f"fields     {', '.join(report.fields)}",
        f"dropped    {', '.join(report.dropped_columns) or 'no column'}",
        f"findings   {', '.join(f'{one.code} {one.count}' for one in report.findings) or 'none'}",
        "descriptor " + ("published" if publish else "not published"),
    )
    return Answer(data=facts, text=text)


def _recipes(shelf: ContractShelf, held: Held, dataset: str) -> list[Recipe]:
    party = held.party.party
    found = [one for one in held.contract.recipes if dataset in one.datasets_of(party)]
    if not found:
        names = sorted({name for one in held.contract.recipes for name in one.datasets_of(party)})
        raise NoSuchThingError(
            need="a data set of yours in the contract: " + (", ".join(names) or "it lists none"),
            found=dataset,
            remedy="use the contract's name, or name another contract",
        )
    return [shelf.recipe(held.contract.digest, one.recipe_digest) for one in found]


def _publish(
    member: Member,
    outbox: Outbox,
    *,
    dataset: str,
    allow: frozenset[str],
    recipes: list[Recipe],
    held: Held,
) -> str:
    """Sends the signed descriptor; gives the digest of what left."""
    from client.data import describe, seal

    descriptor = describe(
        member.home.data,
        dataset,
        node=member.identity.node,
        allow=allow,
        clock=member.clock,
        recipes={one.digest: needed_episodes(one) for one in recipes},
    )
    envelope = seal(descriptor, member.identity.key)
    data = envelope.to_bytes()
    with outbox.writing() as letters:
        letters.note(
            kind="descriptor",
            size_bytes=len(data),
            digest=digest(data),
            clause=held.contract.fields.clause,
            contract=held.contract.digest,
        )
    member.client.post(
        "/catalogue/descriptors", envelope.to_json(), idempotency_key=f"descriptor-{digest(data)[7:47]}"
    )
    return digest(data)


def data_list(home: Home) -> Answer:
    """Data sets of this site; nothing of this table leaves."""
    from client.data import Store

    store = Store(home.data)
    catalogue = store.catalogue()
    rows: list[dict[str, Any]] = []
    away = withheld(home)
    for name, entry in sorted(catalogue.datasets.items()):
        metas = [one.meta for one in store.episodes(name)]
        usable = [one for one in metas if not one.excluded and not is_given(one, away)]
        rows.append(
            {
                "dataset": name,
                "lineage": entry.lineage,
                "contracts": list(entry.rights),
                "train": sum(one.split == "train" for one in usable),
                "held_out": sum(one.split == "held-out" for one in usable),
                "donated": sum(is_given(one, away) for one in metas),
                "excluded": sum(bool(one.excluded) for one in metas),
                "fields": sorted({column.split(".", 1)[1] for column in entry.columns}),
            }
        )
    lines = table(
        ("data set", "train", "held out", "donated", "excluded", "fields"),
        [
            (
                one["dataset"],
                one["train"],
                one["held_out"],
                one["donated"],
                one["excluded"],
                ", ".join(one["fields"]),
            )
            for one in rows
        ],
    )
    if not rows:
        lines = ("no data set yet: iriai-node data add PATH --dataset NAME",)
    return Answer(data={"datasets": rows}, text=lines)
