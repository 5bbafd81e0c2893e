# SPDX-License-Identifier: Apache-2.0
"""What a node tells its owner, and what it never tells anybody else.

    NodeError
      UsageError             node.usage               a line that no command understands
      SettingsError          node.settings            a setting that does not exist or has another type
      NotInitialisedError    node.not-initialised     no keys here yet
      NotJoinedError         node.not-joined          no broker is pinned yet
      AlreadyJoinedError     node.already-joined      another broker is pinned already
      NodeBusyError          node.busy                another process of this node holds the lock
      NoSuchThingError       node.not-found           a contract, run, model or candidate unknown here
      FileTakenError         node.file-exists         a file that would be written over
      DigestMismatchError    node.digest-mismatch     bytes are not the ones that were named
      DoctorFailedError      node.doctor              at least one check failed
      NotConfirmedError      node.not-confirmed       a person has to say yes, and nobody did
      NotSignedError         contract.not-signed      a contract that this node must not sign
      ProseMismatchError     contract.prose-mismatch  another text than the contract binds by its hash
      StaleOfferError        contract.superseded      an offer older than the version that rules
      DecisionDiffersError   node.decision-differs    a kept decision that its facts do not give
      PersonaliseError       node.personalise         fine-tuning ended without a result
      SeedFitError           node.seed-fit            the fit to a seed set ended without a result
      NoticesUnknownError    contract.notices-unknown what was said about a contract is lost or damaged here
      NoticesRewrittenError  contract.notices-rewritten   the broker took back what it had taken
    KeyFileError             identity.key-file        a key file that others can read, or that is none
    RotationOpenError        identity.rotation-open   a change of key was begun and is not done
    RotationWaitsError       identity.rotation-waits  something must end before the key may change
    InviteError              identity.invite          an invitation that cannot be used
    BrokerKeyError           identity.broker-key      what answers does not hold the key that is pinned
    TlsPinError              identity.tls-pin         what answers shows another certificate
    PeerUnreachableError     peer.unreachable         nothing answered
    PeerAnswerError          peer.answer              something answered that is no answer of a broker
    RemoteRefusalError       (the broker's code)      the broker refused, in its own words
    LocalRefusedError        local.refused            the guard refused by a rule of this site
    EquivocationError        log.equivocation         the log contradicts itself; the node stops for good
    UnwitnessedError         log.unwitnessed          no quorum of witnesses vouches for the log just now
    ReceiptError             log.receipt              a receipt does not prove what it should
    ReceiptFileError         node.receipt-file        receipts cannot be written to the folder that was named
    BundleFileError          node.bundle-file         the bundle cannot be written to the file that was named
    LaneBookError            node.lane-book           what is kept about a negotiation cannot be read
    StoppedFileError         node.stopped-runs        which runs the owner stopped cannot be read
    OutboxError              outbox.damaged           the outbox on disk contradicts itself
    BacklogError             outbox.backlog           too many envelopes wait for a receipt

An error never holds a secret, an episode's values or another party's number. Only its code leaves the site.
"""

from __future__ import annotations

from policies.errors import IdentityError, IriaiError

__all__ = [
    "AlreadyJoinedError",
    "BacklogError",
    "BrokerKeyError",
    "BundleFileError",
    "DecisionDiffersError",
    "DigestMismatchError",
    "DoctorFailedError",
    "EquivocationError",
    "FileTakenError",
    "InviteError",
    "KeyFileError",
    "LaneBookError",
    "LocalRefusedError",
    "NoSuchThingError",
    "NodeBusyError",
    "NodeError",
    "NotConfirmedError",
    "NotInitialisedError",
    "NotJoinedError",
    "NotSignedError",
    "NoticesRewrittenError",
    "NoticesUnknownError",
    "OutboxError",
    "PeerAnswerError",
    "PeerUnreachableError",
    "PersonaliseError",
    "ProseMismatchError",
    "ReceiptError",
    "ReceiptFileError",
    "RemoteRefusalError",
    "RotationOpenError",
    "RotationWaitsError",
    "SeedFitError",
    "SettingsError",
    "StaleOfferError",
    "StoppedFileError",
    "TlsPinError",
    "UnwitnessedError",
    "UsageError",
    "remote_refusal",
]


class NodeError(IriaiError):
    """Root of the node's own errors."""

    code = "node.error"


class UsageError(NodeError):
    """A command line with words or options that do not fit."""

    code = "node.usage"
    exit_code = 2
    http_status = 400


class SettingsError(NodeError):
    """A setting that does not exist, or a value of another type."""

    code = "node.settings"
    exit_code = 2
    http_status = 400


class NotInitialisedError(NodeError):
    """The folder holds no node."""

    code = "node.not-initialised"
    exit_code = 3
    http_status = 409


class NotJoinedError(NodeError):
    """The node has not joined a broker, or is not active there yet."""

    code = "node.not-joined"
    exit_code = 3
    http_status = 409


class AlreadyJoinedError(NodeError):
    """Another broker is pinned already; a node has one."""

    code = "node.already-joined"
    exit_code = 3
    http_status = 409


class NodeBusyError(NodeError):
    """Another process of this node is running; two would number the same chain."""

    code = "node.busy"
    exit_code = 75
    http_status = 409


class NoSuchThingError(NodeError):
    """A contract, run, model or candidate that this node does not know."""

    code = "node.not-found"
    exit_code = 3
    http_status = 404


class FileTakenError(NodeError):
    """A file that a command would write is there already; nothing is written over."""

    code = "node.file-exists"
    exit_code = 3
    http_status = 409


class DigestMismatchError(NodeError):
    """Bytes that arrived are not the ones that were asked for by digest."""

    code = "node.digest-mismatch"
    exit_code = 3
    http_status = 422


class DoctorFailedError(NodeError):
    """At least one check of ``iriai-node doctor`` failed; each says its own remedy."""

    code = "node.doctor"
    exit_code = 3


class NotConfirmedError(NodeError):
    """A person has to say yes, and nobody did."""

    code = "node.not-confirmed"
    exit_code = 7


class NotSignedError(NodeError):
    """A contract that this node must not sign, whatever its owner says."""

    code = "contract.not-signed"
    exit_code = 4
    http_status = 403


class ProseMismatchError(DigestMismatchError):
    """The text for people is not the one whose hash the contract binds."""

    code = "contract.prose-mismatch"


class StaleOfferError(NodeError):
    """The broker offers a version that is older than what rules, or that passes over what rules."""

    code = "contract.superseded"
    exit_code = 4
    http_status = 409


class DecisionDiffersError(NodeError):
    """The facts that were kept beside a decision of the guard give another decision."""

    code = "node.decision-differs"
    exit_code = 3


class PersonaliseError(NodeError):
    """The process that fine-tunes a released model ended without a result."""

    code = "node.personalise"
    exit_code = 3


class SeedFitError(NodeError):
    """The process that fits a model to a seed set ended without a result."""

    code = "node.seed-fit"
    exit_code = 3


class NoticesUnknownError(NodeError):
    """Notices about a contract are missing on this node or do not verify: whether it is halted is unknown."""

    code = "contract.notices-unknown"
    exit_code = 7
    http_status = 409


class NoticesRewrittenError(NodeError):
    """The broker shows other notices than it had shown before, or in another order."""

    code = "contract.notices-rewritten"
    exit_code = 7
    http_status = 409


class KeyFileError(IdentityError):
    """A key file that other accounts can read, that is missing, or that holds something else."""

    code = "identity.key-file"


class RotationOpenError(IdentityError):
    """A change of this node's key was begun and is not done: nothing else is signed meanwhile."""

    code = "identity.rotation-open"
    exit_code = 7
    http_status = 409


class RotationWaitsError(IdentityError):
    """The key cannot change yet: something that the present key signed is still under way."""

    code = "identity.rotation-waits"
    exit_code = 75
    http_status = 409


class InviteError(IdentityError):
    """An invitation that cannot be read, has expired, or is for another broker."""

    code = "identity.invite"


class BrokerKeyError(IdentityError):
    """What answers is not signed by the broker key that the invitation, the pin or the contract names."""

    code = "identity.broker-key"


class TlsPinError(IdentityError):
    """What answers shows another TLS certificate than the pinned one."""

    code = "identity.tls-pin"


class PeerUnreachableError(NodeError):
    """Nothing answered at the broker's address."""

    code = "peer.unreachable"
    exit_code = 5
    http_status = 502


class NameUnresolvedError(PeerUnreachableError):
    """The broker's name means no address on this machine, or no name server says so in time."""

    code = "peer.name-unresolved"


class AddressFamilyError(PeerUnreachableError):
    """The broker's name means addresses of a kind, IPv6 or IPv4, that this machine cannot reach at all."""

    code = "peer.address-family"


class PeerAnswerError(NodeError):
    """Something answered that no broker would say."""

    code = "peer.answer"
    exit_code = 5
    http_status = 502


class RemoteRefusalError(NodeError):
    """The broker refused. `remote_refusal` gives it the broker's own code and exit code."""

    code = "peer.refused"
    exit_code = 4
    http_status = 403


class LocalRefusedError(NodeError):
    """The guard refused: a rule that this site set for itself, tighter than the contract."""

    code = "local.refused"
    exit_code = 4
    http_status = 403


class EquivocationError(NodeError):
    """The log contradicts what it showed before. The node signs nothing more until a person acts."""

    code = "log.equivocation"
    exit_code = 7
    http_status = 409


class UnwitnessedError(NodeError):
    """The newest checkpoint with the contract's quorum of witnesses is too old, or there is none."""

    code = "log.unwitnessed"
    exit_code = 75
    http_status = 503


class ReceiptError(NodeError):
    """A receipt does not prove that this node's message is in the log."""

    code = "log.receipt"
    exit_code = 3


class ReceiptFileError(NodeError):
    """Receipts cannot be written to the folder that was named."""

    code = "node.receipt-file"
    exit_code = 2


class BundleFileError(NodeError):
    """A bundle cannot be written to the file that was named; no part of it is left."""

    code = "node.bundle-file"
    exit_code = 2


class LaneBookError(NodeError):
    """What this node kept about a negotiation cannot be read; nothing is signed in it any more."""

    code = "node.lane-book"
    exit_code = 7


class StoppedFileError(NodeError):
    """Which runs the owner stopped cannot be read: all of them are stopped until the owner says otherwise."""

    code = "node.stopped-runs"
    exit_code = 7
    http_status = 409


class BacklogError(NodeError):
    """More envelopes wait for a receipt than one reply has room for; they go first."""

    code = "outbox.backlog"
    exit_code = 75


class OutboxError(NodeError):
    """The outbox on disk contradicts itself."""

    code = "outbox.damaged"
    exit_code = 7


_EXITS = {400: 3, 401: 6, 403: 4, 404: 3, 409: 3, 413: 3, 422: 3, 423: 7, 428: 3, 429: 75, 502: 5, 503: 75}


def remote_refusal(
    *, code: str, status: int, need: str, found: str, remedy: str, clause: str | None, exit_code: int | None
) -> RemoteRefusalError:
    """The broker's refusal as an error of this process that keeps the broker's code.

    Args:
        code: Lower.dotted code of the problem document.
        status: HTTP status; it gives the exit code where the document names none.
        need: As the broker said it.
        found: As the broker said it.
        remedy: As the broker said it.
        clause: Id of the clause that refused, if one did.
        exit_code: What the problem document names, if it does.
    """
    chosen = exit_code if exit_code in {3, 4, 5, 6, 7, 75} else _EXITS.get(status, 5 if status >= 500 else 4)  # noqa: PLR2004
    kind = type(
        "RemoteRefusalError",
        (RemoteRefusalError,),
        {"code": code, "exit_code": chosen, "http_status": status, "__doc__": RemoteRefusalError.__doc__},
    )
    error: RemoteRefusalError = kind(need=need, found=found, remedy=remedy, clause=clause)
    return error
