# SPDX-License-Identifier: Apache-2.0
"""Telling a connector what happened: the provider's messages, sent to its registered address.

- The address is the registered one, always; a message cannot name another. Redirects are not followed, the
  proxy settings of the environment are not used, and of the answer only the status is read.
- Each request is signed by the broker's key (RFC 9421), for whoever wants to check it.
- State never depends on a callback. A message that could not be told stays in the database, and is tried
  again when the connector next asks for the negotiation, not more often than every `DSP_RETRY_S`.
- A status below 500 is an answer: the connector has the message, or does not want it. It is kept.
- Messages of a negotiation are told in their order, by one task at a time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
from sqlalchemy import select, update

from broker.dataspace.rows import PROVIDER
from broker.log.errors import LogError
from broker.store.tables import dsp_message, dsp_negotiation
from policies.limits import DSP_CALLBACK_S, DSP_RETRY_S
from policies.signing import sign_request

if TYPE_CHECKING:
    from broker.dataspace.counterparties import Counterparty
    from broker.log import LogTx, Writer
    from broker.store import Session, Store
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["PATHS", "Courier"]

PATHS: Final = {
    "ContractOfferMessage": "offers",
    "ContractAgreementMessage": "agreement",
    "ContractNegotiationEventMessage": "events",
    "ContractNegotiationTerminationMessage": "termination",
}
_RETRY_MS: Final = DSP_RETRY_S * 1_000
_SERVER_ERROR: Final = 500
_Row = Any  # a message of ours with its negotiation's consumer pid
_log = logging.getLogger("iriai.broker")


class Courier:
    """See the module. ``transport``: of httpx, for a connector in the same process."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        key: SigningKey,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._key = key
        self.transport = transport
        self._busy: set[str] = set()

    async def tell(self, counterparty: Counterparty, provider_pid: str) -> None:
        """Sends what waits, in order, until one message cannot be told. Repeatable."""
        if provider_pid in self._busy:
            return
        self._busy.add(provider_pid)
        try:
            while (row := self._next(provider_pid)) is not None:
                status = await self._send(counterparty, row)
                await self._keep(provider_pid, row.seq, status)
                if status is None:
                    return
        except LogError as error:  # what was told and could not be noted is told again
            _log.warning("callback to %s not noted: %s", counterparty.name, error.code)
        finally:
            self._busy.discard(provider_pid)

    def _next(self, provider_pid: str) -> _Row | None:
        """The first message that the connector has not answered, unless it was tried a moment ago."""
        with self._store.read() as session:
            row = session.execute(
                select(
                    dsp_message.c.seq,
                    dsp_message.c.type,
                    dsp_message.c.bytes,
                    dsp_message.c.tried_ms,
                    dsp_negotiation.c.consumer_pid,
                )
                .join(dsp_negotiation, dsp_negotiation.c.provider_pid == dsp_message.c.provider_pid)
                .where(
                    (dsp_message.c.provider_pid == provider_pid)
                    & (dsp_message.c.sender == PROVIDER)
                    & dsp_message.c.answer.is_(None)
                )
                .order_by(dsp_message.c.seq)
                .limit(1)
            ).first()
        if row is None or (row.tried_ms is not None and self._clock.now_ms() < row.tried_ms + _RETRY_MS):
            return None
        return row

    async def _send(self, counterparty: Counterparty, row: _Row) -> int | None:
        """The status of the connector's answer, or None if it gave none."""
        place = f"/negotiations/{quote(row.consumer_pid, safe='')}/{PATHS[row.type]}"
        url = counterparty.callback + place
        headers = sign_request(
            self._key,
            method="POST",
            url=url,
            body=row.bytes,
            now_ms=self._clock.now_ms(),
            nonce16=self._entropy.token_bytes(16),
            idempotency_key=self._entropy.token_bytes(16).hex(),
        )
        try:
            async with asyncio.timeout(2 * DSP_CALLBACK_S):
                status = await self._post(url, row.bytes, {**headers, "content-type": "application/json"})
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            _log.warning("callback to %s failed: %s", counterparty.name, type(error).__name__)
            return None
        if status >= _SERVER_ERROR:
            _log.warning("callback to %s failed: HTTP %d", counterparty.name, status)
            return None
        return status

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        async with (
            httpx.AsyncClient(
                transport=self.transport, timeout=DSP_CALLBACK_S, trust_env=False, follow_redirects=False
            ) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            return answer.status_code

    async def _keep(self, provider_pid: str, seq: int, status: int | None) -> None:
        now_ms = self._clock.now_ms()

        def work(session: Session, _tx: LogTx) -> None:
            session.execute(
                update(dsp_message)
                .where((dsp_message.c.provider_pid == provider_pid) & (dsp_message.c.seq == seq))
                .values(tried_ms=now_ms, answer=status)
            )

        await self._writer.run(work)
