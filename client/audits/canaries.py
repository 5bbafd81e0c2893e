# SPDX-License-Identifier: Apache-2.0
"""This node's canaries of a run: drawn and committed to before the first gradient, revealed once it is over.

- Only where the contract's release asks for a report on them (`policies.privacy.canaries.per_party`).
- Seed and salt are in the outbox before anything is sealed, in the transaction that seals the commitment; a
  node that starts again goes on with the same ones.
- A node whose own units are too few for so many canaries takes no part: `CanaryMissingError` says what it
  needs. The canaries would say more of the model than its data.
- Once revealed, a run gets nothing more: its canaries are no secret any more.

    secret = drawn(outbox, entropy, contract, run=run, units=count)   # None where none are asked for
    reveal(letters, outbox, contract, run=run)                        # canary.revealed, or nothing to reveal
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from policies.privacy.canaries import SALT_BYTES, SEED_BYTES, CanarySecret, per_party, units_needed
from policies.privacy.errors import CanaryMissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.outbox import Letters, Outbox
    from policies.contract import Contract
    from policies.ports import Entropy
    from policies.signing import Envelope

__all__ = ["drawn", "kept", "reveal", "revealed_slot"]


def revealed_slot(run: str) -> str:
    """The outbox's slot of a run's reveal."""
    return f"canary.revealed {run}"


def kept(outbox: Outbox, run: str) -> CanarySecret | None:
    """The secret that was drawn for a run, or None."""
    text = outbox.kept(_name(run))
    if text is None:
        return None
    seed, salt, count = json.loads(text)
    return CanarySecret(run=run, seed=bytes.fromhex(seed), salt=bytes.fromhex(salt), count=count)


def drawn(
    outbox: Outbox, entropy: Entropy, contract: Contract, *, run: str, units: Callable[[], int]
) -> CanarySecret | None:
    """The secret of a run, drawn and committed to if it was not; durable when it returns.

    Args:
        outbox: Of this node.
        entropy: The operating system's.
        contract: Under which the run trains now.
        run: The run.
        units: Counts this node's own units; asked before the first draw only.

    Raises:
        CanaryMissingError: Too few units, or the canaries of the run were revealed already.
    """
    if outbox.find(revealed_slot(run)) is not None:
        raise CanaryMissingError(
            need=f"canaries of {run} that nobody knows",
            found="they were revealed when its candidate was judged",
            remedy="take part in another run",
            clause=contract.release.clause,
        )
    known = kept(outbox, run)
    count = per_party(contract.release.evidence, contract.aggregation.min_parties)
    if known is not None or count == 0:
        return known
    _check_units(contract, count, units())
    secret = CanarySecret(
        run=run, seed=entropy.token_bytes(SEED_BYTES), salt=entropy.token_bytes(SALT_BYTES), count=count
    )
    with outbox.writing() as letters:
        letters.keep(_name(run), json.dumps([secret.seed.hex(), secret.salt.hex(), count]))
        letters.seal(
            "canary.committed",
            body=secret.committed,
            scope=contract.digest,
            run=run,
            slot=f"canary.committed {run}",
        )
    return secret


def reveal(letters: Letters, outbox: Outbox, contract: Contract, *, run: str) -> list[Envelope]:
    """``canary.revealed`` of a run in an open transaction; nothing where nothing was committed to."""
    secret = kept(outbox, run)
    if secret is None:
        return []
    slot = revealed_slot(run)
    return [letters.seal("canary.revealed", body=secret.revealed, scope=contract.digest, run=run, slot=slot)]


def _check_units(contract: Contract, count: int, units: int) -> None:
    needed = units_needed(count)
    if units < needed:
        raise CanaryMissingError(
            need=f"{needed} units of training data beside {count} canaries",
            found=f"{units}",
            remedy="add episodes; or agree on a release clause without canary and membership reports",
            clause=contract.release.clause,
        )


def _name(run: str) -> str:
    return f"canaries {run}"
