# SPDX-License-Identifier: Apache-2.0
"""Stories of a federation, played with real processes: each is a federation of its own, a mishap, and checks.

    found = play("dropout", Path("build/dropout"))
    found["checks"]     [{"what": …, "held": True, "found": …}]

Every story has four makers, ten episodes each and a contract without privacy (NOT PRIVATE), so that it takes
a minute; the contract lets a round go on with three makers. Processes are ended whatever happens; the folder
stays, with every log file.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.recipe import load as load_recipe
from sandbox.baselines import Workshop
from sandbox.clock import now_ms
from sandbox.errors import CommandError, UsageError
from sandbox.federation import Federation
from sandbox.progress import Progress
from sandbox.recipes import DELTA, NOISE, asked_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["SCENARIOS", "Check", "Scenario", "bring_into_force", "play"]

_EPISODES: Final = 10
_RUN_S: Final = 300.0
_DECIDED_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold in a story, whether it did, and what was found."""

    what: str
    held: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story: what it shows, and how it goes on once a contract is in force and all nodes but some run."""

    words: str
    tell: Callable[[Federation], Iterator[Check]]
    late: tuple[str, ...] = ()


def play(name: str, folder: Path) -> dict[str, Any]:
    """Plays a story.

    Args:
        name: One of `SCENARIOS`.
        folder: Of the federation: empty, or not there.

    Raises:
        UsageError: No such story, or the folder is in use.
    """
    found = SCENARIOS.get(name)
    if found is None:
        raise UsageError(
            need="a scenario: " + ", ".join(SCENARIOS),
            found=ascii(name)[:40],
            remedy="iriai-sandbox scenario list",
        )
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(need="an empty folder, or none", found=str(folder), remedy="choose another --dir")
    progress = Progress()
    with _federation(folder, progress, late=found.late) as federation, progress.phase(name):
        checks = list(found.tell(federation))
    return {
        "scenario": name,
        "words": found.words,
        "dir": str(folder),
        "seconds": round(progress.seconds, 1),
        "checks": [asdict(one) for one in checks],
        "held": all(one.held for one in checks),
    }


@contextmanager
def _federation(folder: Path, progress: Progress, *, late: tuple[str, ...]) -> Iterator[Federation]:
    """A federation whose contract is in force; nodes of ``late`` sites are not started."""
    federation = Federation(folder)
    try:
        bring_into_force(federation, progress, late=late)
        yield federation
    finally:
        federation.stop()


def bring_into_force(federation: Federation, progress: Progress, *, late: tuple[str, ...] = ()) -> None:
    """Starts a federation up to a contract in force without privacy; nodes of ``late`` sites do not run."""
    recipe = load_recipe(asked_recipe(None, _EPISODES, noise=NOISE))
    with progress.phase("recordings, broker, enrolment, contract"):
        with Workshop() as workshop:
            folders = {one.maker.cell: one.recordings for one in federation.sites}
            workshop.record(folders, train=_EPISODES, seed=0)
        federation.start_broker()
        federation.enrol()
        start_ms = federation.start_ms()
        federation.agree(recipe, epsilon=None, delta=DELTA, start_ms=start_ms)
    with progress.phase("nodes come online, the contract begins"):
        federation.start_nodes(without=late)
        time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))


def _closed(federation: Federation, run: str) -> list[dict[str, Any]]:
    return [
        one for one in federation.journal() if (one.get("event"), one.get("run")) == ("round.closed", run)
    ]


def _wait_rounds(federation: Federation, run: str, rounds: int) -> None:
    """Waits until so many rounds are closed."""
    federation.wait_for(f"{rounds} rounds of {run}", lambda: len(_closed(federation, run)) >= rounds)


# --- stories ---


def _dropout(federation: Federation) -> Iterator[Check]:
    """A node loses its power in mid-run."""
    gone = federation.sites[3]
    run = federation.open_run()
    _wait_rounds(federation, run, 1)
    federation.services[gone.name].kill()
    shown = federation.wait_run(run, timeout_s=_RUN_S)
    yield _state("the run ends completed without the node that vanished", shown["state"], "completed")
    decided = federation.wait_event("candidate.decided", run=run, timeout_s=_DECIDED_S)
    yield _state("its candidate is released by those who stayed", decided["state"], "released")
    left = federation.node(federation.sites[0], "receipt", "verify", "--offline")
    yield _verified("a maker that stayed holds a valid receipt for what it sent", left)


def _late(federation: Federation) -> Iterator[Check]:
    """A node comes when the run is under way."""
    late = federation.sites[3]
    run = federation.open_run()
    _wait_rounds(federation, run, 1)
    federation.start_node(late)
    shown = federation.wait_run(run, timeout_s=_RUN_S)
    yield _state("the run begins with three and ends completed", shown["state"], "completed")
    sent = federation.node(late, "outbox", "list", "--run", run)
    kinds = sorted({one["kind"] for one in sent["sent"]})
    yield Check(
        what="the late node took part once it was there",
        held=bool(sent["total"]),
        found=" ".join(kinds) or "nothing",
    )


def _veto(federation: Federation) -> Iterator[Check]:
    """Two makers vote by hand, so that the model waits for one of them; that one refuses it."""
    against, waits = federation.sites[1], federation.sites[0]
    for site in (against, waits):
        rules = site.folder / "node.toml"
        rules.write_text(rules.read_text("utf-8").replace('vote = "auto"', 'vote = "manual"'), "utf-8")
    run = federation.open_run()
    federation.wait_run(run, timeout_s=_RUN_S)
    listed: list[dict[str, Any]] = []

    def candidate() -> bool:
        listed[:] = federation.node(against, "release", "list")["candidates"]
        return bool(listed)

    federation.wait_for("a candidate", candidate)
    federation.node(against, "release", "veto", listed[0]["candidate"], "--clause", "secret-1")
    decided = federation.wait_event("candidate.decided", run=run, timeout_s=_DECIDED_S)
    yield _state("a vetoed candidate is refused", decided["state"], "refused")
    yield _refused(
        "nobody can fetch it, not even who voted for it",
        lambda: federation.node(federation.sites[2], "models", "pull", listed[0]["candidate"]),
    )


def _halt(federation: Federation) -> Iterator[Check]:
    """One maker stops everything under the contract."""
    stops = federation.sites[2]
    run = federation.open_run()
    _wait_rounds(federation, run, 1)
    federation.node(stops, "contract", "halt", federation.contract, "--reason", "cell.incident")
    standing = federation.node(federation.sites[0], "contract", "status", federation.contract)["standing"]
    yield _state("the others see that the contract is halted", standing, "HALTED")
    yield _refused("no run can be opened under it", federation.open_run)
    for site in federation.sites:
        federation.node(site, "contract", "resume", federation.contract)
    standing = federation.node(federation.sites[0], "contract", "status", federation.contract)["standing"]
    yield _state("once every maker agrees it is in force again", standing, "ACTIVE")


def _state(what: str, found: object, wanted: str) -> Check:
    return Check(what=what, held=found == wanted, found=str(found))


def _verified(what: str, told: dict[str, Any]) -> Check:
    held = told["envelopes"] > 0 and told["receipts"] > 0
    return Check(what=what, held=held, found=f"{told['receipts']} of {told['envelopes']}")


def _refused(what: str, act: Callable[[], object]) -> Check:
    try:
        act()
    except CommandError as error:
        return Check(what=what, held=True, found=error.found[:160])
    return Check(what=what, held=False, found="it was allowed")


SCENARIOS: Final[dict[str, Scenario]] = {
    "dropout": Scenario(words="a node loses its power in mid-run; the others finish", tell=_dropout),
    "late-node": Scenario(
        words="a node comes when the run is under way, and takes part", tell=_late, late=("hanbit",)
    ),
    "veto": Scenario(words="one maker vetoes the candidate; nobody can fetch it", tell=_veto),
    "halt": Scenario(words="one maker halts the contract in mid-run; all must agree to go on", tell=_halt),
}
