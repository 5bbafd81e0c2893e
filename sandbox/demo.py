# SPDX-License-Identifier: Apache-2.0
"""The demo: a whole federation from invitation to release, and where pooling helped and where it did not.

1. each cell records; broker, four nodes and two operators are set up; one contract is signed by all;
2. while the contract's start is awaited, each maker trains alone (outside the federation);
3. the run: private rounds, votes, release; each maker pulls the model and fine-tunes its own;
4. the auditor's process verifies the log; models act in the cells; one acts through its service, and its
   attempts come back as data (`sandbox.loop`); the report is written.
"""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.contract import load as load_contract
from policies.contract import plain_words
from policies.recipe import load as load_recipe
from sandbox.asked import check_donated, check_verifier, votes_drown
from sandbox.audit import verify_bundle
from sandbox.baselines import Workshop
from sandbox.claims import privacy_claim, sums_claim
from sandbox.clock import now_ms
from sandbox.errors import SandboxError, UsageError
from sandbox.federation import PROCESSES, Federation, Site
from sandbox.loop import close_loop
from sandbox.progress import Progress
from sandbox.recipes import DELTA, alone_recipe, asked_recipe
from sandbox.report import write_report
from sandbox.scores import Rate, success_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from policies.recipe import Recipe
    from sandbox.recipes import Noise

__all__ = ["DemoOptions", "run_demo"]

_RUN_S = 1_800.0
_ROLLOUTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to run.

    Attributes:
        epsilon: Per release, as a decimal; None runs without privacy and says NOT PRIVATE everywhere.
        noise: Kind of noise; without privacy there is none.
        episodes: Training episodes per cell.
        seed_episodes: How many of them each maker openly gives; training starts from a model of these.
        seed: Of recordings, baselines and placements; initial weights are the recipe's own.
        folder: Where the report goes.
        work: Where processes live; deleted first.
        verifier: The auditor's own ``iriai-verify``, from an environment with the base install only.
    """

    epsilon: str | None
    noise: Noise
    episodes: int
    seed_episodes: int
    seed: int
    folder: Path
    work: Path
    verifier: Path | None
    command: str


def run_demo(options: DemoOptions) -> dict[str, Any]:
    """Runs everything; gives the report. Processes are ended whatever happens.

    Raises:
        UsageError: Options that would fail later: nothing was made or deleted.
    """
    recipe = checked(options)
    if options.work.exists():
        shutil.rmtree(options.work)
    progress = Progress()
    if (warning := votes_drown(recipe, episodes=options.episodes)) is not None:
        progress.say(warning)
    federation = Federation(options.work)
    try:
        with Workshop() as workshop:
            return _Demo(options, progress, recipe, federation, workshop).run()
    finally:
        federation.stop()


def checked(options: DemoOptions) -> Recipe:
    """The recipe of a demo that can be run; nothing is made or deleted yet.

    Raises:
        UsageError: Options that would fail later, or a folder that is no earlier demo's.
    """
    check_donated(episodes=options.episodes, seed_episodes=options.seed_episodes)
    check_verifier(options.verifier)
    recipe = load_recipe(asked_recipe(options.epsilon, options.episodes, noise=options.noise))
    work = options.work
    ours = (work / PROCESSES, work / "broker", work / "cells")
    if work.exists() and not any(one.exists() for one in ours) and any(work.iterdir()):
        raise UsageError(need="a folder of an earlier demo", found=str(work), remedy="choose another folder")
    return recipe


class _Demo:
    """One run of the demo; each method is a phase or a part of the report."""

    def __init__(
        self,
        options: DemoOptions,
        progress: Progress,
        recipe: Recipe,
        federation: Federation,
        workshop: Workshop,
    ) -> None:
        self.options = options
        self.progress = progress
        self.recipe = recipe
        self.federation = federation
        self.workshop = workshop
        self.pids: dict[str, int] = {}
        self.released: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """All phases in order."""
        fed, phase = self.federation, self.progress.phase
        with phase("cells record demonstrations"):
            self._record()
        with phase("broker, invitations, approvals"):
            fed.start_broker()
            fed.enrol()
        if self.options.seed_episodes:
            with phase("episodes openly donated, a start model fitted to them"):
                self.recipe = fed.seed(self.recipe, self.options.seed_episodes)
        start_ms = fed.start_ms()
        with phase("contract, imports, signatures"):
            fed.agree(self.recipe, epsilon=self.options.epsilon, delta=DELTA, start_ms=start_ms)
            self.progress.say(f"contract {fed.contract} signed by {len(fed.sites)} makers and the broker")
        with phase("nodes come online"):
            fed.start_nodes()
        self.pids = fed.pids()
        self.progress.say("processes: " + ", ".join(f"{name} {pid}" for name, pid in self.pids.items()))
        with phase("makers train alone (outside the federation)"):
            alone = self._train_alone()
            outcomes = {"local": self._roll(alone, self._plain)}
        with phase("waiting for the contract to begin"):
            time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))
        with phase("rounds, votes, release"):
            run = self._train()
        with phase("models pulled and fine-tuned at home"):
            common, individual = self._models()
        with phase("log verified by the auditor's own process"):
            log = self._verify(str(run["run"]))
        with phase("models act in the cells (outside the federation)"):
            outcomes["common"] = self._roll(common, self.recipe.canonical)
            outcomes["individual"] = self._roll(individual, self.recipe.canonical)
        with phase("an individual model acts through its service, and what it did becomes data"):
            loop = close_loop(fed, fed.sites[2], self.released["model"], placements=2_000 + self.options.seed)
        self.progress.say(
            f"served in cell {loop['cell']}: {loop['successes']} of {loop['attempts']} attempts succeeded, "
            f"{loop['episodes_added']} imported as a new block"
        )
        report = self._report(outcomes, run, log) | {"loop": loop}
        files = write_report(report, self.options.folder)
        self.progress.say(f"report: {files[0]} and {files[1]}")
        return report

    @property
    def _plain(self) -> bytes:
        return alone_recipe(self.options.episodes)

    def _record(self) -> None:
        folders = {site.maker.cell: site.recordings for site in self.federation.sites}
        self.workshop.record(folders, train=self.options.episodes, seed=self.options.seed)

    def _train_alone(self) -> dict[str, Any]:
        stores = {site.name: (site.folder / "data", site.maker.dataset) for site in self.federation.sites}
        return self.workshop.train_alone(stores, self._plain, seed=self.options.seed)

    def _roll(self, models: Mapping[str, Any], recipe: bytes) -> dict[str, dict[str, Rate]]:
        cells = [site.maker.cell for site in self.federation.sites]
        return self.workshop.rollouts(
            models,
            cells,
            recipe=recipe,
            placements=1_000 + self.options.seed,
            n=_ROLLOUTS,
            tell=lambda done, of: self.progress.step(f"rollouts {done}/{of}"),
        )

    def _train(self) -> dict[str, Any]:
        fed = self.federation
        run = fed.open_run()
        rounds = self.recipe.rounds
        self.progress.say(f"run {run} of {rounds} rounds")

        shown = fed.wait_run(run, timeout_s=_RUN_S, tell=lambda n: self.progress.step(f"round {n}/{rounds}"))
        if shown["state"] != "completed":
            raise SandboxError(
                need="a completed run", found=str(shown["state"]), remedy="see logs/broker.log"
            )
        decided = fed.wait_event("candidate.decided", run=run, timeout_s=60)
        listed = fed.broker("release", "list")["releases"]
        if decided["state"] != "released" or not listed:
            raise SandboxError(
                need="a released model",
                found="a candidate that was not released",
                remedy="iriai-broker release list",
            )
        self.released = listed[-1]
        self.progress.say(f"released {self.released['model']} to tier {self.released['tier']}")
        return shown

    def _models(self) -> tuple[dict[str, Any], dict[str, Any]]:
        common: dict[str, Any] = {}
        individual: dict[str, Any] = {}

        def fetch(site: Site) -> None:
            pulled = self.federation.node(site, "models", "pull", self.released["model"])
            own = self.federation.node(site, "models", "personalise", self.released["model"])
            common[site.name] = np.fromfile(pulled["file"], dtype="<f4")
            individual[site.name] = np.fromfile(own["file"], dtype="<f4")

        self.federation.each(fetch)
        return common, individual

    def _verify(self, run: str) -> dict[str, Any]:
        folder = self.options.folder
        folder.mkdir(parents=True, exist_ok=True)
        bundle, receipts, vectors = folder / "bundle.zip", folder / "receipts", folder / "vectors"
        bundle.unlink(missing_ok=True)  # of an earlier demo
        for earlier in (receipts, vectors):
            if earlier.exists():
                shutil.rmtree(earlier)
        kept = self.federation.receipts(receipts)  # before the bundle, which then has every such entry
        self.federation.bundle(bundle)
        self.federation.vectors(run, vectors)
        found: dict[str, Any] = {}
        for language in ("ja", "en"):
            found = verify_bundle(
                bundle,
                bundle.with_name("policy.txt"),
                verifier=self.options.verifier,
                receipts=receipts,
                vectors=vectors,
                page=folder / f"audit.{language}.html",
                language=language,
            )
        found["witnesses"] = self.federation.broker("status")["witnesses"]
        self.progress.say(
            f"log of {found['size']} entries {'verified' if found['verified'] else 'NOT VERIFIED'}, "
            f"with {sum(kept.values())} receipts of {len(kept)} makers, "
            f"{found['sums']['redone']} sums redone"
        )
        return found

    # --- the report ---

    def _report(
        self,
        outcomes: Mapping[str, Mapping[str, Mapping[str, Rate]]],
        run: Mapping[str, Any],
        log: Mapping[str, Any],
    ) -> dict[str, Any]:
        sites = self.federation.sites
        cells = {site.name: site.maker.cell for site in sites}
        left = {site.name: self.federation.node(site, "outbox", "list") for site in sites}
        contract = load_contract((self.federation.folder / "operators" / "contract.yaml").read_text("utf-8"))
        return {
            "schema": "iriai-demo-report/1",
            "command": self.options.command,
            "seed": self.options.seed,
            "parties": [site.name for site in sites],
            "cells": cells,
            "success": success_table(outcomes, cells),
            "privacy": privacy_claim(
                self.recipe, contract, self._spent(sites), fewest=log["sum_members"]["fewest"]
            ),
            "sums": sums_claim(contract, log["sums"], log["sum_members"]),
            "contract_digest": self.federation.contract,
            "contract_words": [list(one) for one in plain_words(contract)],
            "model": self.released["model"],
            "run": {"id": run["run"], "rounds": run["round"]},
            "log": log,
            "timings": self.progress.timings(),
            "round_ms": self._round_ms(),
            "phases": self.progress.phases,
            "processes": self.pids,
            "bytes_left_site": {name: int(one["total_bytes"]) for name, one in left.items()},
            "messages_left_site": {name: int(one["total"]) for name, one in left.items()},
        }

    def _spent(self, sites: tuple[Site, ...]) -> dict[str, dict[str, Any]]:
        """Party → what its own node says that the run cost; without a plan it has no budget."""
        if self.recipe.plan is None:
            return {site.name: {} for site in sites}
        budgets = {site.name: self.federation.node(site, "budget", "show")["budgets"][0] for site in sites}
        return {
            name: {"spent": one["epsilon_spent"], "steps": one["steps_spent"]}
            for name, one in budgets.items()
        }

    def _round_ms(self) -> dict[str, float]:
        """Medians of the broker's own line per round."""
        lines = [one for one in self.federation.journal() if one.get("event") == "round.closed"]
        parts = ("setup", "contribute", "confirm", "unmask", "aggregate", "checkpoint", "commit")
        names = tuple(f"{one}_ms" for one in parts)
        if not lines:
            return {}
        found = {
            name: round(statistics.median(float(one.get(name, 0)) for one in lines), 1) for name in names
        }
        total = statistics.median(sum(float(one.get(name, 0)) for name in names) for one in lines)
        return found | {"total": round(total, 1)}
