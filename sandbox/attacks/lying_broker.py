# SPDX-License-Identifier: Apache-2.0
"""The program of a dishonest operator: our own broker with its keys, changed so that it lies as it is told.

``python -m sandbox.attacks.lying_broker serve --dir D`` serves an existing folder. Which lie it tells
stands in the file ``lie`` of that folder, and may change while it serves; an empty one is honest:

- ``budget``  nobody ever spent anything, as far as this broker says: it opens runs that no cap holds;
- ``cohort``  it hides half of the members of a sum from the others, and asks these to open the rest.

Nodes are ours, and unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker import cli
from broker.api import runs
from broker.federation import affording, mirror, permits
from policies.contract import EpsilonAfter
from policies.secagg.attempts import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BUDGET", "COHORT", "LIE", "main"]

LIE = "lie"
BUDGET, COHORT = "budget", "cohort"
_NOTHING = "0.000000"


def main() -> None:
    """Our broker's command line, with another heart."""
    import sys

    told = Path(sys.argv[sys.argv.index("--dir") + 1]) / LIE
    _lie_about_budgets(told)
    _lie_about_members(told)
    cli.main()


def _tells(told: Path, lie: str) -> bool:
    return told.exists() and told.read_text("utf-8").strip() == lie


def _replaced(module: object, name: str, other: Callable[..., Any]) -> None:
    setattr(module, name, other)


def _lie_about_budgets(told: Path) -> None:
    true_figures, true_check = mirror.epsilon_after, affording.check_affordable

    def figures(*given: Any, **named: Any) -> EpsilonAfter:  # noqa: ANN401  whatever it is asked with
        found = true_figures(*given, **named)
        return EpsilonAfter(release=found.release, total=_NOTHING) if _tells(told, BUDGET) else found

    def check(*given: Any, **named: Any) -> None:  # noqa: ANN401
        if not _tells(told, BUDGET):
            true_check(*given, **named)

    for module in (mirror, permits, affording):
        _replaced(module, "epsilon_after", figures)
    _replaced(runs, "check_affordable", check)


def _lie_about_members(told: Path) -> None:
    true_ask = Attempt.confirm_ask

    def ask(attempt: Attempt) -> bytes:
        if _tells(told, COHORT) and not attempt.online:
            for hidden in sorted(attempt._vectors)[2:]:  # noqa: SLF001  the liar's own memory
                del attempt._vectors[hidden]  # noqa: SLF001
            object.__setattr__(attempt.terms, "check_open", lambda _parties: None)  # it shuts its own eyes
            object.__setattr__(attempt, "_large_enough", lambda _online: (0,))
        return true_ask(attempt)

    _replaced(Attempt, "confirm_ask", ask)


if __name__ == "__main__":
    main()
