# SPDX-License-Identifier: Apache-2.0
"""The opened sums of an attempt: one of everybody, or in a probe one of each team that kept enough groups.

- Of one sum, everybody's or the only team's that could be opened, the mean must be what honest members can
  make; else nothing of the round is used.
- Of several, a team beyond the bound is left out (`Sums.failed`), and the judges choose among the others
  (`broker.federation.probing`). A team that kept too few groups was never opened.

    sums.sole()                    # `Summed`, where there is one
    sums.joined([0, 2])            # `Summed` over two teams
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from policies.encoding import digest
from policies.robustness.norms import noise_room, norm_test, rounding_room
from policies.secagg.errors import SumWrongError
from policies.secagg.ring import mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from policies.robustness.norms import NormFinding
    from policies.secagg.terms import Terms

__all__ = ["Choice", "Summed", "Sums", "TeamSum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamSum:
    """An opened sum: number of its team, parties behind it (sorted), ring values and their digest."""

    number: int
    parties: tuple[str, ...]
    z: npt.NDArray[np.uint32]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of a probe's teams, as ``round.chosen`` says it.

    Attributes:
        base, against: Digests: the round's base model, and the last accepted one.
        transcript: Digest.
        opened: Numbers of the teams whose sums were opened.
        failed: Of them, those beyond the norm bound.
        chosen: Those that make the model; none: it goes back to the accepted one.
        judges: Answers that counted; ``refs`` their entries.
        rejected_rounds: Rejected rounds in a row, this one included.
        back_to: Digest of the accepted model; None before the first.
        left_out: Parties of opened teams that are not in the model, by team.
    """

    base: str
    against: str
    transcript: str
    opened: tuple[int, ...]
    failed: tuple[int, ...]
    chosen: tuple[int, ...]
    judges: int
    refs: tuple[int, ...]
    rejected_rounds: int
    back_to: str | None
    left_out: tuple[tuple[str, ...], ...]

    @property
    def rejected(self) -> bool:
        """Whether judges chose none of the teams that they were asked about."""
        return not self.chosen and len(self.failed) < len(self.opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """A sum that makes a model, or in a probe none.

    Attributes:
        online: Parties whose updates are in it, sorted; none where no team was chosen.
        aggregate: Digest of the ring sum's bytes.
        transcript: Digest of the transcript, which is on the disk.
        mean: ``[d]``, weighted mean of their updates.
        choice: Of a probe's teams, else None.
    """

    online: tuple[str, ...]
    aggregate: str
    transcript: str
    mean: npt.NDArray[np.float64]
    choice: Choice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Every opened sum of an attempt.

    Attributes:
        teams: In the order of their numbers.
        transcript: Digest of the transcript, which is on the disk.
        terms: Of the run.
        noise_std: Members → per value of their mean, the noise that they add behind their clip.
    """

    teams: tuple[TeamSum, ...]
    transcript: str
    terms: Terms
    noise_std: Callable[[int], float]

    @property
    def probe(self) -> bool:
        """Whether there are teams to choose from."""
        return len(self.teams) > 1

    def sole(self) -> Summed:
        """The only sum.

        Raises:
            SumWrongError: Its mean is beyond the bound: some member did not clip.
        """
        (team,) = self.teams
        found = self._norm(team)
        if not found.passed:
            raise SumWrongError(
                need=f"a mean of norm at most {found.most:.6g}",
                found=f"{found.norm:.3g}",
                remedy="some member did not clip; the round is not applied",
                clause=self.terms.clause,
            )
        return self.joined((team.number,))

    def failed(self) -> tuple[int, ...]:
        """Numbers of the teams whose mean is beyond the bound."""
        return tuple(one.number for one in self.teams if not self._norm(one).passed)

    def joined(self, numbers: Sequence[int]) -> Summed:
        """One sum over some of the teams."""
        chosen = [one for one in self.teams if one.number in numbers]
        z = np.sum([one.z for one in chosen], axis=0, dtype="<u4")
        online = tuple(sorted(party for one in chosen for party in one.parties))
        return Summed(
            online=online,
            aggregate=digest(np.ascontiguousarray(z).tobytes()),
            transcript=self.transcript,
            mean=mean(z, self.terms, online),
        )

    def none(self, choice: Choice) -> Summed:
        """No sum: no team was chosen."""
        return Summed(online=(), aggregate="", transcript=self.transcript, mean=np.zeros(0), choice=choice)

    def _norm(self, team: TeamSum) -> NormFinding:
        terms, members = self.terms, len(team.parties)
        room = rounding_room(members=members, step=terms.kappa(team.parties), size=terms.dimension)
        room += noise_room(self.noise_std(members), terms.dimension)
        return norm_test(mean(team.z, terms, team.parties), bound=terms.norm_max, room=room)
