# SPDX-License-Identifier: Apache-2.0
"""What a probe round asks a judge: the models that each union of its teams gives, made by this node itself.

The request names, by digest, the last accepted model, the round's base model and the opened sum of each team,
with the members behind each sum; the tensor (``uint32``) has them in this order, and behind them the state of
the server's optimiser:

    float32 bits [d] against | float32 bits [d] base | per team uint32 [d] sum | per state float64 bits [2d]

1. teams are as many as a probe may have, of members of the contract, nobody in two, each with as many
   independent groups as a sum may be opened over;
2. the tensor has the digests that are named;
3. the model of a union is the recipe's server step on the mean of its sums, as everybody computes it.

A sum that is none of this round is a wrong question, and a paid one; the digests are signed with the answer,
and an auditor holds them against the transcript (AUD-094).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from client.errors import DigestMismatchError
from client.secagg.agreed import terms_here
from policies.encoding import digest, is_digest
from policies.exchange import tensor_bytes
from policies.limits import TEAMS_MAX
from policies.robustness.scores import candidates, probe_subject
from policies.secagg.errors import ContextMismatchError
from policies.secagg.ring import mean
from policies.server_step import initial_state, server_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.seat import Seat
    from policies.exchange import RequestHeader
    from policies.privacy.plan import EvalPlan
    from policies.secagg.terms import Terms

__all__ = ["Probe", "asks_about_teams"]


def asks_about_teams(header: RequestHeader) -> bool:
    """Whether a request to judge is about a probe's teams."""
    return "sums" in header.body


class Probe:
    """The question about one probe.

    Attributes:
        kind: Of the entry that answers it.
        named: Digests that the answer names.
        subject: Its name in budget entries.
    """

    kind = "round.scored"

    def __init__(self, header: RequestHeader, seat: Seat) -> None:
        """Step 1.

        Raises:
            ContextMismatchError: It does not hold.
            CohortTooSmallError: A sum over too few.
        """
        body, terms = header.body, terms_here(seat, header.run)
        self.named: Mapping[str, Any] = {name: body.get(name) for name in ("base", "against", "sums")}
        self._teams, sums, step = _teams(body.get("teams"), terms), self.named["sums"], body.get("step")
        if (
            not isinstance(sums, list)
            or len(sums) != len(self._teams)
            or not all(map(is_digest, [*sums, self.named["base"], self.named["against"]]))
            or type(step) is not int
            or step < 0
        ):
            raise _other("the digest of a sum for each team, two models, and the server's step", "others")
        self._step: int = step
        self.subject = probe_subject(run=header.run, number=header.round, **self.named)
        self._terms, self._options = terms, seat.recipe.server

    def models(self, tensor: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        """Steps 2 and 3.

        Raises:
            DigestMismatchError: Another tensor than the request names.
        """
        size, names = self._terms.dimension, sorted(initial_state(np.zeros(1), self._options))
        parts = 2 + len(self._teams) + 2 * len(names)
        if tensor.dtype.name != "uint32" or tensor.shape != (parts * size,):
            raise _mismatch(f"uint32 [{parts * size}]")
        words = tensor[: (2 + len(self._teams)) * size].reshape(-1, size)
        wanted = [self.named["against"], self.named["base"], *self.named["sums"]]
        if [digest(tensor_bytes(one)) for one in words] != wanted:
            raise _mismatch("the models and sums that the request names")
        floats = tensor[words.size :].view("<f8").reshape(len(names), size)
        state = {name: values for name, values in zip(names, floats, strict=True)}  # noqa: C416  typed
        base, sums = words[1].view("<f4"), words[2:]
        return [self._model(base, sums, state, sorted(one)) for one in self._unions()], words[0].view("<f4")

    def said(self, gains: Sequence[int], _plan: EvalPlan) -> Mapping[str, Any]:
        """The figures themselves: they are noised for leaving."""
        return {"gains": list(gains)}

    def _unions(self) -> tuple[frozenset[int], ...]:
        return candidates(len(self._teams))

    def _model(
        self, base: np.ndarray, sums: np.ndarray, state: dict[str, np.ndarray], union: Sequence[int]
    ) -> np.ndarray:
        total = sums[list(union)].sum(axis=0, dtype=np.uint32)
        parties = tuple(sorted(chain.from_iterable(self._teams[one] for one in union)))
        update = mean(total, self._terms, parties)
        weights, _ = server_step(base, update, state, self._options, self._step)
        return weights.astype(np.float32)


def _teams(value: object, terms: Terms) -> tuple[tuple[str, ...], ...]:
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= TEAMS_MAX
        or not all(isinstance(one, list) and all(type(name) is str for name in one) for one in value)
    ):
        raise _other(f"1 to {TEAMS_MAX} teams of members", "others")
    everybody = [name for team in value for name in team]
    if len(set(everybody)) != len(everybody):
        raise _other("each member in one team", "one in two")
    for team in value:
        terms.check_team(team)
    return tuple(tuple(one) for one in value)


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(need=need, found=found, remedy="update node or broker; nothing was spent")


def _mismatch(need: str) -> DigestMismatchError:
    return DigestMismatchError(need=need, found="another tensor", remedy="ask again")
