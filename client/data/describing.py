# SPDX-License-Identifier: Apache-2.0
"""The descriptor of a data set: the only thing about data that leaves, in coarse words, signed by the node.

What it is made from stays here: counts become buckets, the rate becomes a bucket, the date becomes a
half-year, and a word for a task leaves only if its owner said so. Two data sets that differ a little give
equal descriptors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import MapInvalidError, NoRightsError
from client.data.store import Store
from policies.messages import Descriptor, Fit, episodes_bucket, rate_bucket, seal_descriptor
from policies.ports import Clock, from_ms
from policies.shown_data import EPISODE_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from policies.identity import SigningKey
    from policies.signing import Envelope

__all__ = ["describe", "seal", "task_words"]

_TASK: Final = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")
_SECOND_HALF: Final = 7  # July


def describe(
    root: Path,
    dataset: str,
    *,
    node: str,
    allow: Collection[str],
    clock: Clock,
    recipes: Mapping[str, int] | None = None,
    tasks: Collection[str] = (),
    embodiment: Mapping[str, Any] | None = None,
    quality: str | None = None,
    contracts: Collection[str] | None = None,
) -> Descriptor:
    """Describes a data set for the catalogue.

    Args:
        root: Folder of the store.
        dataset: Its name.
        node: This node's id.
        allow: Fields and labels that may be named.
        clock: Gives the half-year.
        recipes: Recipe digest to the training episodes it needs. Whether they are enough is told by buckets,
            so that no choice of thresholds tells more than the bucket.
        tasks: Words for the tasks, as their owner lets them leave; the recordings' own words never do by
            themselves (`task_words`).
        embodiment: ``class``, ``dof``, ``action_space``, where neither map nor format told.
        quality: Digest of the certificate of quality.
        contracts: Digests of the contract and of the versions that it superseded; if given, episodes that
            were imported under none of them are neither counted nor named.

    Raises:
        DatasetUnknownError: No such data set.
        MapInvalidError: Nothing tells the robot's class.
        NoRightsError: None of its episodes was imported under these contracts.
        DescriptorKeyError: A value that is too fine, or of no closed list.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    metas = [e.meta for e in store.episodes(dataset)]
    mine = [meta for meta in metas if contracts is None or meta.has_right(contracts)]
    if metas and not mine:
        raise NoRightsError(
            need="an import under this contract",
            found="one under other rights",
            remedy=f"iriai-node data add PATH --dataset {dataset}, under this contract",
        )
    usable = [meta for meta in mine if not meta.excluded]
    robot = embodiment or entry.embodiment
    if robot is None:
        raise MapInvalidError(
            need="the robot's class, dof and action space",
            found="none in the recording or its map",
            remedy="add embodiment = {class = ..., dof = ..., action_space = ...} to the signal map",
        )
    train = sum(meta.split == "train" and meta.may_be_cloned for meta in usable)
    now = from_ms(clock.now_ms())
    return Descriptor.build(
        node=node,
        dataset=dataset,
        embodiment_class=robot["class"],
        dof=robot["dof"],
        action_space=robot["action_space"],
        rate_hz=rate_bucket(float(entry.rate_hz)),
        episodes=episodes_bucket(len(usable)),
        tasks=sorted(set(tasks)),
        fields=sorted({c.split(".", 1)[1] for c in set(entry.columns) - set(entry.private)} & set(allow)),
        labels=sorted(set(entry.labels) & set(allow)),
        period=f"{now.year}-H{2 if now.month >= _SECOND_HALF else 1}",
        fits=[
            Fit(recipe=digest, minimum_met=_rank(train) >= _rank(needed))
            for digest, needed in sorted((recipes or {}).items())
        ],
        quality=quality,
    )


def _rank(count: int) -> int:
    return EPISODE_BUCKETS.index(episodes_bucket(count))


def task_words(root: Path, dataset: str, contracts: Collection[str] | None = None) -> frozenset[str]:
    """Task names of the episodes that are single words: what an owner may declare. They stay here.

    Args:
        root: Folder of the store.
        dataset: Its name.
        contracts: As for `describe`.

    Raises:
        DatasetUnknownError: No such data set.
    """
    store = Store(root)
    store.catalogue().dataset(dataset)
    metas = [one.meta for one in store.episodes(dataset)]
    metas = [one for one in metas if contracts is None or one.has_right(contracts)]
    return frozenset(one.task for one in metas if not one.excluded and _TASK.fullmatch(one.task))


def seal(descriptor: Descriptor, key: SigningKey) -> Envelope:
    """The descriptor, signed by the node."""
    return seal_descriptor(descriptor, key)
