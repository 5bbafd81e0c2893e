# SPDX-License-Identifier: Apache-2.0
"""``data inspect``: what a recording is, and a signal map for it. Reads headers; stores nothing."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

from client.answers import Answer, plain
from client.datasets.outputs import check_out, writing
from client.datasets.wording import some_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.proposing import Proposal
    from client.data.series import Probe

__all__ = ["inspect"]

_SHOWN: Final = 12
_MEGABYTE: Final = 1_000_000


def inspect(source: Path, *, source_format: str | None, out: Path | None) -> Answer:
    """Format, channels, and the map that `data add` would need.

    Args:
        source: File or folder; never written to.
        source_format: Name of the reader, where two claim the path.
        out: Where the proposed map is written; an existing file is left alone.

    Raises:
        DataError: No reader claims the path, or it cannot be read.
        FileTakenError: ``out`` is there already.
        NoSuchThingError: Its folder is not.
    """
    from client.data.heads import head_of, head_rate
    from client.data.proposing import propose
    from client.data.readers import claimed
    from client.data.soundness import left_lying, troubles

    if out is not None:
        check_out(out, new=True)
    reader = claimed(source, chosen=source_format)
    probe = reader.probe(source, None)
    head = head_of(source) if reader.name == "table" else None
    found = propose(probe, head)
    rate = probe.rate_hz if head is None else head_rate(head)
    if out is not None and found.text is not None:
        with writing(out):
            out.write_text(found.text, encoding="utf-8")
    wrong, lying = troubles(source, reader.name), left_lying(source, reader.name)
    channels = [one for one in (head.names if head else probe.channels) if one]
    facts = {
        "format": probe.reader,
        "version": probe.version,
        "channels": channels,
        "rows": probe.rows,
        "rate_hz": rate,
        "bytes": probe.bytes,
        "units": dict(probe.units),
        "profile": found.profile,
        "map": found.text,
        "map_needed": found.needed,
        "open": list(found.open),
        "unused": list(found.unused),
        "troubles": list(wrong),
        "not_read": list(lying),
    }
    more = f" ... {len(channels) - _SHOWN} more" if len(channels) > _SHOWN else ""
    lines = [
        f"format     {probe.reader} {plain(probe.version)}",
        f"size       {_size(probe)}{f', {rate:.4g} rows a second' if rate else ''}",
        f"channels   {', '.join(map(plain, channels[:_SHOWN]))}{more}",
    ]
    lines += [f"WARNING    {plain(one)}" for one in wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        lines.append(f"           and {len(wrong) - _SHOWN} more: --json lists all")
    if lying:
        lines.append(f"not read   {some_names(lying)}: also there, and no part of this format")
    if not found.needed:
        lines.append("map        not needed; data add reads it as it is")
    if found.text is not None:
        lines += ["map        proposed:" if out is None else f"map        written to {out}"]
        lines += [] if out is not None else ["", *(plain(one) for one in found.text.splitlines()), ""]
    lines += [f"to say     {plain(one)}" for one in found.open]
    lines += [f"{word:<11}{line}" for word, line in _next(source, found, out)]
    return Answer(data=facts, text=tuple(lines))


def _next(source: Path, found: Proposal, out: Path | None) -> Iterator[tuple[str, str]]:
    """Commands that can be pasted; what comes before them stands on a line of its own."""
    place = quote(plain(source))
    if found.needed and out is None:
        yield "next", f"iriai-node data inspect {place} --out map.toml"
        return
    if found.needed and found.open:
        yield "next", f"say it in {plain(out)}, then:"
    else:
        yield "next", "import it:"
    given = f" --map {quote(plain(out))}" if found.needed else ""
    yield "", f"iriai-node data add {place} --dataset NAME{given}"
    yield "", "without a contract, to look and check only, add: --no-contract"


def _size(probe: Probe) -> str:
    """Rows where the header counts them, and bytes."""
    rows = "" if probe.rows is None else f"{probe.rows} rows, "
    size = f"{probe.bytes / 1e6:.1f} MB" if probe.bytes >= _MEGABYTE else f"{probe.bytes} bytes"
    return rows + size
