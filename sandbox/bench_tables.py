# SPDX-License-Identifier: Apache-2.0
"""Figures of measurements as tables on a terminal, and how long a measurement takes, said before it starts.

A time is a forecast for one or two free cores of an ordinary machine; nothing depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sandbox.recipes import rounds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandbox.study import StudyOptions

__all__ = ["dp_before", "dp_lines", "pooling_before", "pooling_lines", "secagg_before", "secagg_lines"]

Json = Any  # a JSON value

_TURN_S: Final = 13.0  # of all ways in all rows
_MEMORY_S: Final = 100.0  # a process for each row and way
_RECORD_S: Final = 0.02  # an episode, in one of four cells
_ROLLOUT_S: Final = 0.03  # likewise
_DRAWN_S: Final = 0.0005  # a unit that a private step draws
_PRIVATE_Q: Final = 0.2
_PLAIN_S: Final = 10.0  # training without privacy
_START_S: Final = 5.0
_CELLS: Final = 4
_TURNS: Final = 3
_VALUE_S: Final = 5e-8  # per party and parameter: drawn, quantised twice, masked
_NAME: Final = 34
_WAYS: Final = ("sgd", "opacus_hooks", "opacus_ghost", "packed", "loop")


def _takes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"takes about {minutes} minute{'s' if minutes > 1 else ''} on an idle machine"


# --- bench dp ---


def dp_before(repeats: int) -> str:
    """What is said before `sandbox.bench_dp` measures."""
    took = _takes(_MEMORY_S + _TURN_S * (repeats + 1))
    return (
        f"bench dp: {repeats} turns of each way on one thread, then memory in processes of their own; {took}"
    )


def dp_lines(found: Mapping[str, Json]) -> Iterator[str]:
    """Milliseconds, megabytes and ratios of `sandbox.bench_dp.run`, one row per model."""
    ways = (*_WAYS, "noise")
    yield from _table("CPU milliseconds of one step", ways, found["rows"], "_ms", "{:.1f}")
    yield ""
    yield from _table("megabytes at the peak of one step", _WAYS, found["rows"], "_mb", "{:.1f}")
    yield ""
    names = tuple(found["rows"][0]["ratios"]) if found["rows"] else ()
    yield f"{'ratios':{_NAME}}" + "".join(f"{one.replace('_to_', '/'):>22}" for one in names)
    for row in found["rows"]:
        yield f"{row['model']:{_NAME}}" + "".join(
            f"{_cell(row['ratios'][one], '{:.2f}'):>22}" for one in names
        )
    yield ""
    yield f"torch {found['torch']}, {found['threads']} thread, median of {found['repeats']} turns"


def _table(
    head: str, ways: tuple[str, ...], rows: list[Mapping[str, Json]], unit: str, form: str
) -> Iterator[str]:
    yield f"{head:{_NAME}}" + "".join(f"{one.replace('_', ' '):>14}" for one in ways)
    for row in rows:
        yield f"{row['model']:{_NAME}}" + "".join(f"{_cell(row[one + unit], form):>14}" for one in ways)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


# --- bench pooling ---


def pooling_before(options: StudyOptions) -> str:
    """What is said before `sandbox.study` runs."""
    trained = _CELLS * rounds_of(options.noise) * _PRIVATE_Q * options.episodes * _DRAWN_S
    acts = _CELLS * options.rollouts * _ROLLOUT_S * (2 if options.seed_episodes else 1)
    recorded = _CELLS * (options.episodes + options.seed_episodes) * _RECORD_S
    one = _START_S + recorded + acts + (_PLAIN_S if options.epsilon is None else trained)
    workers = max(1, min(options.workers, len(options.seeds)))
    turns = -(-len(options.seeds) // workers)
    return (
        f"bench pooling: seeds {len(options.seeds)}, {workers} at a time; {_takes(turns * one)}; recordings "
        f"are kept in {options.folder}"
    )


def pooling_lines(found: Mapping[str, Json]) -> Iterator[str]:
    """Success of the common model in `sandbox.study.run`, seed by seed, and the means."""
    plan, settings = found["plan"], found["settings"]
    yield from found["marking"]
    if plan is not None:
        yield (
            f"epsilon {plan['epsilon_rdp']} at delta {plan['delta']}, noise {plan['noise']}, "
            f"{settings['episodes']} episodes per cell, {settings['seed_episodes']} donated"
        )
    yield ""
    columns = [name for name in ("start", "common") if found[name] is not None]
    yield f"{'seed':10}" + "".join(f"{name:>20}" for name in columns)
    for row in found["rows"]:
        yield f"{row['seed']!s:10}" + "".join(_rate(row[name]) for name in columns)
    yield f"{'all':10}" + "".join(_rate(found[name]) for name in columns)
    for cell in found["common"]["per_cell"]:
        rates = "".join(_rate(found[name]["per_cell"][cell]) for name in columns)
        yield f"{'cell ' + cell:10}{rates}"
    spread = found["common"]["spread"]
    if spread is not None:
        yield f"standard deviation of the common model over seeds: {spread:.3f}"


def _rate(rate: Mapping[str, Json]) -> str:
    low, high = rate["interval"]
    return f"{rate['mean']:.2f} [{low:.2f}, {high:.2f}]".rjust(20)


# --- bench secagg ---


def secagg_before(parties: int, dim: int) -> str:
    """What is said before `sandbox.bench_secagg` measures."""
    took = _takes(_TURNS * (_START_S + _VALUE_S * parties * dim))
    return f"bench secagg: {_TURNS} rounds of {parties} parties with {dim:,} parameters; {took}"


def secagg_lines(found: Mapping[str, Json]) -> Iterator[str]:
    """Seconds, bytes and memory of `sandbox.bench_secagg.run`, ours and Flower's side by side."""
    yield (
        f"{found['parties']} parties, {found['dim']:,} parameters ({found['vector_mb']:g} MB), "
        f"{found['drop'] or 'none'} {'vanishes' if found['drop'] == 1 else 'vanish'} before they send"
    )
    yield f"{'':{_NAME}}{'here':>14}{'Flower':>14}"
    rows = (
        ("CPU seconds of a client", "client_cpu_s", "{:.3f}"),
        ("bytes sent, to float32", "bytes_ratio", "{:.4f}"),
        ("megabytes at the peak of masking", "peak_mb", "{:.1f}"),
    )
    for words, name, form in rows:
        both = (_cell(found[name], form), _cell(found["flower_" + name], form))
        yield f"{words:{_NAME}}" + "".join(f"{one:>14}" for one in both)
    yield f"{'CPU seconds of the broker':{_NAME}}{found['server_cpu_s']:>14.3f}{'-':>14}"
    if found["ratio"] is not None:
        yield f"a client of Flower's takes {found['ratio']:.1f} times the CPU seconds"
    yield "the opened sum is " + ("" if found["exact"] else "NOT ") + "the plain sum, value by value"
