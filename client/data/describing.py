# SPDX-License-Identifier: Apache-2.0
"""The descriptor of a data set: the only thing about data that leaves, in coarse words, signed by the node.

What it is made from stays here: counts become buckets, the rate becomes a bucket, the date becomes a
half-year, and free text never becomes a task. Two data sets that differ a little give equal descriptors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import MapInvalidError
from client.data.store import Store
from policies.messages import Descriptor, Fit, episodes_bucket, rate_bucket, seal_descriptor
from policies.ports import Clock, from_ms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from policies.identity import SigningKey
    from policies.signing import Envelope

__all__ = ["describe", "seal"]

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
    tasks: Collection[str] | None = None,
    embodiment: Mapping[str, Any] | None = None,
) -> Descriptor:
    """Describes a data set for the catalogue.

    Args:
        root: Folder of the store.
        dataset: Its name.
        node: This node's id.
        allow: Fields and labels that may be named.
        clock: Gives the half-year.
        recipes: Recipe digest to the training episodes it needs; only "enough" or "not enough" is said.
        tasks: Words for the tasks, as the owner declares them; without them, task names of the data set that
            are single words.
        embodiment: ``class``, ``dof``, ``action_space``, where neither map nor format told.

    Raises:
        DatasetUnknownError: No such data set.
        MapInvalidError: Nothing tells the robot's class.
        DescriptorKeyError: A value that is too fine, or of no closed list.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    usable = [e.meta for e in store.episodes(dataset) if not e.meta.excluded]
    robot = embodiment or entry.embodiment
    if robot is None:
        raise MapInvalidError(
            need="the robot's class, dof and action space",
            found="none in the recording or its map",
            remedy="add embodiment = {class = ..., dof = ..., action_space = ...} to the signal map",
        )
    train = sum(meta.split == "train" for meta in usable)
    names = tasks if tasks is not None else {m.task for m in usable if _TASK.match(m.task)}
    now = from_ms(clock.now_ms())
    return Descriptor.build(
        node=node,
        dataset=dataset,
        embodiment_class=robot["class"],
        dof=robot["dof"],
        action_space=robot["action_space"],
        rate_hz=rate_bucket(float(entry.rate_hz)),
        episodes=episodes_bucket(len(usable)),
        tasks=sorted(names),
        fields=sorted({c.split(".", 1)[1] for c in entry.columns} & set(allow)),
        labels=sorted(set(entry.labels) & set(allow)),
        period=f"{now.year}-H{2 if now.month >= _SECOND_HALF else 1}",
        fits=[
            Fit(recipe=digest, minimum_met=train >= needed)
            for digest, needed in sorted((recipes or {}).items())
        ],
    )


def seal(descriptor: Descriptor, key: SigningKey) -> Envelope:
    """The descriptor, signed by the node."""
    return seal_descriptor(descriptor, key)
