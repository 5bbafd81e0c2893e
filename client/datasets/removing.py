# SPDX-License-Identifier: Apache-2.0
"""``data remove``: the files of a data set go; its lineage, and what was spent on it, stay.

Episodes that nobody could have used are forgotten with it (client.data.forgetting): they never had a right
under a contract or consent, no ledger knows them, they were not donated, and no model acted in them. How many
those are is said, and why others stay known.

What blocks it is a run that is open and uses the data set: one that this node let train on it, that is not
over (`client.known_runs`) and that its owner did not stop. While a worker runs, so is a run about which
nothing was decided yet: it may be in its first round. A worker that merely runs blocks nothing, nor does a
run that ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.answers import Answer
from client.budgets import Budgets, is_opened
from client.clock import SystemClock
from client.contract.shelf import ContractShelf
from client.data.errors import DatasetUnknownError
from client.data.places import Rows
from client.data.quality.accepted import folder_of
from client.datasets.published import was_published
from client.entropy import SystemEntropy
from client.identity import load_identity
from client.known_runs import RunEnds, names_of_runs
from client.membership import pinned_broker, worker_of
from client.outbox import Outbox
from client.privacy.units import fingerprint
from client.rehearsal import sweep
from client.seeds.donated import withheld
from client.stopping_runs import StoppedRuns
from policies.privacy.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.data.forgetting import Forgetting
    from client.outbox.rows import Decided
    from client.settings import Home
    from policies.identity import SigningKey
    from policies.ports import Clock

__all__ = ["allowed_runs", "data_remove"]

_WHY: Final = {
    "right": "they had a right under a contract or consent, or an earlier version imported them",
    "budget": "a budget was opened over them",
    "donated": "they were donated",
    "deployed": "a model acted in them",
    "elsewhere": "another data set holds them",
    "unreadable": "a data set cannot be read, and may hold a right",
}


def data_remove(home: Home, dataset: str, *, clock: Clock | None = None) -> Answer:
    """Deletes a data set.

    Raises:
        DatasetUnknownError: No such data set, and no trace of one.
        DatasetInUseError: A run that is open trains on it; the runs are named.
    """
    from client.data import Store

    store = Store(home.data)
    there = dataset in store.catalogue().datasets
    used_by = _open_runs(home, dataset, clock or SystemClock()) if there else ()
    forgetting = _forgetting(home, clock or SystemClock()) if there else None
    if not store.remove(dataset, used_by=used_by, forgetting=forgetting):
        raise DatasetUnknownError(
            need=f"data set {ascii(dataset)[:90]}",
            found=", ".join(sorted(store.catalogue().datasets)) or "an empty store",
            remedy="iriai-node data list",
        )
    sweep(home)  # else a dry run that was killed would keep them
    for note in ("findings.json", "sources.json"):  # names of files and figures; what a person said stays
        (folder_of(home.data, dataset) / note).unlink(missing_ok=True)
    forgotten, kept = (forgetting.forgotten, forgetting.kept) if forgetting else (0, {})
    return Answer(
        data={"dataset_id": dataset, "removed": True, "forgotten": forgotten, "kept": kept},
        text=(
            f"{dataset}: its files are gone",
            *_known_lines(forgotten, kept),
            *_published_lines(home, dataset),
        ),
    )


def _published_lines(home: Home, dataset: str) -> Iterator[str]:
    """What others go on seeing of it."""
    if was_published(home, dataset):
        yield f"published  others still see its last descriptor: iriai-node data withdraw {dataset}"


def _known_lines(forgotten: int, kept: Mapping[str, int]) -> Iterator[str]:
    """What is still known of the episodes, and why."""
    if forgotten:
        yield f"forgotten  {forgotten} episodes that never had a right: they may come anew, in any cut"
    for reason, count in kept.items():
        yield f"known      {count} episodes stay the same units: {_WHY[reason]}"


def _forgetting(home: Home, clock: Clock) -> Forgetting:
    from client.data.forgetting import Forgetting

    identity, away = load_identity(home), withheld(home)
    charged = _charged(home, identity.key, clock)
    return Forgetting(
        node_key=identity.unit_key,
        is_sealed=lambda lineage: is_opened(home, lineage),
        is_charged=lambda unit: charged is None or fingerprint(unit) in charged,
        is_donated=lambda content, place: content in away.contents or away.rows.overlaps(Rows.read(place)),
    )


def _charged(home: Home, key: SigningKey, clock: Clock) -> frozenset[str] | None:
    """Fingerprints of all units that a ledger knows; None where one cannot be read: then all may be."""
    budgets = Budgets(home, key=key, clock=clock)
    try:
        return frozenset(one for stem in budgets.lineages() for one in budgets.find(stem).state.units)
    except BudgetError:
        return None
    finally:
        budgets.close()


def _open_runs(home: Home, dataset: str, clock: Clock) -> tuple[str, ...]:
    """Runs that may want the data set again."""
    decided = _decisions(home, clock)
    ends = RunEnds(ContractShelf(home, own_key=load_identity(home).key.public), clock)
    found = {
        run
        for run, rows in decided.items()
        if any(one.allow for one in rows) and dataset in ends.datasets(rows) and not ends.is_over(rows)
    }
    if worker_of(home)["running"]:
        found |= (names_of_runs(home) or frozenset()) - decided.keys()
    return tuple(sorted(found - (StoppedRuns(home).all() or frozenset())))


def allowed_runs(home: Home, dataset: str, clock: Clock) -> tuple[str, ...]:
    """Runs that this node ever let use a data set, under any contract that it holds."""
    ends = RunEnds(ContractShelf(home, own_key=load_identity(home).key.public), clock)
    allowed = {run: [one for one in rows if one.allow] for run, rows in _decisions(home, clock).items()}
    return tuple(sorted(run for run, rows in allowed.items() if rows and dataset in ends.datasets(rows)))


def _decisions(home: Home, clock: Clock) -> dict[str, list[Decided]]:
    """What was decided about each run, newest first."""
    decided: dict[str, list[Decided]] = {}
    if not home.outbox.exists():
        return decided
    identity = load_identity(home)
    outbox = Outbox.of(
        home, identity, origin=pinned_broker(home).origin, clock=clock, entropy=SystemEntropy()
    )
    try:
        for one in outbox.left.decisions(limit=None):
            decided.setdefault(one.run, []).append(one)
    finally:
        outbox.close()
    return decided
