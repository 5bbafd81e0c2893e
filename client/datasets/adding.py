# SPDX-License-Identifier: Apache-2.0
"""``data add``: a recording becomes episodes of this site, is checked, certified, and described.

- Under a contract only fields of its list enter the store, and the certificate and the descriptor are
  published. A draft is no contract: who proposes it chooses its fields and recipes, and nobody is bound.
- Without one (`add_alone`), every canonical field enters, and nothing may be trained until the same recording
  is added under a contract.
- The certificate is made after the import, over the whole data set. It may say ``refused``: then it names the
  checks, and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003  a dataclass field
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from client.answers import Answer, plain
from client.budgets import is_opened
from client.contract.reading import signed
from client.data.errors import DataError, DescribedLatelyError
from client.datasets.imported import told
from client.datasets.origins import names_of
from client.datasets.published import Asked, keep_narrow, was_published
from client.datasets.publishing import publish
from client.datasets.wording import some_names
from client.errors import NoSuchThingError
from policies.messages import DescriptorKeyError
from policies.recipe import FIELD_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from client.data.importing import ImportReport
    from client.data.progress import Progress
    from client.datasets.publishing import Sent
    from client.identity import NodeIdentity
    from client.membership import Member
    from client.outbox import Outbox
    from client.settings import Home, LocalRules
    from policies.ports import Clock
    from policies.recipe import Recipe
    from policies.shown_data import Shown

__all__ = ["Source", "add_alone", "data_add", "data_publish", "needed_episodes"]

_ENOUGH = 2  # half of the units that the plan's public divisor counts on
ALONE = ""  # rights of what was stored without a contract


def needed_episodes(recipe: Recipe) -> int:
    """Training episodes below which a recipe's private step would mostly be noise; 1 without a plan."""
    plan = recipe.plan
    return 1 if plan is None else math.ceil(float(plan.normalizer) / float(plan.sampling_prob) / _ENOUGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is imported, and how it is read.

    Attributes:
        path: File or folder; never written to.
        signal_map: TOML file that says which channel is which field.
        source_format: Name of the reader, where two claim the path.
        accept_truncated: Takes the complete messages of a container that was cut.
        consent: Id of the consent of those whom its video or audio shows.
        skip_known: Leaves out episodes that have rows or frames of others, in place of a refusal.
        progress: Told while it is read.
    """

    path: Path
    signal_map: Path | None = None
    source_format: str | None = None
    accept_truncated: bool = False
    consent: str | None = None
    skip_known: bool = False
    progress: Callable[[Progress], None] | None = None


def data_add(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    source: Source | Path,
    *,
    dataset: str,
    signal_map: Path | None = None,
    contract: str | None,
    rules: LocalRules,
    publish: bool,
    shown: Shown | None = None,
    dry_run: bool = False,
) -> Answer:
    """Imports a recording under a contract and publishes what may be known of it.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node; the named one is fetched if it is not here.
        outbox: Notes what leaves.
        source: What to read.
        dataset: Name of the data set, as the contract's recipes list it.
        signal_map: For a source that is a path alone.
        contract: Digest; the newest contract that everybody signed if left out.
        rules: The site's own field list tightens the contract's.
        publish: Whether certificate and descriptor are sent.
        shown: What other members see of the descriptor, ``open`` or ``fits``; as before if left out.
        dry_run: Nothing is sent; the member's store is a copy (`client.rehearsal`).

    Returns:
        What was stored. Where only its description is refused, that is said, with the refusal's exit code.

    Raises:
        DataError: The import is refused; nothing was stored.
        NotExecutedError: The contract is a draft; nothing was stored.
        NoSuchThingError: The contract lists no such data set for this party, or none is signed.
    """
    held = signed(member, shelf, contract)
    recipes = recipes_of(shelf, held, dataset)
    allow = allowed_fields(held, rules)
    read = _with_own_map(source if isinstance(source, Source) else Source(path=source, signal_map=signal_map))
    report = _import(
        member.home,
        read,
        dataset=dataset,
        allow=allow,
        rights=held.contract.digest,
        node_key=member.identity.unit_key,
        clock=member.clock,
        required=frozenset(field for one in recipes if one.variants is None for field in one.fields),
        units={one.plan.unit for one in recipes if one.plan is not None},
    )
    facts, text = told(member.home, member.identity, member.clock, report, read.signal_map)
    facts |= {"contract": held.contract.digest, "published": None}
    if not publish:
        keep_narrow(member.home, dataset, shown)
        return Answer(data=facts, text=(*text, _kept_here(member.home, dataset, Asked(shown=shown))))
    try:
        sent = _publish(
            member,
            outbox,
            held,
            recipes,
            shelf=shelf,
            dataset=dataset,
            allow=allow,
            asked=Asked(shown=shown),
            dry_run=dry_run,
        )
    except DescribedLatelyError as error:  # the episodes are stored all the same
        late = (
            f"published  nothing new: the last descriptor is too recent ({error.found})",
            f"next       {error.remedy}",
        )
        return Answer(data=facts | {"not_published": error.code}, text=(*text, *late))
    except (DataError, DescriptorKeyError) as error:  # so they are; what would be said of them is refused
        why = (
            "stored     the episodes are here and checked; only publishing was refused",
            f"published  NOTHING, {error.code}: {plain(error.need)}: {plain(error.found)}",
            f"next       {error.remedy}",
        )
        facts |= {"not_published": error.code}
        return Answer(data=facts, text=(*text, *why), exit_code=error.exit_code)
    facts |= _sent_facts(sent, dry_run=dry_run)
    words = "certificate and descriptor, words alone: iriai-node outbox list"
    if dry_run:
        words = f"would be certificate and descriptor, {sent.size_bytes} bytes of words"
    return Answer(data=facts, text=(*text, f"published  {words}", *_left_out(dataset, sent)))


def _kept_here(home: Home, dataset: str, asked: Asked) -> str:
    """That nothing was published this time, and how it would be."""
    before = "nothing now; others still see what was published before"
    words = before if was_published(home, dataset) else "nothing yet"
    return f"published  {words}: {asked.command(dataset)}"


def add_alone(home: Home, identity: NodeIdentity, source: Source, *, dataset: str, clock: Clock) -> Answer:
    """Imports a recording without a contract: it may be looked at and checked, and not trained on.

    Raises:
        DataError: The import is refused; nothing was stored.
    """
    source = _with_own_map(source)
    report = _import(
        home,
        source,
        dataset=dataset,
        allow=FIELD_NAMES | _labels(source),
        rights=ALONE,
        node_key=identity.unit_key,
        clock=clock,
    )
    facts, text = told(home, identity, clock, report, source.signal_map)
    facts |= {"contract": None, "published": None}
    return Answer(data=facts, text=(*text, "rights     none: to train on it, add it again under a contract"))


def _with_own_map(source: Source) -> Source:
    """A folder that our recorder wrote has its map in it: it needs no other to be named."""
    from client.data.readers.deployed import recorded_map

    folder = source.path if source.path.is_dir() else source.path.parent
    return source if source.signal_map else replace(source, signal_map=recorded_map(folder))


def _labels(source: Source) -> frozenset[str]:
    """Labels of the map, of the file or of the format's own names; the outcome in any case."""
    from client.data.admission import map_of
    from client.data.readers import claimed
    from client.data.signalmap import load_map

    if source.signal_map is not None:
        named = load_map(source.signal_map).labels
    else:
        reader = claimed(source.path, chosen=source.source_format)
        named = map_of(reader.probe(source.path, None)).labels
    return frozenset({"outcome", *(one.field for one in named)})


def _import(home: Home, source: Source, *, dataset: str, **given: Any) -> ImportReport:  # noqa: ANN401  of `import_path`
    from client.data import import_path

    return import_path(
        home.data,
        source.path,
        dataset=dataset,
        signal_map=source.signal_map,
        source_format=source.source_format,
        accept_truncated=source.accept_truncated,
        consent=source.consent,
        progress=source.progress,
        is_sealed=lambda lineage: is_opened(home, lineage),
        skip_known=source.skip_known,
        names=partial(names_of, home.data),
        **given,
    )


def allowed_fields(held: Held, rules: LocalRules) -> frozenset[str]:
    """Fields that contract and site both allow."""
    listed = frozenset(held.contract.fields.allow)
    return listed if rules.fields is None else listed & frozenset(rules.fields)


def recipes_of(shelf: ContractShelf, held: Held, dataset: str) -> list[Recipe]:
    """Recipes of a contract for one of this party's data sets.

    Raises:
        NoSuchThingError: It lists no such data set.
    """
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
    held: Held,
    recipes: list[Recipe],
    *,
    shelf: ContractShelf,
    dataset: str,
    allow: frozenset[str],
    asked: Asked,
    dry_run: bool,
) -> Sent:
    return publish(
        member,
        outbox,
        held,
        {one.digest: needed_episodes(one) for one in recipes},
        dataset=dataset,
        allow=allow,
        tasks={one.task.name for one in recipes},
        asked=asked,
        dry_run=dry_run,
        contracts=(held.contract.digest, *shelf.earlier(held.contract.digest)),
    )


def _sent_facts(sent: Sent, *, dry_run: bool) -> dict[str, Any]:
    would = {"dry_run": True, "would_send_bytes": sent.size_bytes} if dry_run else {}
    return would | {
        "published": None if dry_run else sent.digest,
        "shown": sent.shown,
        "tasks": list(sent.tasks),
        "tasks_left_out": list(sent.left_out),
    }


def _left_out(dataset: str, sent: Sent) -> tuple[str, ...]:
    """Words for tasks that stayed here, and how they would leave."""
    if not sent.left_out:
        return ()
    declare = f"iriai-node data publish {dataset} --task WORD, for each that others may know"
    return (f"not told   tasks {some_names(sent.left_out)}", f"           {declare}")


def data_publish(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    *,
    dataset: str,
    contract: str | None,
    rules: LocalRules,
    asked: Asked,
    dry_run: bool = False,
) -> Answer:
    """Publishes certificate and descriptor of a data set that is here; a dry run keeps and sends nothing.

    Raises:
        NotExecutedError: The contract is a draft.
        DescribedLatelyError: Another descriptor follows too soon, and no reason is given.
        DatasetUnknownError: No such data set.
        CertificateVoidError: It changed since it was certified.
        NoSuchThingError: The contract lists no such data set for this party.
    """
    held = signed(member, shelf, contract)
    recipes = recipes_of(shelf, held, dataset)
    allow = allowed_fields(held, rules)
    sent = _publish(
        member,
        outbox,
        held,
        recipes,
        shelf=shelf,
        dataset=dataset,
        allow=allow,
        asked=asked,
        dry_run=dry_run,
    )
    words = "its coarse words" if sent.shown == "open" else "only which recipes it fits"
    done = f"{dataset} published; other members see {words}"
    if dry_run:
        done = (
            f"{dataset} would be published, 2 documents of {sent.size_bytes} bytes; other members would see "
            f"{words}; nothing was changed"
        )
    return Answer(
        data={"dataset_id": dataset, **_sent_facts(sent, dry_run=dry_run)},
        text=(done, *_left_out(dataset, sent)),
    )
