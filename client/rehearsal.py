# SPDX-License-Identifier: Apache-2.0
"""A dry run of what changes the episode store: the command itself, on a copy that is gone afterwards.

    with rehearsed(home) as copy:
        return told_dry(data_mark(copy, dataset, episodes, outcome=outcome, by=by, clock=clock))

- Files of the store are never written again once they have their place (`client.data.store`), so the copy has
  links of them and costs no room; what the command adds has room for as long as it runs.
- Imports that were killed are not in it: a rehearsal begins anew, and the real one goes on where it was.
- Of the rest of the folder the copy has links to look at. So nothing may be rehearsed that writes elsewhere
  than in the store and in the notes of what was published, or that opens the outbox to write.
- The node's folder is as it was when the command ends, also where it is refused or stopped. What a killed
  one left would keep files that were removed: `data remove` sweeps it away (`sweep`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.settings import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.answers import Answer

__all__ = ["rehearsed", "sweep", "told_dry"]

_PREFIX: Final = ".rehearsal-"
_KILLED: Final = ".new-*"
_DRY: Final = "dry run, on a copy that is gone again: this would follow; nothing was stored or sent"


@contextmanager
def rehearsed(home: Home) -> Iterator[Home]:
    """A copy of a node's folder to change; see the module for what may be.

    Raises:
        NotInitialisedError: No node is there.
    """
    root = home.need().root.absolute()
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as made:
        copy = Home(root=Path(made), config=home.config)
        for path in root.iterdir():
            if path not in {root / home.data.name, root / home.published.name, copy.root}:
                (copy.root / path.name).symlink_to(path)
        for kept, into in ((root / home.data.name, copy.data), (root / home.published.name, copy.published)):
            if kept.exists():
                shutil.copytree(kept, into, copy_function=_linked, ignore=shutil.ignore_patterns(_KILLED))
        yield copy


def told_dry(answer: Answer) -> Answer:
    """What a rehearsal says: the same figures and exit code, and that nothing happened."""
    return replace(answer, data={**answer.data, "dry_run": True}, text=(_DRY, *answer.text))


def sweep(home: Home) -> None:
    """Removes what rehearsals left that were killed; one that goes on fails, and says so."""
    for left in home.root.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    """A link where the file system has links, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
