# SPDX-License-Identifier: Apache-2.0
"""A member that lies about its update: far over the contract's norm, through the real protocol of a sum."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from sandbox.attacks.attack import Attack, Finding, control, defence
from sandbox.attacks.ground import RUN_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.attacks.ground import Ground
    from sandbox.federation import Site

__all__ = ["OVERGROWN"]


def _overgrown(ground: Ground) -> Iterator[Finding]:
    federation, liar = ground.federation, ground.federation.sites[3]
    ground.in_force()
    ground.restart(liar, program=(sys.executable, "-m", "sandbox.attacks.hostile_node"))
    run = federation.open_run()
    wrong: list[dict[str, Any]] = []

    def seen() -> bool:
        wrong[:] = [one for one in ground.events(run) if one["event"] == "secagg.not-opened"]
        return bool(wrong) or ground.over(run)

    federation.wait_for(f"a sum of {run} that is judged", seen)
    taken = _submitted(ground, liar, run)
    yield control(
        "the liar's vector was well-formed, signed, and taken into the sum",
        held=taken > 0,
        found=f"{taken} sent",
    )
    code = str(wrong[0]["code"]) if wrong else ""
    yield defence(
        "the sum that it is in is opened, found too large, and not used",
        by="the broker, by the norm of the opened sum; an auditor redoes it from the masked vectors",
        code=code,
        wanted=("secagg.sum-wrong",),
        found=code,
        clause=ground.clause("aggregation"),  # the broker's own line has the code alone
    )
    federation.services[liar.name].kill()
    ended = federation.wait_run(run, timeout_s=RUN_S)
    ground.restart(liar)
    attempts = sum(one["event"] == "round.closed" for one in ground.events(run))
    yield Finding(
        what="without the liar the others finish the run",
        held=ended["state"] == "completed",
        found=f"{ended['state']}, after {attempts} attempts",
    )


def _submitted(ground: Ground, site: Site, run: str) -> int:
    """Vectors that left a site in a run, by its own outbox."""
    sent = ground.federation.node(site, "outbox", "list", "--run", run)["sent"]
    return sum(1 for one in sent if one["kind"] == "train.sa_contribute")


OVERGROWN: Final = Attack(
    threat="T3",
    words="a member sends an update far over the contract's norm",
    tried="A member runs a changed node: every value of its update is as large as the whole vector may be. "
    "NaN cannot be sent at all: what travels under a sum are whole numbers.",
    gain="One member replaces the common model by what it likes, hidden behind the masks of the sum.",
    left="A sum hides whose it was: the attempt is lost, and nobody is named. A harmful update within the "
    "norm is for votes, vetoes and held-out tests.",
    act=_overgrown,
)
