# SPDX-License-Identifier: Apache-2.0
"""What the log refuses. The broker's storage adds its own (frozen, unavailable); these come from pure code.

LogError
  EntryError            log.entry-invalid      an entry or event that the closed schema does not know
  BodyTooLargeError     log.body-too-large     an entry above the bound
  ProofError            log.proof-invalid      a Merkle proof or receipt that proves nothing
  NoteError             log.note-invalid       a checkpoint that is malformed, or badly signed
    MlDsaMissingError   log.ml-dsa-missing     an ML-DSA-44 key or signature that this library cannot check
  LogKeyUnprovenError   log.key-unproven       a new key of the log that nothing under the old one proves
  PolicyError           log.policy-invalid     a policy file that cannot be trusted as written
  QuorumError           log.untrusted          no log key of the policy signed it, or too few witnesses did
  QuorumUnsafeError     log.quorum-unsafe      so few witnesses that one of them could vouch for two histories
  WitnessStatementError log.witness-invalid    a statement of whose witness key this is, of another form
  MemberEnvelopeError   log.envelope-invalid   a member's envelope of another form
  ChainError            log.chain              envelopes of one node that do not follow each other
    SeqGapError         log.seq-gap            a number is missing
    SlotTakenError      log.slot-taken         two payloads for one number
    SeenError           log.seen-unknown       what the node saw is not in this history
  BundleError           log.bundle-invalid     a bundle file that is refused before it is read
  AuditError            log.audit-findings     a bundle in which an audit found something
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AuditError",
    "BodyTooLargeError",
    "BundleError",
    "ChainError",
    "EntryError",
    "LogError",
    "LogKeyUnprovenError",
    "MemberEnvelopeError",
    "MlDsaMissingError",
    "NoteError",
    "PolicyError",
    "ProofError",
    "QuorumError",
    "QuorumUnsafeError",
    "SeenError",
    "SeqGapError",
    "SlotTakenError",
    "WitnessStatementError",
]


class LogError(IriaiError):
    """Root of the log's refusals."""

    code = "log.invalid"
    exit_code = 3
    http_status = 400


class EntryError(LogError):
    """An entry whose type, fields or values are not those of the closed schema."""

    code = "log.entry-invalid"
    http_status = 422


class BodyTooLargeError(LogError):
    """An entry above the bound: put the digest in and ship the thing itself elsewhere."""

    code = "log.body-too-large"
    exit_code = 2
    http_status = 413


class ProofError(LogError):
    """An inclusion proof, consistency proof or receipt that does not hold."""

    code = "log.proof-invalid"


class NoteError(LogError):
    """A checkpoint that is not a signed note of the expected form, or whose signature does not hold."""

    code = "log.note-invalid"


class MlDsaMissingError(NoteError):
    """The installed cryptographic library has no ML-DSA-44, so nothing about such a key is known."""

    code = "log.ml-dsa-missing"
    exit_code = 2


class LogKeyUnprovenError(LogError):
    """A key that is said to follow the log's key, without an entry that the key before it has signed."""

    code = "log.key-unproven"
    exit_code = 6


class PolicyError(LogError):
    """A policy file that cannot be read, or that trusts something unsafe."""

    code = "log.policy-invalid"
    exit_code = 2
    http_status = 422


class QuorumError(LogError):
    """No log key of the policy signed the checkpoint, or too few of its witnesses: it proves nothing."""

    code = "log.untrusted"
    exit_code = 6


class QuorumUnsafeError(LogError):
    """A quorum that two conflicting histories could reach with one voter who signs both."""

    code = "log.quorum-unsafe"
    exit_code = 6
    http_status = 422


class WitnessStatementError(LogError):
    """A witness statement with other fields or values than the format."""

    code = "log.witness-invalid"
    http_status = 422


class MemberEnvelopeError(LogError):
    """A member's envelope whose payload has other fields or values than the format."""

    code = "log.envelope-invalid"
    http_status = 422


class ChainError(LogError):
    """Envelopes of one node that do not follow each other."""

    code = "log.chain"
    exit_code = 7
    http_status = 409


class SeqGapError(ChainError):
    """A number is missing: the envelope before this one never arrived."""

    code = "log.seq-gap"
    exit_code = 75


class SlotTakenError(ChainError):
    """The number was used by another payload; usually an outbox that was restored from a backup."""

    code = "log.slot-taken"


class SeenError(ChainError):
    """The checkpoint that the node saw is not part of this history, or shrank."""

    code = "log.seen-unknown"


class BundleError(LogError):
    """A bundle that is refused before its content is read."""

    code = "log.bundle-invalid"


class AuditError(LogError):
    """An audit found something: each finding says by which rule, where, and how to redo it by hand."""

    code = "log.audit-findings"
