# SPDX-License-Identifier: Apache-2.0
"""The messages of secure aggregation beside the update: opaque bytes in, opaque bytes out, of one machine.

    query.sa_advertise   ask in the body     answer in the tensor   begins a setup: fresh keys
    query.sa_share       ask in the tensor   answer in the tensor   shares, sealed for each holder
    query.sa_open        ask in the tensor   answer in the body     what others dealt is looked at
    query.sa_confirm     ask in the body     answer in the body     signs the one set that may be opened
    query.sa_unmask      ask in the body     answer in the body     one share per peer; the round is over

- This node's own contract must require secure aggregation. A halt, an own exit or the contract's end stops
  these messages too: a sum that nobody may use is not opened. Rules of the site are asked with the update:
  nothing here comes from its data.
- They spend nothing and seal nothing, so they have no row in the ledger of answers: the machine gives the
  same bytes for the same ask, and refuses another one. A process that ended has lost its keys; it says
  ``secagg.setup-gone``.
- ADVERTISE is answered once the learner is ready to train: a process that was started a moment ago would else
  be in a setup, and then late with its first update.
- What leaves is noted in the outbox like everything that leaves, before it leaves, without an fsync
  (`client.outbox.Outbox.noting`): the note outlives the process. If the whole machine loses its power, the
  notes since the last round's envelopes may be lost with it; that round's masked vector is noted for good.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from client.contributing import ContributeDuty
from client.federation.handlers import HandlerReply, Refusal
from client.secagg.following import Following
from client.secagg.machines import Machines, place_of
from client.secagg.masking import Masked, ask_of
from client.secagg.updates import Updates
from policies.encoding import b64
from policies.errors import IriaiError
from policies.exchange import ExchangeType
from policies.secagg.errors import ContextMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client.desktop import Desktop, Learner
    from client.federation.handlers import Handler
    from client.seat import Seat
    from policies.exchange import RequestHeader

__all__ = ["MessageDuty", "sum_duties"]


def sum_duties(
    desktop: Desktop, *, say: Callable[[str, Mapping[str, object]], None]
) -> dict[ExchangeType, Handler]:
    """Handlers of everything that secure aggregation asks of this node.

    Args:
        desktop: What all duties share; its entropy makes the keys.
        say: Tells the operator of this site what cannot be checked any more.
    """
    machines = Machines(key=desktop.key, entropy=desktop.entropy, outbox=desktop.outbox)
    steps = _Steps(machines, Updates(), desktop.learner)
    following = Following(desktop.learner, say=say)
    way = Masked(steps.machines, steps.updates, following, phase=desktop.phase)
    return {
        ExchangeType.SA_ADVERTISE: MessageDuty(desktop, steps.advertise, inline=(True, False)),
        ExchangeType.SA_SHARE: MessageDuty(desktop, steps.share, inline=(False, False)),
        ExchangeType.SA_OPEN: MessageDuty(desktop, steps.open, inline=(False, True)),
        ExchangeType.SA_CONTRIBUTE: ContributeDuty(desktop, way),
        ExchangeType.SA_CONFIRM: MessageDuty(desktop, steps.confirm, inline=(True, True)),
        ExchangeType.SA_UNMASK: MessageDuty(desktop, steps.unmask, inline=(True, True)),
    }


@dataclass(frozen=True, slots=True)
class _Steps:
    """What each message asks of the machine."""

    machines: Machines
    updates: Updates
    learner: Learner

    def advertise(self, seat: Seat, header: RequestHeader, ask: bytes) -> bytes:
        with contextlib.suppress(IriaiError):  # said again, with its clause, when the update is asked for
            self.learner.ready(seat)
        return self.machines.begin(seat, header.run).machine.advertise(ask)

    def share(self, seat: Seat, header: RequestHeader, ask: bytes) -> bytes:
        return self.machines.of(seat, header.run).machine.share(ask)

    def open(self, seat: Seat, header: RequestHeader, ask: bytes) -> bytes:
        return self.machines.of(seat, header.run).machine.open(ask)

    def confirm(self, seat: Seat, header: RequestHeader, ask: bytes) -> bytes:
        machine = self.machines.of(seat, header.run).machine
        return machine.confirm(ask, round=header.round, attempt=header.attempt)

    def unmask(self, seat: Seat, header: RequestHeader, ask: bytes) -> bytes:
        machine = self.machines.of(seat, header.run).machine
        answer = machine.unmask(ask, round=header.round, attempt=header.attempt)
        self.updates.drop(place_of(seat, header.run), header.round)
        return answer


class MessageDuty:
    """One message; ``inline`` says whether ask and answer are in the body or in the tensor."""

    def __init__(
        self,
        desktop: Desktop,
        step: Callable[[Seat, RequestHeader, bytes], bytes],
        *,
        inline: tuple[bool, bool],
    ) -> None:
        self._top = desktop
        self._step = step
        self._ask_inline, self._answer_inline = inline

    def decide(self, header: RequestHeader) -> Refusal | None:
        """Whether this node takes part in sums under the contract, and the request has the message's form."""
        with self._top.keeping(header):
            self._top.guard.judge_message(header)
            spec = header.tensor
            if (spec is None) != self._ask_inline or (
                spec is not None and not _is_bytes(spec.dtype, spec.shape)
            ):
                raise ContextMismatchError(
                    need="an ask in the body" if self._ask_inline else "an ask of uint8 [n] in the tensor",
                    found="none" if spec is None else f"{spec.dtype} {list(spec.shape)}",
                    remedy="update node or broker: they write this message differently",
                )
        return None

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        """The machine's answer, once it is noted."""
        with self._top.keeping(header):
            seat = self._top.guard.seat(header.contract, header.recipe)
            answer = self._step(seat, header, ask_of(header) if tensor is None else tensor.tobytes())
            reply = HandlerReply(tensor=np.frombuffer(answer, np.uint8))
            if self._answer_inline:
                reply = HandlerReply(body={"answer": b64(answer)})
            return self._top.answer(header, reply, clause=seat.held.contract.aggregation.clause)


def _is_bytes(dtype: str, shape: tuple[int, ...]) -> bool:
    return dtype == "uint8" and len(shape) == 1
