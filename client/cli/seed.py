# SPDX-License-Identifier: Apache-2.0
"""``iriai-node seed``: openly donated episodes, and the model that training begins with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Open, Reader, Yes, command, group, opened, retype, tell
from client.settings import load_settings

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["seed"]

seed = group("Open seed sets: donate episodes, join donations, fit a start model, check one.")

_STEPS = 1_500
_GIVE = "You are about to make these recordings public, for ever, by the consent whose digest begins with:"

RecipeFile = Annotated[Path, typer.Option("--recipe", help="The recipe, as a file.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Ordinary steps of the fit.")]


@command(seed, "donate")
def seed_donate(
    *,
    recipe: RecipeFile,
    dataset: Annotated[str, typer.Option(help="Data set that they are from, as the contract will list it.")],
    licence: Annotated[str, typer.Option(help="Under which everybody may use them, like CC-BY-4.0.")],
    out: Annotated[Path, typer.Option("--out", help="New file for the donation.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="How many episodes, if none is named with --episode.")
    ] = None,
    episodes: Annotated[list[str] | None, typer.Option("--episode", help="Id of one; repeatable.")] = None,
    party: Annotated[
        str | None, typer.Option(help="Your short name in the contract to come; else that of the newest one.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Recording to take them from, if they are not in the store.")
    ] = None,
    signal_map: Annotated[
        Path | None, typer.Option("--map", help="TOML for --from: which channel is which field.")
    ] = None,
    reader: Reader = None,
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Asks, then writes episodes of this site as a public file with your signed consent; irrevocable."""
    from client.seeds import donating, read_file

    recording = None
    if source is not None:
        recording = donating.Recording(path=source, signal_map=signal_map, reader=reader)
    return donating.donate(
        one.member,
        one.shelf,
        dataset=dataset,
        party=party,
        recipe=read_file(recipe),
        licence=licence,
        out=out,
        rules=load_settings(one.home).local,
        confirm=retype(_GIVE, yes=yes),
        count=count,
        episodes=tuple(episodes or ()),
        recording=recording,
        tell=tell,
    )


@command(seed, "join")
def seed_join(
    donations: Annotated[list[Path], typer.Argument(help="Files that donors handed over.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File for the seed set.")],
    consents: Annotated[
        Path | None, typer.Option("--consents", help="Folder for the consents; that of --out if left out.")
    ] = None,
) -> Answer:
    """Joins donations into one seed set; writes each consent beside it and prints the contract's clause."""
    from client import seeds

    return seeds.join_donations(donations, out=out, consents=consents)


@command(seed, "fit")
def seed_fit(
    *,
    recipe: RecipeFile,
    seed_set: Annotated[Path, typer.Option("--seed-set", help="The seed set, as a file.")],
    out: Annotated[Path, typer.Option("--out", help="New file for the weights of the start model.")],
    recipe_out: Annotated[
        Path | None, typer.Option("--recipe-out", help="New file for the recipe that starts from it.")
    ] = None,
    steps: Steps = _STEPS,
    home: Home,
) -> Answer:
    """Fits a model to open episodes, at no privacy cost, and writes the recipe that starts from it."""
    from client import seeds

    return seeds.fit_seed(recipe, seed_set, out=out, recipe_out=recipe_out, steps=steps, folder=home.root)


@command(seed, "check")
def seed_check(
    *,
    contract: Annotated[
        str | None, typer.Option("--contract", help="Digest of a contract (12 hex digits do), or the files:")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="The recipe, as a file.")] = None,
    seed_set: Annotated[Path | None, typer.Option("--seed-set", help="The seed set, as a file.")] = None,
    start: Annotated[Path | None, typer.Option("--start", help="Weights of the start model.")] = None,
    steps: Steps = _STEPS,
    home: Home,
) -> Answer:
    """Fits anew and compares losses on the seed episodes; exit 3 if the start model is no fit to them."""
    from client import seeds
    from client.contract.reading import fetch, latest, resolve
    from client.errors import NoSuchThingError

    if recipe is not None and seed_set is not None and start is not None:
        files = seeds.Files(
            recipe=seeds.read_file(recipe),
            seed_set=seeds.read_file(seed_set),
            model=seeds.read_file(start),
        )
        return seeds.check_files(files, steps=steps, folder=home.root)
    if recipe is not None or seed_set is not None or start is not None:
        raise NoSuchThingError(
            need="--recipe, --seed-set and --start together",
            found="some of them",
            remedy="name all three",
        )
    with opened(home) as one:
        name = latest(one.member, one.shelf) if contract is None else contract
        held = fetch(one.member, one.shelf, resolve(one.member, one.shelf, name))
        return seeds.check_contract(one.shelf, held, steps=steps, folder=home.root)
