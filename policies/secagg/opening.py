# SPDX-License-Identifier: Apache-2.0
"""What an opened sum is over, and which masks are left in it, by the secrets that were revealed for it.

Own masks of all survivors, and for each missing member u and survivor v the mask that they share, which v
added. Masks between two survivors cancelled. Broker and verifier take off the same.

    masks.unmask(total, removed(context, terms, team=team, online=online, secrets=secrets, publics=publics,
                                lane=Lane.VECTOR))

Standard library and `cryptography` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.secagg.contexts import pair_masks, self_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.secagg.contexts import Context, Lane
    from policies.secagg.keystream import Signed
    from policies.secagg.terms import Terms

__all__ = ["OpenedSum", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSum:
    """What one attempt opened: the online members of each opened team."""

    round: int
    attempt: int
    supports: tuple[tuple[str, ...], ...]


def removed(
    context: Context,
    terms: Terms,
    *,
    team: Sequence[str],
    online: Iterable[str],
    secrets: Mapping[str, bytes],
    publics: Mapping[str, bytes],
    lane: Lane,
) -> tuple[Signed, ...]:
    """Masks that are in the sum of a team's survivors, each with the sign it was added with.

    Args:
        context: Of the attempt.
        terms: Of the run.
        team: All its members.
        online: Those whose vectors are in the sum.
        secrets: Of each member of the team: b if it is online, else the private bytes of s.
        publics: X25519 key of each member's slot.
        lane: Vector or counts.
    """
    ctx, seal, inside = context.digest(terms), context.seal, set(online)
    present = [(terms.position(one), one) for one in team if one in inside]
    own = [(1, self_key(secrets[one], seal=seal, lane=lane, ctx=ctx, position=at)) for at, one in present]
    others = [(at, publics[one]) for at, one in present]
    pairs = [
        (-sign, key)  # as the survivor added it: with the other sign than the missing member would have
        for missing in team
        if missing not in inside
        for sign, key in pair_masks(
            secrets[missing], own=terms.position(missing), others=others, seal=seal, ctx=ctx, lane=lane
        )
    ]
    return (*own, *pairs)
