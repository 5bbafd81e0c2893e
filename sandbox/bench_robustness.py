# SPDX-License-Identifier: Apache-2.0
"""What defences on sums are worth: attacks times defences, error on honest held-out data.

Nine silos in teams of three that are drawn anew in each of twelve rounds. Attackers ignore the clip and send
``-a C`` along their own honest update. Partition, norm tests and votes are those of a federation
(`policies.contribution`, `policies.robustness`), and so is the noise on gains: what leaves a judge is
clipped to D per episode, noised for the clause's epsilon over its judgings, and rounded. Attackers lie as
judges, too: they send their gains with the other sign.

With that noise, about one clean round in a hundred loses a team to it (2 of 240 over seeds 0 to 19); without
it none does.

- ``nothing``: the mean of everybody.
- ``team-median``: per value, the median of the teams' means.
- ``veto``: the mean of everybody, or nothing: taken back unless a quorum accepts it.
- ``norm``: teams within the bound. ``vote``: the union of teams that the judges choose. ``both``: first one,
  then the other.

    run(seeds=(0, 1, 2))["rows"][0]["both"]["error"]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from policies.contribution.partition import chain, partition_seed, teams_of
from policies.robustness.norms import norm_test, team_norm_test
from policies.robustness.plan import votes_plan
from policies.robustness.votes import accepts, choose, nano, tally, unions
from sandbox.robustness_task import EPISODES, SIZE, make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from policies.contract.clauses import ValidationClause
    from sandbox.robustness_task import Task

__all__ = ["ATTACKS", "DEFENCES", "Attack", "lines", "run"]

Array = npt.NDArray[np.float64]
SILOS: Final = 9
ROUNDS: Final = 12
K_OPEN: Final = 3
CLIP: Final = 0.25  # C: the norm of a later update; the first ones are cut to it
GAIN_CLIP: Final = "0.05"  # D: about a tenth of the first model's loss
QUORUM: Final = "0.67"
EPSILON: Final = "2"
JUDGINGS: Final = 24
DEFENCES: Final = ("nothing", "team-median", "veto", "norm", "vote", "both")
_EVALUATION: Final = {"unit": "episode", "adjacency": "zero-out", "delta": "0.00001"}
_NAMES: Final = tuple(f"silo-{number}" for number in range(SILOS))
_GROUPS: Final = {name: name for name in _NAMES}
_LARGE: Final = 1e6  # a model beyond it has left the task; no number further out means anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """So many silos send minus ``strength`` times C along their update."""

    silos: int
    strength: float

    @property
    def name(self) -> str:
        """As in the table."""
        return "none" if not self.silos else f"{_counted(self.silos, 'silo')}, a = {self.strength:g}"


ATTACKS: Final = (
    Attack(silos=0, strength=0),
    Attack(silos=1, strength=1),
    *(Attack(silos=2, strength=one) for one in (1, 3, 5, 10)),
    Attack(silos=3, strength=10),
)


def run(
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    attacks: Sequence[Attack] = ATTACKS,
    defences: Sequence[str] = DEFENCES,
    noised: bool = True,
) -> dict[str, Any]:
    """The table.

    Args:
        seeds: Of data, start model, nonces and noise; figures are means over them.
        attacks: Rows.
        defences: Columns, of `DEFENCES`.
        noised: Whether gains carry the noise that their privacy asks for.

    Returns:
        ``rows`` with ``attack`` and, per defence, ``error`` (mean), ``worst`` and ``refused`` (mean number of
        the rounds in which something was left out); ``untrained``; what was assumed.
    """
    plan = votes_plan(_clause(), _EVALUATION) or {}
    multiplier = float(plan["noise_multiplier"]) if noised else 0.0
    rows = []
    for attack in attacks:
        row: dict[str, Any] = {"attack": attack.name}
        for defence in defences:
            found = [_Federation(seed, attack, multiplier).run(defence) for seed in seeds]
            row[defence] = {
                "error": _rounded(fmean(error for error, _ in found)),
                "worst": _rounded(max(error for error, _ in found)),
                "refused": round(fmean(refused for _, refused in found), 2),
            }
        rows.append(row)
    everybody = np.arange(SILOS)
    untrained = [make_task(seed, SILOS) for seed in seeds]
    return {
        "silos": SILOS,
        "rounds": ROUNDS,
        "seeds": list(seeds),
        "clip": CLIP,
        "votes": plan,
        "noised": noised,
        "untrained": _rounded(fmean(one.error(one.start, everybody) for one in untrained)),
        "rows": rows,
    }


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_NOTES: Final = (
    "figures: squared error on the honest silos' held-out data, mean over seeds; in brackets: the number of",
    "  rounds in which something was left out, mean over seeds",
    "a: each attacker sends minus a times the bound C along its own honest update, and lies as a judge",
    "nothing: the mean of everybody; team-median: per value, the median of the teams' means;",
    "  veto: the mean, or nothing where a quorum rejects it; norm: teams within C; vote: the teams that the",
    "  judges choose; both: norm, then vote",
)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The table as text, and what its rows, columns and figures are."""
    columns = [name for name in found["rows"][0] if name != "attack"]
    yield (
        f"{found['silos']} silos, {found['rounds']} rounds, {_counted(len(found['seeds']), 'seed')}; "
        f"error on honest held-out data, untrained {found['untrained']}"
    )
    yield f"{'attack':20}" + "".join(f"{name:>18}" for name in columns)
    for row in found["rows"]:
        cells = (f"{row[name]['error']:.4g} ({row[name]['refused']:g})" for name in columns)
        yield f"{row['attack']:20}" + "".join(f"{cell:>18}" for cell in cells)
    yield ""
    yield from _NOTES
    if {"nothing", "team-median"} <= set(columns):
        worse = sum(row["team-median"]["error"] > row["nothing"]["error"] for row in found["rows"])
        yield f"the team median was worse than no defence in {worse} of {len(found['rows'])} rows"


class _Federation:
    """One run: a seed, an attack, a defence."""

    def __init__(self, seed: int, attack: Attack, multiplier: float) -> None:
        self._task: Task = make_task(seed, SILOS)
        self._attack = attack
        self._seed = seed
        self._honest = np.arange(attack.silos, SILOS)
        self._noise = np.random.default_rng([seed, attack.silos, int(attack.strength)])
        self._multiplier = multiplier
        self._chains = [chain(bytes([seed % 256, number]) * 16, ROUNDS) for number in range(SILOS)]

    def run(self, defence: str) -> tuple[float, int]:
        """Error of the last model, and in how many rounds something was left out."""
        step = self._defences()[defence]
        model, refused = self._task.start, 0
        for number in range(ROUNDS):
            updates = self._task.updates(model, clip=CLIP)
            bad = updates[: self._attack.silos]
            norms = np.maximum(np.linalg.norm(bad, axis=1, keepdims=True), 1e-12)
            updates[: self._attack.silos] = -self._attack.strength * CLIP * bad / norms
            change, all_in = step(model, updates, self._teams(number))
            model, refused = np.clip(model + change, -_LARGE, _LARGE), refused + (not all_in)
        return self._task.error(model, self._honest), refused

    def _teams(self, number: int) -> tuple[tuple[int, ...], ...]:
        nonces = [one[number] for one in self._chains]
        seed = partition_seed(contract="bench", run=f"run_{self._seed}", number=number, nonces=nonces)
        teams = teams_of(seed, groups=_GROUPS, k_open=K_OPEN)
        return tuple(tuple(_NAMES.index(name) for name in team) for team in teams)

    def _defences(self) -> Mapping[str, Callable[..., tuple[Array, bool]]]:
        return {
            "nothing": lambda _model, updates, _teams: (updates.mean(axis=0), True),
            "team-median": lambda _model, updates, teams: (np.median(_means(updates, teams), axis=0), True),
            "veto": self._veto,
            "norm": lambda _model, updates, teams: _joined(updates, teams, _within(updates, teams)),
            "vote": lambda model, updates, teams: self._vote(model, updates, teams, teams),
            "both": lambda model, updates, teams: self._vote(model, updates, teams, _within(updates, teams)),
        }

    def _veto(self, model: Array, updates: Array, _teams: Sequence[Sequence[int]]) -> tuple[Array, bool]:
        mean = updates.mean(axis=0)
        if not norm_test(mean, bound=math.inf).passed:
            return np.zeros(SIZE), False
        gains = self._gains(model, np.stack([mean]), 1)[0]
        votes = {name: accepts(int(gain), GAIN_CLIP) for name, gain in zip(_NAMES, gains, strict=True)}
        stands = tally(votes, groups=_GROUPS, quorum=QUORUM, least=K_OPEN).accepted
        return (mean, True) if stands else (np.zeros(SIZE), False)

    def _vote(
        self,
        model: Array,
        updates: Array,
        teams: Sequence[tuple[int, ...]],
        passed: Sequence[tuple[int, ...]],
    ) -> tuple[Array, bool]:
        if not passed:
            return np.zeros(SIZE), False
        candidates = [one for one in unions(len(passed)) if one]
        changes = np.stack([updates[[i for t in one for i in passed[t]]].mean(axis=0) for one in candidates])
        gains = self._gains(model, changes, len(candidates))
        judges = [{one: int(gains[at, judge]) for at, one in enumerate(candidates)} for judge in range(SILOS)]
        noise = nano(self._sigma(len(candidates)))
        chosen = choose(judges, teams=len(passed), gain_clip=GAIN_CLIP, noise_nano=noise)
        return _joined(updates, teams, [passed[one] for one in sorted(chosen)])

    def _gains(self, model: Array, changes: Array, asked: int) -> npt.NDArray[np.int64]:
        """``[models, judges]`` in billionths: clipped, noised, rounded; attackers turn the sign."""
        most = float(GAIN_CLIP)
        with np.errstate(over="ignore", invalid="ignore"):
            before = self._task.episode_losses(model[None])
            fall = before - self._task.episode_losses(np.clip(model + changes, -_LARGE, _LARGE))
        clipped = np.clip(np.where(np.isfinite(fall), fall, -most), -most, most)
        gains = clipped.mean(axis=2) + self._sigma(asked) * self._noise.standard_normal(clipped.shape[:2])
        gains[:, : self._attack.silos] *= -1
        return np.array([[nano(float(one)) for one in row] for row in gains], dtype=np.int64)

    def _sigma(self, asked: int) -> float:
        """Standard deviation of the noise on each of so many gains that one judging gives away."""
        return self._multiplier * float(GAIN_CLIP) * math.sqrt(asked) / EPISODES


def _means(updates: Array, teams: Sequence[Sequence[int]]) -> Array:
    return np.stack([updates[list(team)].mean(axis=0) for team in teams])


def _within(updates: Array, teams: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    means = {tuple(_NAMES[one] for one in team): updates[list(team)].mean(axis=0) for team in teams}
    passed = team_norm_test(means, bound=CLIP)
    return [tuple(_NAMES.index(name) for name in team) for team in passed]


def _joined(
    updates: Array, teams: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]]
) -> tuple[Array, bool]:
    """The mean over the chosen teams, and whether that is everybody."""
    inside = [one for team in chosen for one in team]
    mean = updates[inside].mean(axis=0) if inside else np.zeros(SIZE)
    return mean, len(chosen) == len(teams)


def _clause() -> ValidationClause:
    numbers = {"gain_clip": GAIN_CLIP, "epsilon": EPSILON, "judge_episodes": EPISODES}
    return cast("ValidationClause", SimpleNamespace(**numbers, max_judgings=JUDGINGS))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
