# SPDX-License-Identifier: Apache-2.0
"""No private training by a process whose engine, sampler and noise were not seen to keep the plan.

- Each recipe's plan is audited once in the life of a process: software may be another after a restart. The
  report is kept (`client.audits`).
- `prepare` does it in the background, before a round asks. `need` waits for it, makes it where it is missing,
  and refuses under a plan whose audit failed: before anything is spent.
- Under a ``test_only`` plan, which claims nothing, a missing report stops nothing; a failed one does.

    conformance = Conformance(home, entropy=entropy, clock=clock)
    conformance.prepare(recipe)
    conformance.need(recipe)            # AuditFailedError, with the first check that failed
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from client.audits import keep

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.settings import Home
    from policies.ports import Clock, Entropy
    from policies.privacy.conformance import ConformanceReport
    from policies.recipe import Recipe

__all__ = ["Conformance"]


class Conformance:
    """The audits of one process; safe to call from several threads."""

    def __init__(
        self,
        home: Home,
        *,
        entropy: Entropy,
        clock: Clock,
        audit: Callable[[Recipe], ConformanceReport] | None = None,
    ) -> None:
        """Audits nothing yet.

        Args:
            home: Where reports are kept.
            entropy: The operating system's.
            clock: Tells how long an audit took.
            audit: Makes a report; `client.learning.conformance.audit`, if left out.
        """
        self._home = home
        self._audit = audit
        self._entropy = entropy
        self._clock = clock
        self._lock = threading.Lock()
        self._reports: dict[str, ConformanceReport] = {}

    def prepare(self, recipe: Recipe) -> ConformanceReport | None:
        """The report about a recipe, made if there is none; None where the recipe has no plan.

        Raises:
            ModelRefusedError: The engine has no rule for a layer of the model.
        """
        if recipe.plan is None:
            return None
        with self._lock:
            if recipe.digest not in self._reports:
                self._reports[recipe.digest] = self._made(recipe)
            return self._reports[recipe.digest]

    def made(self, recipe: Recipe) -> ConformanceReport | None:
        """The report that this process made of a recipe; None if it made none."""
        return self._reports.get(recipe.digest)

    def need(self, recipe: Recipe) -> None:
        """Returns if the recipe may be trained here.

        Raises:
            AuditFailedError: Its audit failed.
            ModelRefusedError: The engine has no rule for a layer of the model.
        """
        claims_nothing = recipe.plan is not None and recipe.plan.test_only
        report = self._reports.get(recipe.digest) if claims_nothing else self.prepare(recipe)
        if report is not None:
            report.need_passed()

    def _made(self, recipe: Recipe) -> ConformanceReport:
        if self._audit is not None:
            report = self._audit(recipe)
        else:
            from client.learning.conformance import audit

            report = audit(recipe, entropy=self._entropy, clock=self._clock)
        keep(self._home, report)
        return report
