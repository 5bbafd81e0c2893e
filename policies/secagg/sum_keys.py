# SPDX-License-Identifier: Apache-2.0
"""What a member checks opened sums with: of each setup of a run its digests, members, and their common key.

It outlives the setups themselves, and the contract under which they were made: a sum is shown in the next
round, which may have another setup. It opens nothing: masks are under other keys. In memory only, like them.

    keys.keep(held, terms)                      # once a setup is opened
    terms = keys.check(previous, sums)          # those of its setup; None: this node was no member of it
    keys.forget(previous.setup)                 # older setups have no newer sum

"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.limits import SECAGG_SETUPS_KEPT
from policies.secagg import group_mac
from policies.secagg.contexts import Context, mac_key, mac_offset
from policies.secagg.dealing import Secret
from policies.secagg.errors import ContextMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from policies.secagg.asks import Previous
    from policies.secagg.holding import Holding
    from policies.secagg.terms import Terms

__all__ = ["SumKeys"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kept:
    terms: Terms
    setup: bytes
    seal: bytes
    members: tuple[str, ...]
    group: Secret = field(repr=False)


class SumKeys:
    """The setups of one run that this process was a member of, the newest `SECAGG_SETUPS_KEPT`.

    Attributes:
        confirmed: The newest round that this process confirmed a set of, so that its sum may have been
            opened; 0 for none.
    """

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self.confirmed = 0

    def keep(self, held: Holding, terms: Terms) -> None:
        """Keeps what an opened setup has."""
        self._kept[held.frame.number] = _Kept(
            terms=terms, setup=held.setup, seal=held.seal, members=held.members, group=Secret(held.group)
        )
        while len(self._kept) > SECAGG_SETUPS_KEPT:
            del self._kept[min(self._kept)]

    def forget(self, before: int) -> None:
        """Drops setups with a number below: a newer sum was shown."""
        for number in [one for one in self._kept if one < before]:
            del self._kept[number]

    def context(self, said: Previous) -> Context | None:
        """The context of a sum; None where this node was no member of its setup, or lost its keys.

        Raises:
            ContextMismatchError: It is no sum of that setup's members.
        """
        kept = self._kept.get(said.setup)
        if kept is None:
            return None
        members = sorted(one for team in said.teams for one in team)
        if members != sorted(kept.members) or not set(said.online) <= set(members):
            raise ContextMismatchError(
                need="a sum of the members of its setup",
                found="one of others",
                remedy="compare the digests of both sides; usually an old message",
            )
        return Context(
            setup=kept.setup,
            seal=kept.seal,
            round=said.round,
            attempt=said.attempt,
            base_model=said.base_model,
            server=said.server,
            members=kept.members,
            teams=said.teams,
            nonces=said.nonces,
        )

    def check(self, said: Previous, sums: Sequence[NDArray[np.uint32]]) -> Terms | None:
        """Looks at the tag of each opened team's sum.

        Args:
            said: Which sums they are.
            sums: Per opened team ``uint32 [d]``.

        Returns:
            The terms of their setup; None as `context`.

        Raises:
            SumWrongError: One is not the sum that the members' tags add up to.
            ContextMismatchError: As `context`.
        """
        context, kept = self.context(said), self._kept.get(said.setup)
        if context is None or kept is None:
            return None
        group, ctx = kept.group.reveal(), context.digest(kept.terms)
        key = mac_key(group, seal=kept.seal, ctx=ctx)
        offset = mac_offset(group, seal=kept.seal, ctx=ctx)
        for parties, tags, z in zip(said.supports, said.tags, sums, strict=True):
            group_mac.check(key, z, (tags - offset * len(parties)) % 2**64)
        return kept.terms
