# SPDX-License-Identifier: Apache-2.0
"""Conclusions: what an auditor signs about an audit enters the log it is about.

Steps, in this order:
1. the envelope is signed by an auditor in force, whatever its ``keyid`` says; where the
   auditor sends it, by that auditor;
2. it is an ``audit.concluded``, about the whole log: no scope, run or round;
3. it has seen a checkpoint that is not empty;
4. the chain's rules, the origin and ``seen`` as for members' envelopes (`broker.log.transaction`).

The same envelope again gives the same entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.auditing.errors import AuditorUnknownError
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.encoding import Json
    from policies.signing import Envelope

__all__ = ["conclusion"]


def conclusion(envelope: Envelope, keys: Sequence[bytes]) -> Event:
    """The event of a conclusion: steps 1 to 3.

    Args:
        envelope: As received.
        keys: Of the auditors whose word it may be.

    Raises:
        AuditorUnknownError: Step 1, none of these keys signed it.
        MemberEnvelopeError, EncodingError: Steps 1 to 3, another form.
    """
    key = next((one for one in keys if envelope.signed_by(one)), None)  # 1.
    if key is None:
        raise AuditorUnknownError(
            need="an envelope signed by an enrolled auditor",
            found="another signature",
            remedy="sign it with the key that `iriai-broker auditor list` shows",
        )
    payload = open_envelope(envelope, key)
    _check(payload)
    return from_envelope(envelope, payload, actor="auditor")


def _check(payload: Mapping[str, Json]) -> None:
    if payload["kind"] != EntryType.AUDIT_CONCLUDED:  # 2.
        raise _refuse("an envelope of the kind audit.concluded", str(payload["kind"]))
    if any(payload[name] is not None for name in ("scope", "run", "round")):
        raise _refuse("no scope, run or round", "one of them")
    if payload["seen"]["size"] == 0:  # 3.
        raise _refuse("the audited checkpoint as `seen`", "the empty log")


def _refuse(need: str, found: str) -> MemberEnvelopeError:
    return MemberEnvelopeError(
        need=need, found=found, remedy="make the envelope with `iriai-verify conclude`, and send it unchanged"
    )
