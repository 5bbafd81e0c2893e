# SPDX-License-Identifier: Apache-2.0
"""``iriai-node seed join|fit|check``: from donations to a seed set, a start model and a recipe.

- Whoever drafts the contract joins and fits; no node's keys take part in it, and nothing private is read.
- `check` is for everybody else: that recipe, seed set and start model belong together, and that the model is
  a fit to these episodes, by a fit of one's own (`client.learning.seeding`, in a process of its own).

    seed join kita.json nord.json --out seed-set.json         also writes each consent, and the clause
    seed fit --recipe R --seed-set seed-set.json --out start.f32 --recipe-out started.json
    iriai-broker contract offer C.yaml --recipe started.json --annex seed-set.json --annex start.f32 …
    seed check --contract DIGEST
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.answers import Answer
from client.errors import NoSuchThingError, SeedFitError
from policies.contract.starts import check_starts, seed_clause_of
from policies.donations import join, read_donation
from policies.encoding import digest
from policies.limits import SEED_FIT_S, SEED_FIT_STEPS
from policies.recipe import load
from policies.seeds import StartModelUnfitError, check_fits, read_seed_set, start_weights, with_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.contract.shelf import ContractShelf, Held
    from policies.seeds import SeedSet

__all__ = ["Files", "check_contract", "check_files", "fit_seed", "join_donations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What belongs together: the bytes of a recipe, of its seed set and of its start model."""

    recipe: bytes
    seed_set: bytes
    model: bytes


def join_donations(files: Sequence[Path], *, out: Path, consents: Path | None = None) -> Answer:
    """Joins donations into a seed set; writes it, each consent beside it, and the clause that names both.

    Raises:
        NoSuchThingError: A file cannot be read or is there already.
        SeedSetInvalidError, ConsentInvalidError: A donation does not hold, or is there twice.
    """
    donations = [read_donation(read_file(one)) for one in files]
    seeds, envelopes = join(donations)
    folder = out.parent if consents is None else consents
    folder.mkdir(parents=True, exist_ok=True)
    rows, annexes = [], [str(out)]
    for one in sorted(donations, key=lambda one: (one.consent.party, one.consent.dataset)):
        name = digest(one.envelope)
        path = folder / f"consent-{one.consent.party}-{name[7:19]}.json"
        path.write_bytes(envelopes[name])
        annexes.append(str(path))
        terms = one.consent
        rows.append(
            {"party": terms.party, "dataset": terms.dataset, "licence": terms.licence, "consent": name}
        )
    out.write_bytes(seeds.canonical)
    return Answer(
        data={
            "seed_set": seeds.digest,
            "file": str(out),
            "episodes": len(seeds.episodes),
            "donations": rows,
            "annexes": annexes,
        },
        text=(
            f"seed set  {seeds.digest}",
            f"episodes  {len(seeds.episodes)} of {len(rows)} donations",
            "",
            *_clause(seeds, rows),
            "",
            f"next: iriai-node seed fit --recipe RECIPE --seed-set {out} --out start.f32 --recipe-out FILE",
        ),
    )


def _clause(seeds: SeedSet, rows: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """The clause of the contract, as YAML."""
    lines = ["seed_sets:", "  - clause: seed-1", "    recipe: RECIPE-ID", f'    seed_set: "{seeds.digest}"']
    lines.append("    donations:")
    for row in rows:
        words = ", ".join(f"{name}: {json.dumps(value)}" for name, value in row.items())
        lines.append(f"      - {{{words}}}")
    return tuple(lines)


def fit_seed(
    recipe: Path, seed_set: Path, *, out: Path, recipe_out: Path | None, steps: int, folder: Path
) -> Answer:
    """Fits a model to a seed set, in a process of its own; writes its weights and the recipe that names both.

    Raises:
        NoSuchThingError: A file cannot be read, or one that would be written is there already.
        RecipeError, SeedSetInvalidError: Recipe and seed set do not fit.
        SeedFitError: The process ended without a result.
    """
    _check_new(out, recipe_out)
    data = read_file(recipe)
    loaded, seeds = load(data), read_seed_set(read_file(seed_set))
    check_fits(seeds, loaded)
    losses = _child("--fit-seed", recipe, seed_set, out, steps=steps, folder=folder)
    model = digest(read_file(out))
    started = with_start(data, seed_set=seeds.digest, model=model)
    start_weights(load(started), read_file(out))
    if recipe_out is not None:
        recipe_out.write_bytes(started)
    return Answer(
        data={
            "model": model,
            "seed_set": seeds.digest,
            "recipe": digest(started),
            "steps": steps,
            "file": str(out),
            "recipe_file": None if recipe_out is None else str(recipe_out),
            "loss": losses["loss"],
            "loss_first": losses["loss_first"],
        },
        text=(
            f"model     {model}",
            f"loss      {losses['loss_first']:.4g} before, {losses['loss']:.4g} after {steps} ordinary steps",
            f"recipe    {digest(started)}" + ("" if recipe_out is None else f", {recipe_out}"),
            "next: name the recipe's digest in its clause and add the seed clause; then",
            "      iriai-broker contract offer C.yaml --recipe FILE --annex FILE (seed set, consents, start)",
        ),
    )


def _check_new(out: Path, recipe_out: Path | None) -> None:
    """Before the fit: minutes of work end in new files, and none that somebody signed for is replaced."""
    for option, one in (("--out", out), ("--recipe-out", recipe_out)):
        if one is not None and (one.exists() or not one.parent.is_dir()):
            raise NoSuchThingError(
                need="a new file in a folder that is there", found=str(one), remedy=f"choose another {option}"
            )
    if recipe_out is not None and recipe_out.resolve() == out.resolve():
        raise NoSuchThingError(need="two files", found=f"{out} twice", remedy="choose another --recipe-out")


def check_files(files: Files, *, steps: int, folder: Path) -> Answer:
    """Whether a start model is the recipe's and a fit to the seed set, by a fit of one's own.

    Raises:
        SeedSetInvalidError, RecipeError: Recipe and seed set do not fit.
        StartModelUnfitError: The model is not the recipe's, or no fit to these episodes.
        SeedFitError: The process ended without a result.
    """
    recipe, seeds = load(files.recipe), read_seed_set(files.seed_set)
    check_fits(seeds, recipe)
    named = (None if recipe.start is None else recipe.start.seed_set) or "none"
    if named != seeds.digest:
        raise StartModelUnfitError(
            need=f"a recipe that starts from {seeds.digest}",
            found=named,
            remedy="take the recipe that seed fit wrote for this seed set",
        )
    start_weights(recipe, files.model)
    with ExitStack() as held:
        aside = Path(held.enter_context(tempfile.TemporaryDirectory()))
        paths = (aside / "recipe.json", aside / "seed-set.json", aside / "start.f32")
        for path, data in zip(paths, (files.recipe, files.seed_set, files.model), strict=True):
            path.write_bytes(data)
        losses = _child("--check-seed", *paths, steps=steps, folder=folder)
    if not losses["holds"]:
        raise StartModelUnfitError(
            need=f"a loss on the seed episodes near {losses['loss_own']:.4g}, that of an own fit of {steps} "
            "steps: at least 95 % of what it gains",
            found=f"{losses['loss']:.4g}; weights before any step have {losses['loss_first']:.4g}",
            remedy="do not sign; ask its author which episodes the model was fitted to, or take more --steps",
        )
    return _checked(recipe.digest, seeds, digest(files.model), losses)


def _checked(recipe: str, seeds: SeedSet, model: str, losses: dict[str, Any]) -> Answer:
    return Answer(
        data={
            "recipe": recipe,
            "seed_set": seeds.digest,
            "model": model,
            "episodes": len(seeds.episodes),
            "loss": losses["loss"],
            "loss_own": losses["loss_own"],
            "loss_first": losses["loss_first"],
            "holds": True,
        },
        text=(
            f"recipe    {recipe}",
            f"seed set  {seeds.digest}, {len(seeds.episodes)} episodes",
            f"model     {model}",
            f"loss      {losses['loss']:.4g}; by an own fit {losses['loss_own']:.4g}",
            f"          without any fit {losses['loss_first']:.4g}",
            "holds: it does on these episodes what a fit to them does; that nothing else went into it",
            "       cannot be seen from the model",
        ),
    )


def check_contract(shelf: ContractShelf, held: Held, *, steps: int, folder: Path) -> Answer:
    """`check_files` for every recipe of a contract that starts from a seed set, after all documents held.

    Raises:
        NoSuchThingError: No recipe starts from one.
        ContractInvalidError, SeedError: See `policies.contract.starts.check_starts`; the clause is named.
    """
    contract, annexes = held.contract, shelf.annexes(held.contract.digest)
    recipes = {
        one.recipe_digest: shelf.recipe(contract.digest, one.recipe_digest) for one in contract.recipes
    }
    check_starts(contract, recipes, annexes)
    answers = []
    for name, recipe in recipes.items():
        clause = seed_clause_of(contract, name)
        if clause is not None and recipe.start is not None:
            files = Files(
                recipe=recipe.canonical,
                seed_set=annexes[clause.seed_set],
                model=annexes[recipe.start.model],
            )
            answers.append(check_files(files, steps=steps, folder=folder))
    if not answers:
        raise NoSuchThingError(
            need="a recipe that starts from a seed set",
            found="none in this contract",
            remedy="nothing to check: training begins with weights that follow from the recipe's seed",
        )
    return Answer(
        data={"contract": contract.digest, "checked": [one.data for one in answers]},
        text=tuple(line for one in answers for line in one.text),
    )


def _child(what: str, *files: Path, steps: int, folder: Path) -> dict[str, Any]:
    """Losses that a process with torch found; fewer than 1 or too many steps are refused before it starts.

    Raises:
        SeedFitError: It ended without a result.
    """
    if not 0 < steps <= SEED_FIT_STEPS:
        raise NoSuchThingError(
            need=f"1 to {SEED_FIT_STEPS} steps", found=str(steps), remedy="choose another --steps"
        )
    names = [str(one.resolve()) for one in files]
    command = [sys.executable, "-m", "client.node", "--dir", str(folder), what, *names, "--steps", str(steps)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SEED_FIT_S, check=False)  # noqa: S603
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        found = None
    if not isinstance(found, dict):
        raise SeedFitError(
            need="a fit to the seed set",
            found="a process that ended without one",
            remedy=f"see its own words: {' '.join(command[1:])}",
        )
    return found


def read_file(path: Path) -> bytes:
    """Bytes of a file that a person named.

    Raises:
        NoSuchThingError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise NoSuchThingError(
            need=f"the file {path}", found=type(error).__name__, remedy="check its name"
        ) from error
