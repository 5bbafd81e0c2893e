# SPDX-License-Identifier: Apache-2.0
"""How fast and how heavy every screen of the console is, with a log of 10 000 entries and with a million.

1. A federation of real processes finishes one run, so that every screen has something to show; then its nodes
   end. ``story=False`` leaves this out: a broker with operators and nothing else.
2. The broker is stopped, and its log filled with finished runs, spends, decisions, incidents and actions, a
   unit at a time (`sandbox.bench_console_log`).
3. The broker is started; alice, an operator, and carol, an auditor, log in by one-time links, and every
   screen that one of them may have is fetched over one connection, one request after the other; screens of
   one thing (a run, an entry) are reached by the first link to one.

======================  ====================================================================================
p50_ms, p95_ms          from the request to the last byte, seen from this machine; `floor_ms` is what a page
                        without content takes, so the difference is the screen's own
cpu_ms                  processor time of the broker, and of what serves it on PostgreSQL, for one fetch, the
                        mean of all: on a busy machine it says more than the others. Null without ``/proc``
page_kb                 gzipped page; with_assets_kb: and each style and script that it loads, once
ratio                   p50 with the larger log by p50 with the smaller one; cpu_ratio: the same of cpu_ms
not_reached             screens that no link led to
======================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sandbox.bench_console_log import fill
from sandbox.errors import SandboxError
from sandbox.federation import Federation
from sandbox.people import AUDITOR, CONSOLE, login_of
from sandbox.postgres import server
from sandbox.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import httpx

__all__ = ["lines", "run", "screens"]

Json = dict[str, Any]
SMALL: Final = 10_000
_RUN_S: Final = 300.0
_READY_S: Final = 900.0
_WARM_UP: Final = 2
_LINK: Final = re.compile(r'(?:href|src)="([^"#]+)"')
_P95: Final = 0.95


def run(
    *,
    rows: int = 1_000_000,
    small: int = SMALL,
    repeats: int = 20,
    story: bool = True,
    folder: Path | None = None,
    database: str = "sqlite",
) -> Json:
    """All figures of the module.

    Args:
        rows: Entries of the larger log.
        small: Entries of the smaller one.
        repeats: Fetches of each screen.
        story: Whether a federation finishes a run first.
        folder: Where it lives; a temporary one if left out.
        database: Of the broker: ``sqlite``, or ``postgres``, of which a server is started here.

    Raises:
        FileNotFoundError: There is no PostgreSQL here.
        SandboxError: A screen that was reached answered with an error.
    """
    with contextlib.ExitStack() as held:
        place = folder or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="iriai-console-")))
        databases = held.enter_context(server()) if database == "postgres" else None
        progress = Progress()
        federation = Federation(place / "federation", console=CONSOLE, databases=databases)
        held.callback(federation.stop)
        _prepare(federation, progress, story=story)
        found: dict[int, Json] = {}
        for size in (small, rows):
            with progress.phase(f"the log is filled up to {size} entries"):
                federation.services["broker"].stop()
                fill(federation.broker_dir, size)
                federation.serve(ready_s=_READY_S)
            with progress.phase(f"screens with {size} entries"):
                served = list if databases is None else databases.serving
                found[size] = _measured(federation, repeats, progress, first=size == small, served=served)
    asked = {"rows": rows, "small": small, "repeats": repeats, "story": story, "database": database}
    return asked | _report(found[small], found[rows])


def _prepare(federation: Federation, progress: Progress, *, story: bool) -> None:
    if not story:
        federation.start_broker()
        return
    from sandbox.staging import bring_into_force

    bring_into_force(federation, progress)
    with progress.phase("one run"):
        opened = federation.open_run()
        federation.wait_run(opened, timeout_s=_RUN_S)
    for site in federation.sites:
        federation.services[site.name].stop()


# --- the screens ---


def screens(role: str = "operator") -> tuple[tuple[str, str], ...]:
    """Name and path of every screen that a person of a role may have."""
    from broker.console.rooms import all_routes

    found = [one for one in all_routes() if one.kind == "screen"]
    return tuple((one.name, one.path) for one in found if one.roles & {role, "anyone"})


def _measured(
    federation: Federation,
    repeats: int,
    progress: Progress,
    *,
    first: bool,
    served: Callable[[], list[int]] = list,
) -> Json:
    found: dict[str, Json] = {}
    floors = []
    for name, role in ((federation.operators[0], "operator"), (AUDITOR, "auditor")):
        with _signed_in(federation, name, role, first=first) as client:
            floors.append(statistics.median(_times(client, "/healthz", repeats)))
            waiting = {name: path for name, path in screens(role) if name not in found}
            cpu_s = partial(_all_cpu_s, federation.services["broker"].pid, served)
            found |= _all_screens(client, repeats, progress, waiting, cpu_s=cpu_s)
    return {"floor_ms": round(min(floors), 2), "screens": found}


@contextlib.contextmanager
def _signed_in(federation: Federation, name: str, role: str, *, first: bool) -> Iterator[httpx.Client]:
    import httpx

    login = login_of(federation, name, role=role, first=first)["login"]
    origin = CONSOLE.format(port=urlsplit(federation.url).port)
    with httpx.Client(base_url=origin, verify=False, timeout=60, follow_redirects=True) as client:  # noqa: S501  our own broker, on loopback
        client.get(login, follow_redirects=False, headers={"Sec-Fetch-Site": "none"})  # as typed by hand
        if not client.cookies:
            raise SandboxError(need="a login that opens a session", found="none", remedy="see broker.log")
        yield client


def _all_cpu_s(pid: int, served: Callable[[], list[int]]) -> float | None:
    """`_cpu_s` of the broker and of what serves it; one that ended meanwhile counts no more."""
    spent = [_cpu_s(one) for one in (pid, *served())]
    return None if spent[0] is None else sum(one or 0.0 for one in spent)


def _cpu_s(pid: int) -> float | None:
    """Processor time of a process so far, in all its threads; None where the system does not tell."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((one / "schedstat").read_text("utf-8").split()[0]) for one in threads) / 1e9
    except OSError:
        return None


def _all_screens(
    client: httpx.Client,
    repeats: int,
    progress: Progress,
    waiting: Mapping[str, str],
    *,
    cpu_s: Callable[[], float | None] = lambda: None,
) -> dict[str, Json]:
    found: dict[str, Json] = {}
    links: set[str] = set()
    left = dict(waiting)
    while True:
        reached = {name: path for name, pattern in left.items() if (path := _address(pattern, links))}
        if not reached:
            return found
        for name, path in reached.items():
            del left[name]
            found[name], seen = _screen(client, path, repeats, cpu_s)
            progress.say(f"  {name}: p50 {found[name]['p50_ms']} ms, {found[name]['page_kb']} kB")
            links |= seen


def _address(pattern: str, links: Iterable[str]) -> str | None:
    """The path of a screen; of one about one thing, the first one that was linked to."""
    if "{" not in pattern:
        return pattern
    form = re.compile(re.sub(r"\{[^}]+\}", "[^/?]+", pattern) + r"(\?.*)?")
    return next((one for one in sorted(links) if form.fullmatch(one)), None)


def _screen(
    client: httpx.Client, path: str, repeats: int, cpu_s: Callable[[], float | None]
) -> tuple[Json, set[str]]:
    answer = client.get(path)
    if answer.is_error:
        raise SandboxError(
            need=f"the screen {path}", found=f"status {answer.status_code}", remedy="see broker.log"
        )
    links = {one.replace("&amp;", "&") for one in _LINK.findall(answer.text)}
    assets = [one for one in links if "/static/" in one]
    page, before = _kb(answer.content), cpu_s()
    times, after = _times(client, path, repeats), cpu_s()
    spent = None if before is None or after is None else 1000 * (after - before) / (repeats + _WARM_UP)
    figures: Json = {
        "path": path,
        **_quantiles(times),
        "cpu_ms": None if spent is None else round(spent, 2),
        "page_kb": round(page, 1),
        "with_assets_kb": round(page + sum(_kb(client.get(one).content) for one in assets), 1),
    }
    return figures, {one for one in links if one.startswith("/") and "/static/" not in one}


def _times(client: httpx.Client, path: str, repeats: int) -> list[float]:
    """Milliseconds of each fetch, after those that warm up."""
    found = []
    for _ in range(_WARM_UP + repeats):
        start = time.perf_counter()
        client.get(path)
        found.append(1000 * (time.perf_counter() - start))
    return found[_WARM_UP:]


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[math.ceil(_P95 * len(ordered)) - 1], 2),
    }


def _kb(data: bytes) -> float:
    return len(gzip.compress(data, mtime=0)) / 1000


# --- the report ---


def _report(small: Mapping[str, Any], large: Mapping[str, Any]) -> Json:
    shown = large["screens"]
    before = small["screens"]
    per_screen = {
        name: one
        | {
            "small_p50_ms": before[name]["p50_ms"],
            "small_p95_ms": before[name]["p95_ms"],
            "small_cpu_ms": before[name]["cpu_ms"],
            "ratio": round(one["p50_ms"] / max(before[name]["p50_ms"], 0.01), 2),
            "cpu_ratio": _ratio(one["cpu_ms"], before[name]["cpu_ms"]),
        }
        for name, one in shown.items()
        if name in before
    }
    return {
        "floor_ms": large["floor_ms"],
        "screens": per_screen,
        "p95_ms": max((one["p95_ms"] for one in per_screen.values()), default=None),
        "page_kb": max((one["with_assets_kb"] for one in per_screen.values()), default=None),
        "cpu_ms": _most(per_screen, "cpu_ms"),
        "ratio": max((one["ratio"] for one in per_screen.values()), default=None),
        "cpu_ratio": _most(per_screen, "cpu_ratio"),
        "not_reached": [name for name in dict([*screens(), *screens("auditor")]) if name not in per_screen],
    }


def _ratio(large: float | None, small: float | None) -> float | None:
    return None if large is None or not small else round(large / small, 2)


def _most(per_screen: Mapping[str, Json], name: str) -> float | None:
    return max((one[name] for one in per_screen.values() if one[name] is not None), default=None)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `run` found, for a terminal, the slowest screen first."""
    small = found["small"]
    head = (
        "screen",
        "p50 ms",
        "p95 ms",
        f"p95 at {small}",
        "ratio",
        "CPU ms",
        "CPU ratio",
        "kB",
        "with assets",
    )
    yield f"{head[0]:<20}" + "".join(f"{one:>14}" for one in head[1:])
    for name, one in sorted(found["screens"].items(), key=lambda item: -item[1]["p95_ms"]):
        cells = (
            one["p50_ms"],
            one["p95_ms"],
            one["small_p95_ms"],
            one["ratio"],
            "" if one["cpu_ms"] is None else one["cpu_ms"],
            "" if one["cpu_ratio"] is None else one["cpu_ratio"],
            one["page_kb"],
            one["with_assets_kb"],
        )
        yield f"{name:<20}" + "".join(f"{value:>14}" for value in cells)
    yield (
        f"worst: p95 {found['p95_ms']} ms, CPU {found['cpu_ms']} ms, {found['page_kb']} kB with assets, "
        f"ratio {found['ratio']}, of CPU {found['cpu_ratio']}"
    )
    yield f"a page without content takes {found['floor_ms']} ms; {found['rows']} entries, {found['database']}"
    if found["not_reached"]:
        yield f"not reached by a link: {' '.join(found['not_reached'])}"
