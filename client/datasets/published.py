# SPDX-License-Identifier: Apache-2.0
"""What others were told about each data set, remembered at home: ``published/<data set>.json``.

- What other members see (``open`` or ``fits``) is the owner's choice for the data set. It stays until the
  owner makes another: publishing again never widens it by itself.
- A word for a task leaves only if its owner said so for this data set, or if it is the task of a recipe that
  this node signed. Other words of a recording are told to the owner and to nobody else.
- Two descriptors in a row say more than one: how buckets move tells a count. So other content within
  `AGAIN_DAYS` of the last one is refused, unless the owner gives a reason, which the outbox keeps. The same
  content may always be sent; its certificate may be another.
- To show less is never refused and never waits: the choice is kept before anything is sent, and the step from
  ``open`` to ``fits`` needs no reason, whatever the data became. To show more again is other content, where
  it says other things than others saw last.

The record outlives the data set, as its lineage does.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from client.data.catalogue import check_dataset_name
from client.data.errors import DescribedLatelyError, StoreDamagedError
from client.settings import write_durably
from policies.encoding import canonical, digest

if TYPE_CHECKING:
    from pathlib import Path

    from client.settings import Home
    from policies.messages import Descriptor
    from policies.shown_data import Shown

__all__ = [
    "AGAIN_DAYS",
    "Asked",
    "Published",
    "Standing",
    "check_again",
    "content_of",
    "keep_narrow",
    "read_published",
    "save_published",
    "standing",
    "was_published",
]

Standing = Literal["published", "withdrawn", "never", "unknown"]
AGAIN_DAYS: Final = 30
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an owner asks for this time; what is left out stays as it was.

    Attributes:
        shown: What other members see: ``open`` or ``fits``.
        tasks: Words for the tasks that others may know, all of them.
        again: Why another descriptor follows so soon; empty where the owner gave no reason.
    """

    shown: Shown | None = None
    tasks: tuple[str, ...] | None = None
    again: str = ""

    def command(self, dataset: str) -> str:
        """The command that asks for the same again, but for its reason."""
        shown = {"fits": ["--fits-only"], "open": ["--open"], None: []}[self.shown]
        tasks = [word for task in self.tasks or () for word in ("--task", task)]
        return shlex.join(["iriai-node", "data", "publish", dataset, *shown, *tasks])


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was told last.

    Attributes:
        shown: What other members see.
        tasks: Words for the tasks that the owner declared.
        content: Digest of what the descriptor said (`content_of`); empty before the first one.
        since_ms: When that content was sent for the first time.
        seen: Digest of the content whose words other members saw last; empty where they never did.
        wide: Whether, as far as this node knows, other members see words now.
        withdrawn_ms: When it was taken back out of the catalogue; 0 while it is in it.
    """

    shown: Shown = "open"
    tasks: tuple[str, ...] = ()
    content: str = ""
    since_ms: int = 0
    seen: str = ""
    wide: bool = False
    withdrawn_ms: int = 0

    def asked(self, asked: Asked) -> Published:
        """The record with what the owner asks for."""
        return replace(
            self,
            shown=asked.shown or self.shown,
            tasks=self.tasks if asked.tasks is None else tuple(sorted(set(asked.tasks))),
        )

    def told(self, content: str, now_ms: int) -> Published:
        """The record when this content is about to be sent; what is wide stays so until it arrived."""
        since_ms = self.since_ms if content == self.content else now_ms
        wide = self.wide or self.shown == "open"
        seen = content if self.shown == "open" else self.seen
        return replace(self, content=content, since_ms=since_ms, seen=seen, wide=wide, withdrawn_ms=0)

    def arrived(self) -> Published:
        """The record once the broker has it."""
        return replace(self, wide=self.shown == "open")

    def is_known(self, content: str) -> bool:
        """Whether others learn nothing new by this content, as it is shown."""
        widens = self.shown == "open" and bool(self.seen) and content != self.seen
        return content == self.content and not widens


def content_of(descriptor: Descriptor) -> str:
    """Digest of all that a descriptor says but for its certificate."""
    said = descriptor.model_dump(by_alias=True)
    del said["quality"]
    return digest(canonical(said))


def check_again(record: Published, content: str, now_ms: int, *, dataset: str, asked: Asked) -> bool:
    """Whether the owner's reason is what lets this content follow the last one.

    Args:
        record: Of what was told last, with what is asked for (`Published.asked`).
        content: What would be told.
        now_ms: When.
        dataset: Its name.
        asked: What the owner wants this time.

    Raises:
        DescribedLatelyError: Other content, too soon, and no reason.
    """
    days = (now_ms - record.since_ms) // _DAY_MS
    narrows = record.shown == "fits" and record.wide
    if not record.content or narrows or record.is_known(content) or days >= AGAIN_DAYS:
        return False
    if not asked.again.strip():
        raise DescribedLatelyError(
            need=f"{AGAIN_DAYS} days between two descriptors of {dataset} that say different things",
            found=f"{max(days, 0)} days: others could count episodes by how the words change",
            remedy=f'wait; or give a reason: {asked.command(dataset)} --again "REASON"',
        )
    return True


def read_published(home: Home, dataset: str) -> Published:
    """The record of a data set; an empty one where nothing was published yet.

    Raises:
        StoreDamagedError: The file is not what `save_published` writes.
    """
    path = _path(home, dataset)
    try:
        found = json.loads(path.read_bytes())
        shown: Shown = "open" if found["shown"] == "open" else "fits"
        was_open = shown == "open"  # of a note without the two: what it says was sent
        older = {"seen": found["content"] if was_open else "", "wide": was_open and bool(found["content"])}
        return Published(**{**older, **found, "shown": shown, "tasks": tuple(found["tasks"])})
    except FileNotFoundError:
        return Published()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreDamagedError(
            need="the note of what was published, as it was written",
            found=f"{path.name}: {type(error).__name__}",
            remedy="restore the file from a backup; or remove it and publish with --fits-only",
        ) from error


def save_published(home: Home, dataset: str, record: Published) -> None:
    """Keeps the record of a data set."""
    write_durably(_path(home, dataset), canonical({**asdict(record), "tasks": list(record.tasks)}))


def keep_narrow(home: Home, dataset: str, shown: Shown | None) -> None:
    """Keeps an owner's choice to show less, before anything else is tried; to show more is kept when sent."""
    if shown != "fits":
        return
    before = read_published(home, dataset)
    if before.shown != "fits":
        save_published(home, dataset, replace(before, shown="fits"))


def was_published(home: Home, dataset: str) -> bool:
    """Whether others are told anything about a data set, as far as can be read."""
    return standing(home, dataset) in {"published", "unknown"}  # it may have been


def standing(home: Home, dataset: str) -> Standing:
    """Where a data set stands in the catalogue, as far as this node knows."""
    try:
        record = read_published(home, dataset)
    except StoreDamagedError:
        return "unknown"
    if not record.content:
        return "never"
    return "withdrawn" if record.withdrawn_ms else "published"


def _path(home: Home, dataset: str) -> Path:
    return home.published / f"{check_dataset_name(dataset).replace('/', '+')}.json"
