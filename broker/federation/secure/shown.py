# SPDX-License-Identifier: Apache-2.0
"""Which opened sums a member is shown beside the base model, to see what the model was made of.

- Everybody is shown every sum since the last one that it took part in: in the normal case the newest, and one
  who missed rounds those too. At most `SECAGG_SHOWN`, of the last setups as of this one.
- Who lost the thread, because it was started anew or was in no setup for a while, is sent the model before
  the newest sum along, with the server's state, once it can check that sum. Its own ``secagg.behind`` is
  needed only where this broker cannot know.
- A sum that members find wrong is shown no more (`broker.federation.withdrawing`).

No signature and no mask is bound to any of it: requests of one attempt may differ here. After a restart
everything is read from the files again, but for who lost the thread: such a member says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.federation.checkpoints import model_bytes, model_digest
from broker.federation.secure.earlier import Earlier
from policies.limits import SECAGG_SHOWN
from policies.secagg.asks import Resume
from policies.server_step import state_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from broker.federation.checkpoints import Checkpoint, Checkpoints
    from broker.federation.secure.files import Files
    from policies.secagg.asks import Previous

    Slot = tuple[int, int]

__all__ = ["Base", "Beside", "Shown"]

_SAID_BYTES: Final = 16 * 1024  # of what an ask says of sums: it travels in a request's header


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What an attempt begins with: the newest checkpoint, and the server's steps before it."""

    checkpoint: Checkpoint
    step: int

    @property
    def model(self) -> str:
        """Digest of the model."""
        return model_digest(self.checkpoint.weights)

    @property
    def server(self) -> str:
        """Digest of the server's state."""
        return state_digest(self.checkpoint.state, self.step)

    def resume(self) -> Resume:
        """What an ask says of it."""
        return Resume(base_model=self.model, server=self.server, step=self.step)

    def to_bytes(self) -> bytes:
        """As it is sent along: weights, and state in order of name."""
        state = self.checkpoint.state
        return model_bytes(self.checkpoint.weights) + b"".join(
            state[name].astype("<f8").tobytes() for name in sorted(state)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What lies behind the base model for one member.

    Attributes:
        said: Of each sum, oldest first.
        resume: Of the model that is sent along.
        tensor: Their bytes.
    """

    said: tuple[Previous, ...] = ()
    resume: Resume | None = None
    tensor: bytes = field(default=b"", repr=False)


class Shown:
    """The opened sums of one run."""

    def __init__(self, files: Files, checkpoints: Checkpoints, *, size: int) -> None:
        self._files = files
        self._checkpoints = checkpoints
        self._size = size
        self._said: dict[Slot, Previous] = {}
        self._newest: Earlier | None = None
        self._behind: set[str] = set()
        for slot in files.sums():
            if (found := Earlier.read(files.sum_of(slot))) is not None:
                self._said[slot], self._newest = found.said, found

    def keep(self, earlier: Earlier) -> None:
        """Keeps a sum that was opened now."""
        slot = earlier.said.at
        self._files.save_sum(slot, earlier.to_bytes())
        self._newest = earlier
        self._said = {at: said for at, said in self._said.items() if at in self._files.sums()}
        self._said[slot] = earlier.said

    def drop(self, slot: Slot) -> None:
        """Shows a sum no more."""
        self._files.drop_sum(slot)
        self._said.pop(slot, None)
        self._newest = None

    def lost(self, parties: Iterable[str]) -> None:
        """Notes who lost the thread."""
        self._behind |= set(parties)

    def followed(self, parties: Collection[str]) -> None:
        """Notes whose vectors came after the model was sent along to them."""
        self._behind -= set(parties)

    def newest(self, number: int) -> Earlier | None:
        """The newest sum that was opened before a round."""
        slots = self._before(number)
        return self._read(slots[-1]) if slots else None

    def beside(self, party: str, number: int, setup: int, base: Base) -> Beside:
        """What a member is shown beside the base model.

        Args:
            party: Whom.
            number: Of the round that is asked for.
            setup: Number of its setup.
            base: What it begins with.
        """
        slots = self._before(number)
        if not slots:
            return Beside()
        lost = self._is_behind(party, slots)
        mine = [at for at in slots if party in self._said[at].online]
        since = slots[-1:] if lost else [at for at in slots if not mine or at >= mine[-1]]
        sums = [one for at in since if (one := self._read(at)) is not None]
        resume = self._resume(slots[-1], base) if lost and self._said[slots[-1]].setup == setup else None
        tensor = [one.z for one in sums] + ([] if resume is None else [resume.to_bytes()])
        return Beside(
            said=tuple(one.said for one in sums),
            resume=None if resume is None else resume.resume(),
            tensor=b"".join(tensor),
        )

    def _before(self, number: int) -> list[Slot]:
        """Slots of sums of earlier rounds, oldest first, as many as an ask has room for."""
        left, room = SECAGG_SHOWN, _SAID_BYTES
        found: list[Slot] = []
        for at in sorted((one for one in self._said if one[0] < number), reverse=True):
            left -= len(self._said[at].opened)
            room -= len(self._said[at].to_bytes())
            if found and min(left, room) < 0:
                break
            found.insert(0, at)
        return found

    def _is_behind(self, party: str, slots: list[Slot]) -> bool:
        """Whether a member cannot have followed up to the newest sum."""
        mine = [at for at in slots if party in self._said[at].online]
        if party in self._behind or mine[-1:] != slots[-1:]:
            return party in self._behind
        since = mine[-2] if len(mine) > 1 else (0, 0)
        return any(party not in _members(self._said[at]) for at in slots if since < at < slots[-1])

    def _resume(self, slot: Slot, base: Base) -> Base | None:
        """The model before a sum; where members went back to another one since, that one."""
        said = self._said[slot]
        if base.checkpoint.round != said.round:
            return base
        found = self._checkpoints.named(said.base_model, size=self._size)
        if found is None:
            return None
        before = Base(checkpoint=found, step=base.step - 1)
        return before if before.server == said.server else None

    def _read(self, slot: Slot) -> Earlier | None:
        if self._newest is not None and self._newest.said.at == slot:
            return self._newest
        return Earlier.read(self._files.sum_of(slot))


def _members(said: Previous) -> set[str]:
    return {one for team in said.teams for one in team}
