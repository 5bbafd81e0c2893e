# SPDX-License-Identifier: Apache-2.0
"""A whole federation on one machine, by the commands that its people would type: a broker and four nodes.

    federation = Federation(folder)
    federation.start_broker()        iriai-broker operator new, init, serve
    federation.enrol()               invite, join, approve by two operators
    federation.seed(recipe, 1)       optional: seed donate on each site, seed join, seed fit
    federation.agree(recipe, …)      contract offer; proposal approve by the second operator; contract sign on
                                     each site, twice; then data add
    federation.start_nodes()         iriai-node run
    run = federation.open_run()      iriai-broker run open
    federation.stop()

Every process is a real one, all on loopback; what is on a site stays in that site's folder.
"""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from policies.encoding import new_id
from policies.identity import parse_key
from policies.log.policy import policy_text, pool_policy
from policies.log.vkeys import VerifierKey
from policies.recipe import load as load_recipe
from sandbox.clock import now_ms, random_bytes
from sandbox.contract_text import PARTIES, RECIPE_ID, Maker, Signer, contract_text
from sandbox.errors import CommandError, StartError, UsageError
from sandbox.processes import Service, command, free_port, script, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from policies.recipe import Recipe
    from sandbox.postgres import Databases

__all__ = ["PROCESSES", "RUN_ENDS", "Federation", "Site"]

PROCESSES = "processes.json"

_OPERATORS = ("alice", "bob")
_READY_S = 60.0
_ONLINE_S = 120.0
_POLL_S = 0.5
_LEAD_S = 25  # from the offer until the contract begins, at least
_LEAD_FACTOR = 2.0  # and as many times what the enrolment took
_LICENCE = "CC0-1.0"  # of what the simulated cells give away
RUN_ENDS = frozenset({"run.closed", "run.broken"})
"""The broker's lines after which it does nothing more for a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One manufacturer's site: its maker, the folder of its node, and the recordings of its cell."""

    maker: Maker
    folder: Path
    recordings: Path

    @property
    def name(self) -> str:
        """Short name, as in the contract."""
        return self.maker.party


class Federation:
    """All processes and folders of one sandbox."""

    def __init__(
        self,
        folder: Path,
        *,
        makers: tuple[Maker, ...] = PARTIES,
        console: str | None = None,
        databases: Databases | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: Of everything.
            makers: One site each.
            console: Origin under which people open the console, with ``{port}``; None: the broker's URL.
            databases: Of the broker, on PostgreSQL; files if left out.
        """
        self._databases = databases
        self.console = console
        self.folder = folder.resolve()
        self.operators = _OPERATORS
        self.broker_dir = self.folder / "broker"
        self.sites = tuple(
            Site(
                maker=one,
                folder=self.folder / "sites" / one.party,
                recordings=self.folder / "cells" / one.cell,
            )
            for one in makers
        )
        self.services: dict[str, Service] = {}
        self.known: dict[str, int] = {}  # processes that an earlier command started
        self.contract = ""
        self.enrol_s = 0.0
        self.url = ""
        self._orgs: dict[str, dict[str, Any]] = {}
        self._seeds: dict[str, Any] | None = None

    # --- broker ---

    def operator_key(self, number: int = 0) -> str:
        """Path of an operator's key file."""
        return str(self.folder / "operators" / f"{_OPERATORS[number]}.key")

    def start_broker(self) -> dict[str, Any]:
        """Operators' keys, `init`, `serve`; gives what `init` printed.

        Raises:
            UsageError: The folder is in use.
        """
        if self.broker_dir.exists():
            raise UsageError(
                need="a folder without a federation",
                found=str(self.folder),
                remedy=f"`iriai-sandbox down --dir {self.folder} --delete`, or another --dir",
            )
        self.url = f"https://127.0.0.1:{free_port()}"
        operators = []
        for number, name in enumerate(_OPERATORS):
            made = command("iriai-broker", "operator", "new", self.operator_key(number))
            operators += ["--operator", f"{name}={made['key']}"]
        if (on := self._databases) is not None:
            named = {"--database": on.main, "--private-database": on.private, "--database-owner": on.owner}
            operators += [word for pair in named.items() for word in pair]
        facts = command("iriai-broker", "init", "--dir", str(self.broker_dir), "--url", self.url, *operators)
        if self.console is not None:
            origin = self.console.format(port=urlsplit(self.url).port)
            with (self.broker_dir / "broker.toml").open("a", encoding="utf-8") as settings:
                settings.write(f"console_url = {json.dumps(origin)}\n")
        self.serve()
        return facts

    def serve(self, *, ready_s: float = _READY_S, program: Sequence[str] = ()) -> None:
        """Starts the broker's process, also again after it was killed.

        Args:
            ready_s: It reads its whole log first: how long that may take.
            program: Other than ``iriai-broker``, with its first words.
        """
        log = self.folder / "logs" / "broker.log"
        seen = len(log.read_bytes()) if log.exists() else 0
        argv = [*(program or (script("iriai-broker"),)), "serve", "--dir", str(self.broker_dir)]
        service = start("broker", argv, log=log)
        self.services["broker"] = service
        self.write_down()
        wait_for(
            "the broker to serve",
            lambda: b"serving " in log.read_bytes()[seen:],
            timeout_s=ready_s,
            service=service,
        )

    def broker(self, *arguments: str, operator: int = 0) -> dict[str, Any]:
        """An operator's command."""
        return command(
            "iriai-broker", *arguments, "--dir", str(self.broker_dir), "--key", self.operator_key(operator)
        )

    def node(self, site: Site, *arguments: str) -> dict[str, Any]:
        """A command at a site."""
        return command("iriai-node", *arguments, "--dir", str(site.folder))

    # --- membership ---

    def enrol(self) -> None:
        """Invitation, join and two approvals for each site; the sites act at the same time."""
        began = time.monotonic()
        self.each(self._enrol)
        self.enrol_s = time.monotonic() - began

    def start_ms(self, *, lead_s: float = _LEAD_S) -> int:
        """When a contract that is offered now may begin: signatures fit in before."""
        return now_ms() + int((lead_s + _LEAD_FACTOR * self.enrol_s) * 1000)

    def _enrol(self, site: Site) -> None:
        maker = site.maker
        invited = self.broker(
            "invite", "--name", maker.legal_name, "--country", maker.country, "--group", maker.party
        )
        command("iriai-node", "init", "--dir", str(site.folder))
        joined = self.node(site, "join", self.url, invited["invite"], "--yes")
        org = str(joined["org"])
        for operator in range(2):
            self.broker("approve", org, "--yes", operator=operator)
        self._orgs[site.name] = joined

    # --- contract and data ---

    def seed(self, recipe: Recipe, episodes: int) -> Recipe:
        """Each site openly gives some episodes, a model is fitted to them, and the contract names both.

        Returns:
            The recipe that starts from that model.
        """
        files = self.folder / "operators" / "seeds"
        files.mkdir(parents=True, exist_ok=True)
        (files / "recipe.json").write_bytes(recipe.canonical)

        def give(site: Site) -> None:
            words = ["--recipe", str(files / "recipe.json"), "--dataset", site.maker.dataset]
            words += ["--party", site.name, "--licence", _LICENCE, "--count", str(episodes)]
            words += ["--from", str(site.recordings), "--out", str(files / f"{site.name}.json"), "--yes"]
            self.node(site, "seed", "donate", *words)

        self.each(give)
        given = [str(files / f"{site.name}.json") for site in self.sites]
        joined = command("iriai-node", "seed", "join", *given, "--out", str(files / "seed-set.json"))
        words = ["--recipe", str(files / "recipe.json"), "--seed-set", joined["file"]]
        words += ["--out", str(files / "start.f32"), "--recipe-out", str(files / "started.json")]
        fitted = command("iriai-node", "seed", "fit", *words, "--dir", str(self.sites[0].folder))
        self._seeds = joined | {"annexes": [*joined["annexes"], fitted["file"]]}
        return load_recipe((files / "started.json").read_bytes())

    def agree(
        self,
        recipe: Recipe,
        *,
        epsilon: str | None,
        delta: str,
        start_ms: int,
        runs: int = 1,
        epsilon_total: str | None = None,
        spare_rounds: int = 0,
    ) -> str:
        """Offers the contract; each site imports its recordings, accepts, and then signs. Gives the digest.

        Nobody signs before all have accepted: hence two turns of the same command.

        Args:
            recipe: Its bytes travel as an annex.
            epsilon: Per release; None for a contract without privacy.
            delta: Of the claim.
            start_ms: Until when all must have signed, and from when it holds.
            runs: For how many runs rounds and budget suffice.
            epsilon_total: Of all releases together; None: as much as that many runs.
            spare_rounds: Rounds that the contract allows beyond these, for which there is no budget.
        """
        members = {one["legal_name"]: one for one in self.broker("members")["organisations"]}
        broker = self.broker("status")
        signers = [
            Signer(
                maker=site.maker,
                org=members[site.maker.legal_name]["org"],
                key=members[site.maker.legal_name]["node_key"],
            )
            for site in self.sites
        ]
        plan = recipe.plan
        text = contract_text(
            contract_id=new_id("ctr", random_bytes(10)),
            start_ms=start_ms,
            signers=signers,
            broker_org=new_id("org", random_bytes(10)),
            broker_key=broker["broker_key"],
            recipe_digest=recipe.digest,
            rounds=(2 * recipe.rounds if plan is None else plan.steps) * runs + spare_rounds,
            local_steps=recipe.local_steps,
            epsilon=epsilon,
            delta=delta,
            epsilon_total=epsilon_total or (None if epsilon is None else str(Decimal(epsilon) * runs)),
            honest_min=plan.honest_min if plan else None,
            seeds=self._seeds,
            log_origin=broker["origin"],
        )
        files = self.folder / "operators"
        (files / "contract.yaml").write_text(text, "utf-8")
        (files / "recipe.json").write_bytes(recipe.canonical)
        annexes = [] if self._seeds is None else self._seeds["annexes"]
        offered = self.broker(
            "contract",
            "offer",
            str(files / "contract.yaml"),
            "--recipe",
            str(files / "recipe.json"),
            *(word for one in annexes for word in ("--annex", one)),
        )
        self.contract = str(offered["digest"])
        self.broker("proposal", "approve", offered["proposal"], "--yes", operator=1)
        self.each(self._sign)
        self.each(self._sign)
        self.each(self._import)  # a draft would give the data no rights
        return self.contract

    def _import(self, site: Site) -> None:
        self.node(
            site,
            "data",
            "add",
            str(site.recordings),
            "--dataset",
            site.maker.dataset,
            "--contract",
            self.contract,
        )

    def _sign(self, site: Site) -> None:
        """What can be said now: ACCEPTED, or, once all have accepted, VERIFIED with the signature."""
        self.node(site, "contract", "sign", self.contract, "--acknowledge-all", "--wait-s", "0", "--yes")

    # --- nodes and runs ---

    def start_nodes(self, *, without: tuple[str, ...] = ()) -> None:
        """Starts the nodes, but those that are named, and waits until the broker sees them."""
        started = [site for site in self.sites if site.name not in without]
        for site in started:
            self.start_node(site)
        wait_for("all nodes to be online", lambda: self.online() >= len(started), timeout_s=_ONLINE_S)

    def wait_for(self, what: str, check: Callable[[], bool]) -> None:
        """Waits until something holds while the broker runs.

        Raises:
            StartError: It does not, within the time of a start.
        """
        wait_for(what, check, timeout_s=_ONLINE_S, service=self.services["broker"])

    def start_node(self, site: Site, *, program: Sequence[str] = ()) -> Service:
        """Starts one node's process, also again after it was killed; with ``program`` another than ours."""
        argv = [*(program or (script("iriai-node"), "run")), "--dir", str(site.folder)]
        log = self.folder / "logs" / f"{site.name}.log"
        service = start(site.name, argv, log=log, env={"IRIAI_PHASES": "1"})
        self.services[site.name] = service
        self.write_down()
        return service

    def online(self) -> int:
        """How many nodes the broker sees."""
        time.sleep(0.2)
        return sum(1 for one in self.broker("status")["nodes"] if one["state"] == "online")

    def open_run(self) -> str:
        """Opens a run of the contract's recipe; gives its id."""
        return str(self.broker("run", "open", "--contract", self.contract, "--recipe", RECIPE_ID)["run"])

    def wait_run(
        self, run: str, *, timeout_s: float, tell: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Waits until a run is closed, by the broker's own lines; ``tell`` hears the newest closed round.

        Returns:
            What ``run show`` says then.

        Raises:
            StartError: Not within the time.
        """
        until = time.monotonic() + timeout_s
        while True:
            events = [one for one in self.journal() if one.get("run") == run]
            rounds = [int(one["round"]) for one in events if one["event"] == "round.closed"]
            if tell is not None and rounds:
                tell(rounds[-1])
            if any(one["event"] in RUN_ENDS for one in events):
                return self.broker("run", "show", run)
            if time.monotonic() > until:
                raise StartError(
                    need=f"run {run} to end", found=f"{len(rounds)} rounds", remedy="see logs/broker.log"
                )
            time.sleep(_POLL_S)

    def wait_event(self, event: str, *, run: str, timeout_s: float) -> dict[str, Any]:
        """Waits for one of the broker's own lines about a run.

        Raises:
            StartError: Not within the time.
        """
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found[:] = [one for one in self.journal() if (one.get("event"), one.get("run")) == (event, run)]
            return bool(found)

        wait_for(f"{event} of {run}", seen, timeout_s=timeout_s, service=self.services["broker"])
        return found[-1]

    def journal(self) -> list[dict[str, Any]]:
        """The broker's own lines about runs, oldest first."""
        found = []
        for line in self.services["broker"].text().splitlines():
            if line.startswith('{"'):
                with contextlib.suppress(ValueError):  # the last line may be half written
                    found.append(json.loads(line))
        return found

    # --- audit ---

    def bundle(self, path: Path) -> dict[str, Any]:
        """The auditor's bundle, and beside it the auditor's policy: what each maker's own node says."""
        path.with_name("policy.txt").write_text(self.policy(), "utf-8")
        return self.broker("audit", "bundle", "--out", str(path))

    def policy(self) -> str:
        """A policy file of the makers' words alone: the keys that they pinned, and their witness keys.

        Raises:
            CommandError: They pinned different keys.
        """
        pinned, witnesses = set(), {}

        def ask(site: Site) -> None:
            told = self.node(site, "status")
            pinned.add((told["log_vkey"], told["broker_key"]))
            witnesses[site.name] = [VerifierKey.parse(self.node(site, "witness", "status")["vkey"])]

        self.each(ask)
        if len(pinned) != 1:
            raise CommandError(
                need="one log key and one broker key that all makers pinned",
                found=f"{len(pinned)} pairs",
                remedy="compare iriai-node status at each maker",
            )
        log_vkey, broker_key = pinned.pop()
        return policy_text(
            pool_policy(
                logs=[VerifierKey.parse(log_vkey)],
                broker=parse_key(broker_key),
                witnesses={site.name: witnesses[site.name] for site in self.sites},
                contracts=[self.contract],
            )
        )

    def vectors(self, run: str, folder: Path) -> None:
        """The masked vectors of a run, with which the auditor redoes its sums."""
        words = ("--run", run, "--out", str(folder), "--dir", str(self.broker_dir))
        command("iriai-broker", "audit", "vectors", *words)

    def receipts(self, folder: Path) -> dict[str, int]:
        """Each site's receipts, in a folder of its own, as handed to an auditor. Party → how many."""
        found: dict[str, int] = {}

        def hand_over(site: Site) -> None:
            self.node(site, "receipts", "fetch")
            told = self.node(site, "receipts", "export", "--out", str(folder / site.name))
            found[site.name] = int(told["exported"])

        self.each(hand_over)
        return found

    # --- the end ---

    def pids(self) -> dict[str, int]:
        """Name → process id of everything that was started and still runs."""
        return {name: service.pid for name, service in self.services.items() if service.running}

    def write_down(self) -> None:
        """Writes name and process id of what runs to the folder: `iriai-sandbox down` ends these."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PROCESSES).write_text(json.dumps(self.known | self.pids(), indent=2) + "\n", "utf-8")

    def stop(self) -> None:
        """Ends every process of this federation: nodes first, so that they can say goodbye."""
        names = [name for name in self.services if name != "broker"] + ["broker"]
        with ThreadPoolExecutor(len(self.sites) + 1) as pool:
            nodes = [self.services[name] for name in names[:-1] if name in self.services]
            list(pool.map(lambda one: one.stop(), nodes))
        if "broker" in self.services:
            self.services["broker"].stop()
        if self.folder.exists():
            self.write_down()

    def each(self, act: Callable[[Site], None]) -> None:
        """Acts at every site, two at a time; the first error ends it."""
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(act, site) for site in self.sites]:
                done.result()
