# SPDX-License-Identifier: Apache-2.0
"""The command behind ``iriai-node data record``: a live source becomes a table that ``data add`` imports.

Nothing leaves the site, and nothing is imported yet: the owner looks first.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from client.answers import Answer
from client.data.errors import LiveInsecureError
from client.datasets.outputs import check_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.live.opcua import Stop
    from client.data.live.opcua_access import Access
    from policies.ports import Clock

__all__ = ["data_record", "password_of", "until_told"]


def password_of(file: Path | None) -> str | None:
    """The password in a file, without its line end.

    Raises:
        LiveInsecureError: It cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LiveInsecureError(
            need="a file with the user's password",
            found=f"{file.name}: {type(error).__name__}",
            remedy="name a text file that this account can read",
        ) from error


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a recording ends and keeps what came."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def data_record(
    endpoint: str,
    *,
    signal_map: Path,
    out: Path,
    access: Access,
    stop: Stop,
    clock: Clock,
    for_s: float | None = None,
    base: str = "",
    sampling_ms: float = 10.0,
) -> Answer:
    """Records the nodes that a signal map names until `stop` or for ``for_s``.

    Args:
        endpoint: ``opc.tcp://host:port/path``.
        signal_map: TOML file; its columns are node ids or paths below ``base``.
        out: A new file ``*.parquet``; the map is written beside it.
        access: Certificates and user, or that none are wanted.
        stop: Told by a signal; what was recorded is kept.
        clock: For ``for_s``.
        for_s: Seconds; without it until `stop`.
        base: Node id or path below Objects.
        sampling_ms: How often the server looks at its values.

    Raises:
        DataError: See `client.data.live.opcua.record`.
        NoSuchThingError: The folder of ``out`` is not there.
    """
    from client.data.live.opcua import record
    from client.data.signalmap import load_map

    check_out(out)
    done = record(
        endpoint,
        load_map(signal_map),
        out,
        access=access,
        stop=stop,
        clock=clock,
        for_s=for_s,
        base=base,
        sampling_ms=sampling_ms,
    )
    table, own_map = quote(str(done.table)), quote(str(done.signal_map))
    text = (
        f"table      {done.table}",
        f"map        {done.signal_map}",
        f"rows       {done.rows}",
        f"findings   {', '.join(f'{code} {count}' for code, count in done.findings.items()) or 'none'}",
        "next       import it:",
        f"           iriai-node data add {table} --map {own_map} --dataset NAME",
    )
    facts = {
        "table": str(done.table),
        "map": str(done.signal_map),
        "rows": done.rows,
        "findings": dict(done.findings),
    }
    return Answer(data=facts, text=text)
