# SPDX-License-Identifier: Apache-2.0
"""The federation that is attacked: four makers, a contract with differential privacy, secure sums, a broker.

    with standing(folder, progress) as ground:
        ground.wire, ground.node_key(site), ground.operator_key(0)   # what attackers have to hand
        ground.in_force()                                            # waits until rounds may begin
        ground.trained()                                             # a run of honest nodes, once

Everything is a process of its own, over TLS, with keys made there. The recipe trains for two rounds, so that
a run takes seconds; the contract's budget is little more than two such runs, and its rounds are many, so
that it is the budget that ends first. What attackers have is what the party of that name has: its key files,
its own disk.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import ZipFile

from broker.keyfiles import load_key
from broker.remote import leaf_of
from client.identity import load_identity
from client.settings import Home
from policies.encoding import canonical, parse
from policies.privacy.accounting import calibrate
from policies.recipe import load as load_recipe
from sandbox.attacks.lying_broker import LIE
from sandbox.attacks.wire import Wire
from sandbox.clock import now_ms
from sandbox.errors import CommandError
from sandbox.federation import RUN_ENDS, Federation
from sandbox.processes import command
from sandbox.recipes import DELTA, SAMPLING_PROB, private_recipe
from sandbox.staging import record_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from policies.identity import SigningKey
    from sandbox.federation import Site
    from sandbox.progress import Progress

__all__ = [
    "EPSILON",
    "RUN_S",
    "STEPS",
    "Ground",
    "heard",
    "note_of",
    "short_recipe",
    "size_of",
    "standing",
]

EPSILON: Final = "8"
STEPS: Final = 4  # of a run: two rounds, and attempts that come to nothing
_EPSILON_TOTAL: Final = "12.5"  # nine steps, those of the run that is asked for included
_SPARE: Final = 40  # rounds beyond, for which there is no budget
_EPISODES: Final = 6
_ROUNDS: Final = 2
_LEAD_S: Final = 10.0
RUN_S: Final = 120.0
_LET_IN: Final = '"event": "online"'  # in a node's own lines; the broker's view of who is there is older


@dataclass(slots=True, kw_only=True, eq=False)
class Ground:
    """A federation under attack.

    Attributes:
        federation: Its processes and folders.
        folder: Where attackers keep their own files.
        start_ms: When the contract begins.
        wire: To the broker.
    """

    federation: Federation
    folder: Path
    start_ms: int
    wire: Wire
    _trained: list[str] = field(default_factory=list)
    _sent: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    _changed: bool = False  # whether a changed broker serves

    def node_key(self, site: Site) -> SigningKey:
        """The signing key of a site's node, from its own disk."""
        return load_identity(Home(site.folder)).key

    def operator_key(self, number: int) -> SigningKey:
        """An operator's key, from their own file."""
        return load_key(Path(self.federation.operator_key(number)))

    def in_force(self) -> None:
        """Waits until the contract has begun."""
        time.sleep(max(0.0, self.start_ms / 1000 + 1 - now_ms() / 1000))

    def trained(self) -> str:
        """A run that ended with honest nodes and an honest broker; the first caller waits for it."""
        if not self._trained:
            self.in_force()
            run = self.federation.open_run()
            self.federation.wait_run(run, timeout_s=RUN_S)
            self._trained.append(run)
        return self._trained[0]

    def lie(self, name: str) -> None:
        """Has the operator's changed broker serve, and tell a lie; an empty one: it is honest meanwhile."""
        (self.federation.broker_dir / LIE).write_text(name, "utf-8")
        if not self._changed:
            self._served((sys.executable, "-m", "sandbox.attacks.lying_broker"))
            self._changed = True

    def honest(self) -> None:
        """Has our own broker serve again."""
        if self._changed:
            (self.federation.broker_dir / LIE).unlink()
            self._served(())
            self._changed = False

    def _served(self, program: Sequence[str]) -> None:
        self.federation.services["broker"].stop()
        self.federation.serve(program=program)
        self.online(len(self.federation.sites))

    def restart(self, site: Site, *, program: Sequence[str] = ()) -> None:
        """Ends a site's node, starts it or another program in its place, and waits until that is let in."""
        service = self.federation.services[site.name]
        service.stop()
        before = service.text().count(_LET_IN)
        service = self.federation.start_node(site, program=program)
        self.federation.wait_for(f"{site.name} to be let in", lambda: service.text().count(_LET_IN) > before)

    def online(self, nodes: int) -> None:
        """Waits until so many nodes are online."""
        self.federation.wait_for(f"{nodes} nodes to be online", lambda: self.federation.online() >= nodes)

    def events(self, run: str) -> list[dict[str, Any]]:
        """The broker's own lines about a run."""
        return [one for one in self.federation.journal() if one.get("run") == run]

    def wait_over(self, run: str) -> None:
        """Waits until the broker does nothing more for a run."""
        self.federation.wait_for(f"{run} to end", lambda: self.over(run))

    def stop_run(self, run: str) -> None:
        """Has an operator end a run, and waits until it is over."""
        if not self.over(run):
            self.federation.broker("run", "stop", run)
        self.wait_over(run)

    def over(self, run: str) -> bool:
        """Whether a run has ended, or broke."""
        return any(one["event"] in RUN_ENDS for one in self.events(run))

    def told(self, sites: Sequence[Site], *words: str) -> dict[str, dict[str, Any]]:
        """What a command says at some sites, by their names; two at a time."""
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda site: self.federation.node(site, *words), sites)
            return {site.name: one for site, one in zip(sites, found, strict=True)}

    def sent(self, run: str) -> dict[str, Counter[str]]:
        """How many messages of each kind left each node in a run, by its own outbox, once it is over."""
        if run not in self._sent:
            listed = self.told(self.federation.sites, "outbox", "list", "--run", run)
            self._sent[run] = {name: Counter(o["kind"] for o in one["sent"]) for name, one in listed.items()}
        return self._sent[run]

    def clause(self, name: str) -> str:
        """Id of a clause of the contract, by its key in the document."""
        shown = self.federation.broker("contract", "show", self.federation.contract)
        return str(shown["document"][name]["clause"])

    def policy(self) -> Path:
        """The auditor's own policy: the keys that the makers' nodes pinned, asked for once."""
        path = self.folder / "policy.txt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.federation.policy(), "utf-8")
        return path

    def bundle(self, name: str, *words: str) -> Path:
        """A fresh bundle of the log, as the broker gives it to an auditor."""
        path = self.folder / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.federation.broker("audit", "bundle", "--out", str(path), *words)
        return path

    def log_status(self) -> dict[str, Any]:
        """How the log is, by the command on the broker's host."""
        return command("iriai-broker", "log", "status", "--dir", str(self.federation.broker_dir))


def note_of(bundle: Path) -> str:
    """The checkpoint that a bundle ends with."""
    with ZipFile(bundle) as archive:
        return archive.read("checkpoint").decode("utf-8")


def size_of(note: str) -> int:
    """How many entries a checkpoint is about."""
    return int(note.splitlines()[1])


def heard(act: Callable[[], object]) -> tuple[str, str]:
    """Code and words with which a command was refused; both empty if it was not."""
    try:
        act()
    except CommandError as error:
        return error.found.partition(":")[0], error.found[:200]
    return "", ""


def short_recipe() -> bytes:
    """Canonical bytes of a private recipe of two rounds, whose noise holds `EPSILON` over `STEPS` steps."""
    recipe = parse(private_recipe(EPSILON, _EPISODES))
    sigma = calibrate(epsilon=float(EPSILON), delta=float(DELTA), q=float(SAMPLING_PROB), steps=STEPS)
    recipe["plan"] |= {"steps": STEPS, "noise_multiplier": sigma}
    recipe["server"] |= {"steps": _ROUNDS}
    return canonical(recipe | {"rounds": _ROUNDS})


@contextmanager
def standing(folder: Path, progress: Progress) -> Iterator[Ground]:
    """A federation whose contract is signed and whose nodes run; its processes end whatever happens."""
    federation = Federation(folder)
    wires: list[Wire] = []
    try:
        with progress.phase("recordings, broker, enrolment"):
            record_cells(federation, _EPISODES)
            federation.start_broker()
            federation.enrol()
        with progress.phase("contract, imports"):
            start_ms = federation.start_ms(lead_s=_LEAD_S)
            recipe = load_recipe(short_recipe())
            federation.agree(
                recipe,
                epsilon=EPSILON,
                delta=DELTA,
                start_ms=start_ms,
                epsilon_total=_EPSILON_TOTAL,
                spare_rounds=_SPARE,
            )
        with progress.phase("nodes come online"):
            federation.start_nodes()
        certificate = leaf_of((federation.broker_dir / "tls.pem").read_text("ascii"))
        wires.append(Wire(federation.url, certificate))
        attackers = federation.folder / "attackers"
        yield Ground(federation=federation, folder=attackers, start_ms=start_ms, wire=wires[0])
    finally:
        for one in wires:
            one.close()
        federation.stop()
