# SPDX-License-Identifier: Apache-2.0
"""How an update leaves under secure aggregation: masked, so that nothing but a sum over many can be seen.

`Masked.open`, before the tensor is pulled and before anything is spent:

1. the tensor has the form that the contract's ``group_mac`` asks for: the base model, and where sums carry
   a tag what the ask says behind it, opened sums and maybe a model (`client.secagg.thread`);
2. there is a setup of this run in this process (`client.secagg.machines`);
3. the machine admits the attempt: its slot is fresh, and round, teams, base model and members are those of
   its own terms (`policies.secagg.node.NodeMachine.admit`).

Then, with the tensor: the base model has the digest that the request names, and what it follows from holds
(`client.secagg.following`). A sum whose tag was checked there is named in the submission (``checked``: round,
attempt, digest), so that whoever holds the log sees whether the broker logged another one. After training the
update is kept for a second attempt (`client.secagg.updates`). It is clipped as a whole to the contract's
norm, put on the ring and masked in one go; grid values of noise shares are only looked at, never clipped.
Under the same slot nothing is ever masked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from client.contributing import Leaving
from client.secagg.agreed import grid_step
from client.secagg.machines import place_of
from client.secagg.thread import shown_in
from policies.encoding import b64, digest, is_digest, unb64
from policies.errors import EncodingError
from policies.exchange import tensor_bytes
from policies.secagg.errors import ContextMismatchError
from policies.secagg.ring import check_update

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.contributing import Made, Passage
    from client.seat import Seat
    from client.secagg.following import Following
    from client.secagg.machines import InRun, Machines, Place
    from client.secagg.updates import Updates
    from policies.exchange import RequestHeader
    from policies.secagg.node import Slot
    from policies.secagg.terms import Terms

__all__ = ["Masked", "ask_of"]


def ask_of(header: RequestHeader) -> bytes:
    """The bytes of an ask that travels in the body.

    Raises:
        ContextMismatchError: There are none.
    """
    try:
        return unb64(header.body["ask"])
    except (KeyError, TypeError, AttributeError, EncodingError) as error:
        raise _other("an ask in base64", "none") from error


class Masked:
    """`client.contributing.Way` of ``train.sa_contribute``."""

    def __init__(
        self,
        machines: Machines,
        updates: Updates,
        following: Following,
        *,
        phase: Callable[[RequestHeader, str], None] = lambda _header, _name: None,
    ) -> None:
        self._machines = machines
        self._updates = updates
        self._following = following
        self._phase = phase

    def open(self, header: RequestHeader, seat: Seat) -> Passage:
        """Steps 1 to 3 of the module.

        Raises:
            SetupGoneError: 2.
            SecaggError: 1 and 3, by what does not hold.
        """
        ask, base_model = ask_of(header), header.body.get("base_model")
        if not is_digest(base_model):
            raise _other("the digest of the base model", "none")
        inside = self._machines.of(seat, header.run)
        _check_form(header, inside.terms)
        slot = inside.machine.admit(
            ask, round=header.round, attempt=header.attempt, base_model=str(base_model)
        )
        place = place_of(seat, header.run)
        return _Masking(
            place=place,
            header=header,
            seat=seat,
            inside=inside,
            slot=slot,
            updates=self._updates,
            following=self._following,
            phase=self._phase,
            kept=self._updates.of(place, header.round, slot.base_model),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Masking:
    """`client.contributing.Passage` of `Masked`."""

    place: Place
    header: RequestHeader
    seat: Seat
    inside: InRun
    slot: Slot
    updates: Updates
    following: Following
    phase: Callable[[RequestHeader, str], None]
    kept: Made | None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def grid_step(self) -> float | None:
        return grid_step(self.seat.recipe.plan, self.inside.terms)

    def base(self, tensor: np.ndarray) -> np.ndarray:
        size = self.inside.terms.dimension
        base = tensor[:size].view("<f4")
        if digest(tensor_bytes(base)) != self.slot.base_model:
            raise _other("the base model that the request names", "another tensor")
        shown = shown_in(tensor[size:].view("<u4"), self.slot, self.seat.recipe)
        checked = self.following.check(
            self.seat, self.header.run, self.inside, self.slot, base=base, shown=shown
        )
        if checked is not None:
            teams = shown.sums[self.slot.shown.index(checked)].reshape(len(checked.opened), -1)
            sums = [digest(tensor_bytes(one)) for one in teams]
            self.said["checked"] = {"round": checked.round, "attempt": checked.attempt, "sums": sums}
        return base

    def keep(self, made: Made) -> None:
        self.updates.keep(self.place, self.header.round, self.slot.base_model, made)

    def leave(self, made: Made) -> Leaving:
        update = made.update
        if update.dtype != np.int64:
            update = check_update(update, self.inside.terms)
        masked = self.inside.machine.mask(self.slot, update)
        self.phase(self.header, "masked")
        body = {"answer": b64(masked.answer)}
        return Leaving(vector=masked.vector, digest=masked.digest, body=body, said=self.said)


def _check_form(header: RequestHeader, terms: Terms) -> None:
    spec, size = header.tensor, terms.dimension
    dtype = "uint32" if terms.group_mac else "float32"
    fits = spec is not None and spec.dtype == dtype and len(spec.shape) == 1 and spec.shape[0] > 0
    if spec is None or not fits or (spec.shape != (size,) and (not terms.group_mac or spec.shape[0] % size)):
        found = "no tensor" if spec is None else f"{spec.dtype} {list(spec.shape)}"
        raise _other(f"{dtype} [{size}] of the recipe's model, as the contract's group_mac asks", found)


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(need=need, found=found, remedy="update node or broker; nothing was spent")
