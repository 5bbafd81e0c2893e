# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, for imports. Without a terminal it says nothing."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.data.progress import Progress

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(words: str) -> Iterator[Callable[[Progress], None]]:
    """A function to tell of the progress of an import; the bar is gone when it ends."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[episodes]} episodes"),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None, episodes=0)

        def told(now: Progress) -> None:
            again = f" (going on, {now.resumed} files were done)" if now.resumed else ""
            bar.update(
                task,
                description=words + again,
                total=now.bytes_total or None,
                completed=now.bytes_done,
                episodes=now.episodes,
            )

        yield told
