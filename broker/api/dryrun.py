# SPDX-License-Identifier: Apache-2.0
"""Route of the dry run: operators try a proposal on the broker's own past decisions. Nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import StringConstraints
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.apart import apart
from broker.api.answers.contracts import DryRunShown
from broker.api.bodies import Body
from broker.api.contracts import ContractText  # noqa: TC001  pydantic reads the annotations
from broker.api.declared import gives
from broker.api.once import store_nonce
from broker.api.signed import OperatorCall, json_response
from broker.contracts.dryrun import dry_run_here
from policies.contract import load

if TYPE_CHECKING:
    from policies.contract.dryrun import DryRun

__all__ = ["router"]

router = APIRouter()


class DryRunBody(Body):
    """A proposal as YAML or canonical JSON text, and whose records are meant (null: every version's)."""

    contract: ContractText
    against: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


@router.post("/operator/contracts/dry-run")
@gives(DryRunShown, takes=DryRunBody)
async def try_on_the_past(call: OperatorCall) -> Response:
    """What the proposal would have refused and allowed, by clause, and what nobody can tell."""
    body, services = call.read(DryRunBody), call.services
    proposal = await apart(lambda: load(body.contract))
    await store_nonce(services, call.request)

    def work() -> DryRun:
        return dry_run_here(services.store, services.contracts, proposal, against=body.against)

    found = await apart(work)
    return json_response({**found.to_json(), "lines": list(found.lines)})
