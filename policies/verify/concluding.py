# SPDX-License-Identifier: Apache-2.0
"""The auditor's conclusion: an envelope that enters the log, and what the next audit begins with.

It enters as ``audit.concluded``. It is a DSSE envelope like a member's (`policies.log.envelope`): kind
``audit.concluded``, its own chain, the audited checkpoint as ``seen``. The body names the digests of the
report and of the checkpoint's note.

- The **report** is the canonical JSON of `Report.to_json`, without the language that it was told in; who
  keeps these bytes can show later what was concluded from what.
- The **chain** goes on from the newest conclusion in the bundle that this key signed; without one it is
  new.
- A conclusion can be no better than the audit: ``clean`` needs an audit without error and review findings,
  ``reservations`` one without errors, ``adverse`` none. Where no log key or quorum holds there is nothing
  to conclude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.encoding import b64, canonical, digest
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.log.envelope import CHAIN_BYTES, NONCE_BYTES, Seen, open_envelope, payload_digest, seal_envelope
from policies.log.errors import AuditError
from policies.verify.report import EXIT_CLEAN, EXIT_REVIEW

if TYPE_CHECKING:
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy
    from policies.signing import Envelope
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["CONCLUSIONS", "conclude", "report_bytes"]

Json = Any
CONCLUSIONS = ("clean", "reservations", "adverse")
_WORST = {"clean": (EXIT_CLEAN,), "reservations": (EXIT_CLEAN, EXIT_REVIEW)}


def report_bytes(report: Report) -> bytes:
    """The report whose digest a conclusion names."""
    return canonical(report.to_json())


def conclude(
    report: Report,
    history: History | None,
    key: SigningKey,
    *,
    conclusion: str,
    clock: Clock,
    entropy: Entropy,
) -> Envelope:
    """Signs a conclusion.

    1. there is a trusted checkpoint, in an auditor's bundle; 2. the conclusion is no better than the
       audit; 3. the
    chain of this key in the bundle, or a new one.

    Raises:
        AuditError: Steps 1 and 2.
    """
    if history is None or report.untrusted is not None or report.grade != "auditor":  # 1.
        raise AuditError(
            need="an auditor's bundle with a checkpoint that your policy trusts",
            found=report.verdict,
            remedy="get the bundle again; a history that nobody signed has no conclusion",
        )
    if report.exit_code not in _WORST.get(conclusion, (report.exit_code,)):  # 2.
        raise AuditError(
            need=f"an audit that allows the conclusion {conclusion}",
            found=report.verdict,
            remedy="conclude with reservations, or adverse; the findings stay in the report",
        )
    last = _last(history, key)  # 3.
    chain, seq, prev, ack = last or (entropy.token_bytes(CHAIN_BYTES).hex(), 0, None, None)
    return seal_envelope(
        key,
        log=history.checkpoint.origin,
        kind=EntryType.AUDIT_CONCLUDED,
        chain=chain,
        seq=seq,
        prev=prev,
        seen=Seen(history.checkpoint.size, history.checkpoint.root),
        time_ms=clock.now_ms(),
        nonce=entropy.token_bytes(NONCE_BYTES),
        scope=None,
        run=None,
        round=None,
        ack=ack,
        body={
            "report": digest(report_bytes(report)),
            "checkpoint": digest(history.files["checkpoint"]),
            "conclusion": conclusion,
        },
    )


def _last(history: History, key: SigningKey) -> tuple[str, int, str, dict[str, Json]] | None:
    """Chain, next number, digest before it and acknowledgement, after this key's newest conclusion."""
    found = None
    for index, _ in history.of(EntryType.AUDIT_CONCLUDED):
        envelope = history.envelopes.get(index)
        if envelope is None or not envelope.signed_by(key.public):
            continue
        try:
            payload = open_envelope(envelope, key.public)
        except IriaiError:
            continue  # AUD-041 names it
        ack = {"index": index, "leaf_hash": b64(history.tree.leaf(index))}
        found = (payload["chain"], payload["seq"] + 1, payload_digest(payload), ack)
    return found
