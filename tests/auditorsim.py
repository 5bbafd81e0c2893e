# SPDX-License-Identifier: Apache-2.0
"""An auditor with a key of their own, who asks a broker and concludes; and the steps that let one in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType
from policies.log.envelope import ChainState, Seen, open_envelope, seal_envelope
from tests.brokersim import ORIGIN, House, Signer

if TYPE_CHECKING:
    from policies.signing import Envelope

__all__ = ["AuditorSim", "enrolled", "granted"]


class AuditorSim(Signer):
    """Somebody who audits."""

    def __init__(self, house: House, name: str = "ernst") -> None:
        key = SigningKey.from_seed(hashlib.sha256(f"auditor {name}".encode()).digest())
        super().__init__(house, key, f"auditor {name}")
        self.name = name
        self.chain = ChainState(chain=hashlib.sha256(name.encode()).hexdigest()[:16])

    def conclusion(self, said: str = "clean", *, key: SigningKey | None = None, **changes: Any) -> Envelope:
        """The next envelope of the chain, about the newest head; the chain moves on."""
        head = self.house.services.writer.head()
        body = {"report": digest(b"report"), "checkpoint": digest(head.note.encode()), "conclusion": said}
        fields: dict[str, Any] = {
            "log": ORIGIN,
            "kind": EntryType.AUDIT_CONCLUDED,
            "chain": self.chain.chain,
            "seq": self.chain.next_seq,
            "prev": self.chain.prev,
            "seen": Seen(head.size, head.root),
            "time_ms": self.house.clock.ms,
            "nonce": self.entropy.token_bytes(16),
            "scope": None,
            "run": None,
            "round": None,
            "ack": None,
            "body": body,
        }
        signer = key or self.key
        envelope = seal_envelope(signer, **(fields | changes))
        self.chain = self.chain.accept(open_envelope(envelope, signer.public))
        return envelope


async def enrolled(house: House, name: str = "ernst") -> AuditorSim:
    """An auditor whom an operator let in."""
    auditor = AuditorSim(house, name)
    answer = await house.alice.post("/operator/auditors", {"name": name, "key": key_text(auditor.key.public)})
    assert answer.status_code == 201, answer.text
    return auditor


async def granted(house: House, auditor: AuditorSim, fields: list[str] | None = None, **more: Any) -> str:
    """A grant to an auditor; its id."""
    body = {"grantee": auditor.name, "fields": fields, **more}
    answer = await house.alice.post("/operator/audit/grants", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["grant"])
