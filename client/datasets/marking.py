# SPDX-License-Identifier: Apache-2.0
"""``data mark``: a person says how episodes ended, so that a model's attempts may become examples, or not.

Who said it, and when, is kept beside the data set, ``<root>/quality/<data set>/marked.json``, before the
store changes. Before an import, ``models judge`` says it of a recorded file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from client.answers import Answer
from client.settings import write_durably
from policies.encoding import canonical
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from client.data.episodes import EpisodeMeta
    from client.data.store import Outcome
    from client.settings import Home
    from policies.ports import Clock

__all__ = ["data_mark"]


def data_mark(
    home: Home, dataset: str, episodes: Sequence[str], *, outcome: Outcome, by: str, clock: Clock
) -> Answer:
    """Marks episodes; safe to repeat.

    Args:
        home: The node's folder.
        dataset: Its name.
        episodes: Their ids.
        outcome: How they ended.
        by: Who says so.
        clock: When.

    Raises:
        DatasetUnknownError: No such data set.
        EpisodeUnknownError: It has no such episode; then none is marked.
        DataError: Nobody is named.
    """
    from client.data import Store
    from client.data.judging import named
    from client.data.quality.accepted import folder_of

    name = named(by)
    store = Store(home.data)
    known = {one.meta.episode_id for one in store.episodes(dataset)}
    if known.issuperset(episodes):  # else `Store.mark` refuses
        said = {"outcome": outcome, "by": name, "at": iso_s(clock.now_ms())}
        _note(folder_of(home.data, dataset) / "marked.json", [{"episode": one, **said} for one in episodes])
    marked = store.mark(dataset, outcome, episodes)
    usable = sum(_imitated(one) for one in marked)
    return Answer(
        data={
            "dataset_id": dataset,
            "episodes": [one.episode_id for one in marked],
            "outcome": outcome,
            "by": name,
            "imitated": usable,
        },
        text=(
            f"{len(marked)} marked {outcome} by {name}; {usable} of them may be imitated",
            *_next(dataset, marked),
        ),
    )


def _imitated(meta: EpisodeMeta) -> bool:
    """Whether training may imitate the episode."""
    return meta.may_be_cloned and not meta.excluded and meta.split == "train"


def _next(dataset: str, marked: Sequence[EpisodeMeta]) -> Iterator[str]:
    """What else keeps episodes from training, and whether there is something to publish."""
    out = sum(bool(one.excluded) for one in marked)
    held = sum(one.split == "held-out" and not one.excluded for one in marked)
    if out:
        yield f"           {out} of them are excluded, and stay so"
    if held:
        yield f"           {held} of them are held out: they judge models and are never imitated"
    if any(one.rights and not one.excluded for one in marked):
        yield "           others see a new count only once it is published again:"
        yield f"next       iriai-node data publish {dataset}"
    else:
        yield f"next       iriai-node data show {dataset}"


def _note(path: Path, rows: list[dict[str, str]]) -> None:
    before = json.loads(path.read_bytes()) if path.exists() else []
    write_durably(path, canonical([*before, *rows]))
