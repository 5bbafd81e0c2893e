# SPDX-License-Identifier: Apache-2.0
"""What `broker.services.Services` is given once it was built, because the giver needs the services itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.auth.proposals import Check, Outcome, Proposal, Proposals
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["NoReference", "Reference", "Runner", "TwoPersons"]


class Reference(Protocol):
    """What the API says of itself; made where the application is put together."""

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        ...

    def rows(self) -> tuple[Mapping[str, str], ...]:
        """One row of text for each operation, by path."""
        ...


class Runner(Protocol):
    """Moves runs forward (`broker.federation.runner`).

    `opened`, `voted` and `resume` return at once; the work is the runner's own task.
    """

    def opened(self, run_id: str) -> None:
        """A run was opened; it and its entries are durable."""
        ...

    def voted(self, candidate: str) -> None:
        """A vote on a candidate arrived outside a round; the gate may look again."""
        ...

    def resume(self) -> None:
        """At start: go on with every run that is not closed."""
        ...

    async def stop(self) -> None:
        """Leaves every run where it is and ends its own tasks."""
        ...


class TwoPersons(Protocol):
    """What takes two people (`broker.acts.service.Acts`); words about it are units of work of the writer."""

    proposals: Proposals

    def propose(  # noqa: PLR0917  one order for all three, as everybody calls them
        self,
        session: Session,
        tx: LogTx,
        kind: str,
        payload: Mapping[str, Json],
        operator: Operator,
        request: str,
        *,
        evidence: Check | None = None,
    ) -> Outcome:
        """Proposes an act."""
        ...

    def approve(
        self,
        session: Session,
        tx: LogTx,
        name: str,
        operator: Operator,
        request: str,
        *,
        digest: str,
        evidence: Check,
    ) -> Outcome:
        """Approves a proposal; with two people it happens."""
        ...

    def refuse(
        self, session: Session, tx: LogTx, name: str, operator: Operator, request: str, *, reason: str
    ) -> Outcome:
        """Ends a proposal."""
        ...

    def offered(
        self, session: Session, tx: LogTx, contract: str, *, by: Operator | str, request: str
    ) -> Proposal | None:
        """Proposes the activation of a text that was put to its contributors."""
        ...

    def role_of(self, session: Session, name: str) -> str | None:
        """Role of a person in force."""
        ...


class NoReference:
    """Of services without an application."""

    def document(self) -> dict[str, Any]:
        """None."""
        return {}

    def rows(self) -> tuple[Mapping[str, str], ...]:
        """None."""
        return ()
