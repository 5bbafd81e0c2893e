# SPDX-License-Identifier: Apache-2.0
"""The protocol's own exchanges: opaque bytes out, opaque bytes back, until enough good answers are there.

- What an exchange asks lies in the request's body or in its tensor, and so does the answer.
- ``hear`` judges one answer and raises `SecaggError` about a wrong one; its ``offender`` is named, whoever
  sent the answer. Nothing else of that answer is used, and the others go on.
- With ``need`` the exchange ends a moment after so many answers; those that were cut off are asked again
  where some of the answers were no good.
- None of them is work: one lasts `SECAGG_MESSAGE_S` at most, however long the recipe gives a round. A member
  that hangs holds the others up once, and is left out. Whoever was silent before (``brief``) is waited for
  only `SECAGG_RETURN_S`; then the others that are late are asked once more, in the same bytes.
- A halt of the contract ends every exchange.

    heard = await talk.exchange(engine_run, ExchangeType.SA_CONFIRM, slot, asks, attempt.confirmed, need=t)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.federation.engine import Failure
from policies.encoding import b64, unb64
from policies.errors import EncodingError
from policies.exchange import ExchangeType
from policies.limits import SECAGG_MESSAGE_S, SECAGG_RETURN_S
from policies.privacy.errors import ReplyFieldError
from policies.reply_body import check_reply_body
from policies.secagg.errors import ContextMismatchError, SecaggError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from broker.federation.asking import Asking
    from broker.federation.engine import EngineRun, Reply, Request
    from broker.federation.participants import Participant
    from broker.federation.standing import Standing
    from broker.federation.tools import Tools
    from policies.contract import Contract

__all__ = ["Heard", "Talk"]

_LATE = "engine.late"
_TENSOR_ASKS = frozenset({ExchangeType.SA_SHARE, ExchangeType.SA_OPEN})
_TENSOR_ANSWERS = frozenset({ExchangeType.SA_ADVERTISE, ExchangeType.SA_SHARE})


@dataclass(slots=True)
class Heard:
    """What one exchange came to.

    Attributes:
        good: Parties whose answer was taken.
        refused: Party → code with which the node itself refused.
        offenders: Party → code, of those that are to blame for a wrong answer.
        absent: Parties that gave none in time.
    """

    good: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    offenders: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)


class Talk:
    """The exchanges of one run."""

    def __init__(
        self, tools: Tools, run: str, contract: Contract, *, asking: Asking, standing: Standing
    ) -> None:
        self._tools = tools
        self._run = run
        self._contract = contract
        self._asking = asking
        self._standing = standing

    async def exchange(
        self,
        engine_run: EngineRun,
        kind: ExchangeType,
        slot: tuple[int, int],
        asks: Mapping[Participant, bytes],
        hear: Callable[[str, bytes], None],
        *,
        need: int = 0,
        brief: Collection[str] = (),
    ) -> Heard:
        """Asks, and hears whoever answers.

        Args:
            engine_run: Of the engine.
            kind: Of the exchange.
            slot: Of the exchange.
            asks: Whom, and the bytes for each.
            hear: Takes a party's answer, or raises `SecaggError`.
            need: Good answers that are enough; 0: everybody's.
            brief: Parties that are not waited for long.
        """
        heard, deadline_ms = Heard(), self._asking.deadline_ms()
        # a node's clock may be ahead: the request itself is good for as long as any other
        ends_ms = min(deadline_ms, self._tools.clock.now_ms() + SECAGG_MESSAGE_S * 1000)
        left = dict(asks)
        soon = any(one.party in brief for one in left)
        while left:
            wanted = max(1, need - len(heard.good)) if need else 0
            requests = {
                one.node: (one, self._request(one, kind, slot, ask, deadline_ms)) for one, ask in left.items()
            }
            heard.absent |= {one.party for one in left}
            until_ms = ends_ms
            if soon:
                until_ms = min(ends_ms, self._tools.clock.now_ms() + SECAGG_RETURN_S * 1000)
            coming = self._asking.exchange(
                engine_run, [one for _, one in requests.values()], deadline_ms=until_ms, need=wanted
            )
            answered = 0
            async for outcome in self._standing.until_halted(self._contract, coming):
                answered += self._outcome(requests[outcome.node][0], outcome, hear, heard)
            short = 0 < wanted <= answered and len(heard.good) < need
            again = (soon or short) and not self._ended(ends_ms)
            late = heard.absent - set(brief)
            left, soon = {one: ask for one, ask in left.items() if again and one.party in late}, False
        return heard

    def _ended(self, ends_ms: int) -> bool:
        return self._tools.clock.now_ms() >= ends_ms or self._standing.halted(self._contract)

    def _request(
        self, to: Participant, kind: ExchangeType, slot: tuple[int, int], ask: bytes, deadline_ms: int
    ) -> Request:
        tensor = kind in _TENSOR_ASKS
        return self._asking.request(
            to,
            kind,
            slot,
            body={} if tensor else {"ask": b64(ask)},
            model=ask if tensor else None,
            deadline_ms=deadline_ms,
            dtype="uint8",
        )

    def _outcome(
        self, sender: Participant, outcome: Reply | Failure, hear: Callable[[str, bytes], None], heard: Heard
    ) -> bool:
        """Takes one outcome; whether the engine counts it as a good reply."""
        if isinstance(outcome, Failure):
            self._failed(sender, outcome, heard)
            return False
        heard.absent.discard(sender.party)
        if outcome.ok:
            self._hear(sender, outcome, hear, heard)
        else:
            heard.refused[sender.party] = outcome.header.code or ""
            self._note("secagg.declined", sender.party, outcome.type, heard.refused[sender.party])
        return outcome.ok

    def _failed(self, sender: Participant, failure: Failure, heard: Heard) -> None:
        self._tools.journal.note("reply.failed", run=self._run, node=sender.node, code=failure.code)
        if failure.code != _LATE:
            heard.absent.discard(sender.party)
            heard.refused[sender.party] = failure.code

    def _hear(
        self, sender: Participant, reply: Reply, hear: Callable[[str, bytes], None], heard: Heard
    ) -> None:
        try:
            hear(sender.party, _answer(reply))
        except ReplyFieldError as error:
            party, code = sender.party, error.code
        except SecaggError as error:
            party, code = error.offender or sender.party, error.code
        else:
            heard.good.add(sender.party)
            return
        heard.offenders[party] = code
        self._note("secagg.refused", party, reply.type, code)

    def _note(self, event: str, party: str, kind: ExchangeType, code: str) -> None:
        self._tools.journal.note(event, run=self._run, party=party, type=kind.value, code=code)


def _answer(reply: Reply) -> bytes:
    """The bytes of an answer.

    Raises:
        ReplyFieldError: It says more than that.
        ContextMismatchError: There are none.
    """
    tensor = reply.tensor
    if tensor is not None:
        data = b"".join(tensor.chunks())
        tensor.release()
    check_reply_body(reply.type, reply.header.body)
    if reply.type in _TENSOR_ANSWERS and tensor is not None and not reply.header.body:
        return data
    try:
        return unb64(reply.header.body["answer"])
    except (KeyError, TypeError, EncodingError) as error:
        raise ContextMismatchError(
            need="an answer in base64", found="none", remedy="update the node"
        ) from error
