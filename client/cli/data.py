# SPDX-License-Identifier: Apache-2.0
"""``iriai-node data``: recordings become episodes of this site. Libraries are imported inside commands."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Lang, Language, Open, Reader, command, group, opened, tell
from client.cli.progress import progress_bar
from client.clock import SystemClock
from client.rehearsal import rehearsed, told_dry
from client.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.answers import Answer
    from client.datasets.adding import Source
    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.recipe import Recipe
    from policies.shown_data import Shown

__all__ = ["data"]

data = group("Recordings: look, import, check, describe.")

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Name, as data list shows it.")]
Map = Annotated[Path | None, typer.Option("--map", help="TOML: which channel is which field.")]
Contract = Annotated[
    str | None,
    typer.Option("--contract", help="Digest, 12 hex digits do; the newest signed one if left out."),
]
FitsOnly = Annotated[
    bool, typer.Option("--fits-only", help="Other members see only which recipes the data set fits.")
]
OpenWords = Annotated[
    bool, typer.Option("--open", help="Other members see its coarse words again, after --fits-only.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe whose constants are compared with this site's data.")
]


def _identity(home: Home) -> NodeIdentity:
    from client.identity import load_identity

    return load_identity(home.need())


@command(data, "inspect")
def data_inspect(
    path: Path,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Write the proposed map to this file.")] = None,
    reader: Reader = None,
    home: Home,
) -> Answer:
    """Says what a recording is and proposes a signal map; stores nothing, and needs no node."""
    from client.datasets.inspecting import inspect

    del home  # taken as its neighbours take it: a recording is looked at before there is a node, too

    return inspect(path, source_format=reader, out=out)


@command(data, "add")
def data_add(
    path: Path,
    *,
    dataset: Annotated[str, typer.Option(help="Name, as the contract lists it.")],
    signal_map: Map = None,
    digest: Contract = None,
    alone: Annotated[
        bool, typer.Option("--no-contract", help="Store it without a contract: nothing may be trained on it.")
    ] = False,
    reader: Reader = None,
    accept_truncated: Annotated[
        bool, typer.Option("--accept-truncated", help="Take the complete messages of a file that was cut.")
    ] = False,
    consent: Annotated[
        str | None, typer.Option("--consent", help="Id of the consent of those whom video or audio shows.")
    ] = None,
    skip_known: Annotated[
        bool,
        typer.Option("--skip-known", help="Leave out episodes whose rows or frames other episodes have."),
    ] = False,
    fits_only: FitsOnly = False,
    open_words: OpenWords = False,
    no_publish: Annotated[
        bool, typer.Option("--no-publish", help="Keep certificate and descriptor here.")
    ] = False,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Imports a recording, checks it and certifies it; only coarse, signed words leave. Safe to repeat."""
    from client.datasets.adding import Source, add_alone
    from client.datasets.published import keep_narrow

    shown = _shown(fits_only=fits_only, open_words=open_words)
    with going_on(), progress_bar(f"{path.name}") as told:
        source = Source(
            path=path,
            signal_map=signal_map,
            source_format=reader,
            accept_truncated=accept_truncated,
            consent=consent,
            skip_known=skip_known,
            progress=told,
        )
        if not alone:
            asked = _Adding(source=source, dataset=dataset, publish=not no_publish, shown=shown)
            return _add(home, asked, digest=digest, dry_run=dry_run)
        if dry_run:
            with rehearsed(home) as copy:
                done = add_alone(copy, _identity(home), source, dataset=dataset, clock=SystemClock())
            return told_dry(done)
        done = add_alone(home, _identity(home), source, dataset=dataset, clock=SystemClock())
        keep_narrow(home, dataset, shown)
        return done


@contextmanager
def going_on() -> Iterator[None]:
    """Says what an import that was stopped leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        tell(("stopped; the store is as it was. The same command goes on where this one was stopped.",))
        raise


def _shown(*, fits_only: bool, open_words: bool) -> Shown | None:
    """What the owner chose; None keeps what was chosen before."""
    if fits_only and open_words:
        raise typer.BadParameter("--fits-only and --open exclude each other")
    if fits_only:
        return "fits"
    return "open" if open_words else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adding:
    """What is to be imported, and what others are to be told of it."""

    source: Source
    dataset: str
    publish: bool
    shown: Shown | None


def _add(home: Home, asked: _Adding, *, digest: str | None, dry_run: bool) -> Answer:
    """Under a contract; a dry run imports into a copy of the store."""
    from client.contract.reading import resolve
    from client.datasets.adding import data_add as add

    with opened(home) as one, rehearsed(home) if dry_run else nullcontext(home) as into:
        done = add(
            replace(one.member, home=into),
            one.shelf,
            one.outbox,
            asked.source,
            dataset=asked.dataset,
            contract=None if digest is None else resolve(one.member, one.shelf, digest),
            rules=load_settings(one.home).local,
            publish=asked.publish,
            shown=asked.shown,
            dry_run=dry_run,
        )
    return told_dry(done) if dry_run else done


@command(data, "list")
def data_list(home: Home) -> Answer:
    """Data sets of this site; nothing of this leaves."""
    from client.datasets.showing import data_list as listed

    return listed(home, _identity(home), now_ms=SystemClock().now_ms())


@command(data, "show")
def data_show(dataset: Dataset, home: Home) -> Answer:
    """One data set: robot, fields, episodes, certificate; nothing of this leaves."""
    from client.datasets.showing import data_show as shown

    return shown(home, _identity(home), dataset, now_ms=SystemClock().now_ms())


@command(data, "check")
def data_check(
    dataset: Dataset,
    *,
    recipe: RecipeFile = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write a page with pictures of the findings.")
    ] = None,
    lang: Lang = Language.EN,
    accept: Annotated[
        str | None, typer.Option("--accept", help="A finding of check 9 or 10 that you have looked at.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who accepts it.")] = "",
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Runs the twelve checks and signs the certificate that follows; exit 3 if it says refused."""
    from client.datasets.checking import data_check as check

    with rehearsed(home) if dry_run else nullcontext(home) as into:
        done = check(
            into,
            _identity(home),
            dataset,
            clock=SystemClock(),
            recipe=_recipe(recipe),
            page=None if dry_run else page,
            lang=lang.value,
            accept=accept,
            by=by,
        )
    return told_dry(done) if dry_run else done


def _recipe(path: Path | None) -> Recipe | None:
    from policies.recipe import load

    return None if path is None else load(path.read_bytes())


@command(data, "publish")
def data_publish(
    dataset: Dataset,
    *,
    digest: Contract = None,
    fits_only: FitsOnly = False,
    open_words: OpenWords = False,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A word for a task that others may know; kept.")
    ] = None,
    again: Annotated[
        str,
        typer.Option("--again", help="Why another descriptor follows within 30 days; kept in the outbox."),
    ] = "",
    dry_run: DryRun = False,
    one: Open,
) -> Answer:
    """Publishes certificate and descriptor of a data set that is here."""
    from client.contract.reading import resolve
    from client.datasets.adding import data_publish as publish
    from client.datasets.published import Asked

    return publish(
        one.member,
        one.shelf,
        one.outbox,
        dataset=dataset,
        contract=None if digest is None else resolve(one.member, one.shelf, digest),
        rules=load_settings(one.home).local,
        asked=Asked(
            shown=_shown(fits_only=fits_only, open_words=open_words),
            tasks=tuple(task) if task else None,
            again=again,
        ),
        dry_run=dry_run,
    )


@command(data, "withdraw")
def data_withdraw(dataset: Dataset, *, dry_run: DryRun = False, one: Open) -> Answer:
    """Takes a published data set back out of the catalogue; contracts that name it go on. Repeatable."""
    from client.datasets.withdrawing import data_withdraw as withdraw

    return withdraw(one.member, one.shelf, one.outbox, dataset=dataset, dry_run=dry_run)


@command(data, "export")
def data_export(
    dataset: Dataset,
    *,
    lerobot: Annotated[Path, typer.Option("--lerobot", help="New folder, as a LeRobotDataset v3.0.")],
    private: Annotated[
        bool, typer.Option("--private", help="With the columns that this site keeps to itself.")
    ] = False,
    home: Home,
) -> Answer:
    """Writes a data set with its statistics for the owner's own tools; not for passing on."""
    from client.datasets.exporting import data_export as export

    return export(home.need(), dataset, lerobot, private=private)


@command(data, "fingerprints")
def data_fingerprints(
    *,
    peer: Annotated[str, typer.Option("--for", help="The other member: its name in the contract, or org_.")],
    out: Annotated[Path, typer.Option("--out", help="New file; you hand it over yourself.")],
    dataset: Annotated[str | None, typer.Option(help="Where this site has several.")] = None,
    digest: Contract = None,
    one: Open,
) -> Answer:
    """Writes a file by which one other member finds out which of its own episodes are here too."""
    from client.contract.reading import resolve
    from client.datasets.comparing import data_fingerprints as fingerprints
    from client.entropy import SystemEntropy

    return fingerprints(
        one.member,
        one.shelf,
        peer,
        out,
        dataset=dataset,
        contract=None if digest is None else resolve(one.member, one.shelf, digest),
        entropy=SystemEntropy(),
    )


@command(data, "compare")
def data_compare(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the other member sent.")],
    *,
    peer: Annotated[str, typer.Option("--from", help="The member who made it: name, or org_.")],
    dataset: Annotated[str | None, typer.Option(help="One of yours; all if left out.")] = None,
    digest: Contract = None,
    one: Open,
) -> Answer:
    """Lists this site's episodes that another member has too."""
    from client.contract.reading import resolve
    from client.datasets.comparing import data_compare as compare

    contract = None if digest is None else resolve(one.member, one.shelf, digest)
    return compare(one.member, one.shelf, file, peer, dataset=dataset, contract=contract)


@command(data, "remove")
def data_remove(dataset: Dataset, home: Home, *, dry_run: DryRun = False) -> Answer:
    """Deletes a data set's files; episodes that never had a right are forgotten too."""
    from client.datasets.removing import data_remove as remove
    from client.datasets.showing import data_show as shown

    if dry_run:
        from client.answers import Answer

        there = shown(home.need(), _identity(home), dataset)
        words = ("dry run: this data set would be deleted; nothing was changed",)
        return Answer(data={"dry_run": True, "would_remove": there.data}, text=(*there.text, *words))
    return remove(home.need(), dataset)
