# SPDX-License-Identifier: Apache-2.0
"""Stories of a federation, played with real processes: each is a federation of its own, a mishap, and checks.

    found = play("dropout", Path("build/dropout"))
    found["checks"]     [{"what": …, "held": True, "found": …}]

Every story has four makers, ten episodes each and a contract without privacy (NOT PRIVATE), so that it takes
a minute; the contract lets a round go on with three makers. Processes are ended whatever happens; the folder
stays, with every log file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sandbox.progress import Progress
from sandbox.staging import Check, check_free, check_known, refused, staged, state, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.federation import Federation

__all__ = ["SCENARIOS", "Scenario", "play"]

_RUN_S: Final = 300.0
_DECIDED_S: Final = 60.0


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
    check_known("scenario", name, SCENARIOS)
    check_free(folder)
    found = SCENARIOS[name]
    progress = Progress()
    with staged(folder, progress, late=found.late) as federation, progress.phase(name):
        checks = list(found.tell(federation))
    return {
        "scenario": name,
        "words": found.words,
        "dir": str(folder),
        "seconds": round(progress.seconds, 1),
        "checks": told(checks),
        "held": all(one.held for one in checks),
    }


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
    yield state("the run ends completed without the node that vanished", shown["state"], "completed")
    decided = federation.wait_event("candidate.decided", run=run, timeout_s=_DECIDED_S)
    yield state("its candidate is released by those who stayed", decided["state"], "released")
    left = federation.node(federation.sites[0], "receipt", "verify", "--offline")
    yield _verified("a maker that stayed holds a valid receipt for what it sent", left)


def _late(federation: Federation) -> Iterator[Check]:
    """A node comes when the run is under way."""
    late = federation.sites[3]
    run = federation.open_run()
    _wait_rounds(federation, run, 1)
    federation.start_node(late)
    shown = federation.wait_run(run, timeout_s=_RUN_S)
    yield state("the run begins with three and ends completed", shown["state"], "completed")
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
    yield state("a vetoed candidate is refused", decided["state"], "refused")
    yield refused(
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
    yield state("the others see that the contract is halted", standing, "HALTED")
    yield refused("no run can be opened under it", federation.open_run)
    for site in federation.sites:
        federation.node(site, "contract", "resume", federation.contract)
    standing = federation.node(federation.sites[0], "contract", "status", federation.contract)["standing"]
    yield state("once every maker agrees it is in force again", standing, "ACTIVE")


def _verified(what: str, told: dict[str, Any]) -> Check:
    held = told["envelopes"] > 0 and told["receipts"] > 0
    return Check(what=what, held=held, found=f"{told['receipts']} of {told['envelopes']}")


SCENARIOS: Final[dict[str, Scenario]] = {
    "dropout": Scenario(words="a node loses its power in mid-run; the others finish", tell=_dropout),
    "late-node": Scenario(
        words="a node comes when the run is under way, and takes part", tell=_late, late=("hanbit",)
    ),
    "veto": Scenario(words="one maker vetoes the candidate; nobody can fetch it", tell=_veto),
    "halt": Scenario(words="one maker halts the contract in mid-run; all must agree to go on", tell=_halt),
}
