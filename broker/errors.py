# SPDX-License-Identifier: Apache-2.0
"""Errors of the broker that belong to no single domain: starting up, reaching it, and the edge of its API.

BrokerError
  NotInitialisedError        broker.not-initialised     no broker in this folder yet
  AlreadyInitialisedError    broker.already-initialised the folder holds a broker with other facts
  PortInUseError             broker.port-in-use         somebody else listens there
  DiskFullError              broker.disk-full           nothing was stored, send it again
  TlsInvalidError            broker.tls-invalid         certificate, key or URL do not fit together
  UnreachableError           broker.unreachable         no broker answers there
  CertificatePinError        broker.certificate-pin     somebody else answers there
  OperatorKeyError           broker.operator-key        no usable operator key file
  UsageError                 broker.usage               a command line that means nothing
  NotConfirmedError          broker.not-confirmed       a person has to say yes, and nobody did
  AnsweredError              (the broker's own code)    what a running broker answered
RequestError
  BodyTooLargeError          request.body-too-large     refused before it was read
  BodyTooSlowError           request.body-too-slow      it did not arrive in time, or its sender left
  RequestInvalidError        request.invalid            a body that has another form
  NotFoundError              request.not-found          also: not yours to know about
  IdempotencyMissingError    request.idempotency-missing
  IdempotencyMismatchError   request.idempotency-mismatch
  NonceStoreFullError        request.too-many           one key sent more than is remembered
  RequestRateError           request.rate               one address or key asks too often
  IdempotencyOldError        request.idempotency-old    a change of long ago, sent again
  IfMatchMissingError        request.if-match-missing   an overwriting change that names no state
  IfMatchError               request.if-match           the state that it names is not the one now

IdentityError
  FingerprintError           identity.fingerprint       the key of the list is not the one that was compared
  UnknownKeyError            identity.unknown-key       nobody enrolled this key
  KeyRevokedError            identity.key-revoked       it was enrolled once
  WrongRoleError             identity.wrong-role        an operator's route, or a member's
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.errors import IdentityError, IriaiError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AlreadyInitialisedError",
    "AnsweredError",
    "BodyTooLargeError",
    "BodyTooSlowError",
    "BrokerError",
    "CertificatePinError",
    "DiskFullError",
    "FingerprintError",
    "IdempotencyMismatchError",
    "IdempotencyMissingError",
    "IdempotencyOldError",
    "IfMatchError",
    "IfMatchMissingError",
    "KeyRevokedError",
    "NonceStoreFullError",
    "NotConfirmedError",
    "NotFoundError",
    "NotInitialisedError",
    "OperatorKeyError",
    "PortInUseError",
    "RequestError",
    "RequestInvalidError",
    "RequestRateError",
    "TlsInvalidError",
    "UnknownKeyError",
    "UnreachableError",
    "UsageError",
    "WrongRoleError",
    "answered",
    "retry_headers",
]


class BrokerError(IriaiError):
    """Root of what the broker itself refuses."""

    code = "broker.error"
    exit_code = 3


class NotInitialisedError(BrokerError):
    """The folder holds no broker."""

    code = "broker.not-initialised"
    exit_code = 2


class AlreadyInitialisedError(BrokerError):
    """The folder holds a broker that was made with other facts; nothing was changed."""

    code = "broker.already-initialised"


class PortInUseError(BrokerError):
    """Another process listens on the port."""

    code = "broker.port-in-use"
    http_status = 503


class DiskFullError(BrokerError):
    """The disk took no more; what was to be stored is not stored."""

    code = "broker.disk-full"
    exit_code = 75
    http_status = 507


class TlsInvalidError(BrokerError):
    """Certificate, private key and public URL do not fit together."""

    code = "broker.tls-invalid"


class UnreachableError(BrokerError):
    """No broker answers at the URL."""

    code = "broker.unreachable"
    exit_code = 5


class CertificatePinError(BrokerError):
    """The server that answers has another certificate than the pinned one; nothing was sent to it."""

    code = "broker.certificate-pin"
    exit_code = 6


class OperatorKeyError(BrokerError):
    """The operator's key file is missing or cannot be used."""

    code = "broker.operator-key"
    exit_code = 6


class UsageError(BrokerError):
    """A command line whose parts contradict each other."""

    code = "broker.usage"
    exit_code = 2
    http_status = 400


class NotConfirmedError(BrokerError):
    """A person has to say yes, and nobody did."""

    code = "broker.not-confirmed"
    exit_code = 7


class AnsweredError(BrokerError):
    """What a running broker answered to an operator's command; `answered` gives it the broker's own code."""

    code = "broker.answered"


def answered(problem: Mapping[str, object], *, status: int) -> AnsweredError:
    """The error behind a problem document (RFC 9457), with the code and exit code that the broker gave."""
    exit_code = problem.get("exit_code")
    one = type(
        "AnsweredError",
        (AnsweredError,),
        {
            "__doc__": AnsweredError.__doc__,
            "code": str(problem.get("code", AnsweredError.code)),
            "exit_code": exit_code if isinstance(exit_code, int) and 0 < exit_code < 256 else 1,  # noqa: PLR2004  a byte
            "http_status": status,
        },
    )
    clause = problem.get("clause")
    error: AnsweredError = one(
        need=str(problem.get("need", "an answer of the broker's API")),
        found=str(problem.get("found", f"HTTP {status}")),
        remedy=str(problem.get("remedy", "see the broker's own log")),
        clause=clause if isinstance(clause, str) else None,
    )
    return error


class RequestError(IriaiError):
    """Root of requests that are refused for their form, whoever sent them."""

    code = "request.error"
    exit_code = 2
    http_status = 400


class BodyTooLargeError(RequestError):
    """The body is larger than this route reads."""

    code = "request.body-too-large"
    http_status = 413


class BodyTooSlowError(RequestError):
    """The body did not arrive in time, or its sender left in the middle."""

    code = "request.body-too-slow"
    exit_code = 75
    http_status = 408


class RequestInvalidError(RequestError):
    """The body is not what this route takes."""

    code = "request.invalid"
    http_status = 422


class NotFoundError(RequestError):
    """There is no such thing, or it is not for the one who asks: the two look the same on purpose."""

    code = "request.not-found"
    exit_code = 3
    http_status = 404


class IdempotencyMissingError(RequestError):
    """A change without a usable Idempotency-Key."""

    code = "request.idempotency-missing"


class IdempotencyMismatchError(RequestError):
    """An Idempotency-Key that was used before, for another request."""

    code = "request.idempotency-mismatch"
    exit_code = 3
    http_status = 409


class NonceStoreFullError(RequestError):
    """One key sent so many requests that the next one could not be remembered; it is refused instead."""

    code = "request.too-many"
    exit_code = 75
    http_status = 429


class RequestRateError(RequestError):
    """One address or one key asks more often than the broker serves it; nothing was done."""

    code = "request.rate"
    exit_code = 75
    http_status = 429


class IdempotencyOldError(RequestError):
    """A change that was answered so long ago that its answer is not kept; it is not done a second time."""

    code = "request.idempotency-old"
    exit_code = 3
    http_status = 409


class IfMatchMissingError(RequestError):
    """A change of what others may have changed, without the ``If-Match`` that it needs."""

    code = "request.if-match-missing"
    exit_code = 3
    http_status = 428


class IfMatchError(RequestError):
    """What the change is about is not any more as its sender saw it; nothing was changed."""

    code = "request.if-match"
    exit_code = 3
    http_status = 412


class FingerprintError(IdentityError):
    """The key that waits for approval has another fingerprint than the one that a person compared."""

    code = "identity.fingerprint"


class UnknownKeyError(IdentityError):
    """Nobody enrolled the key that signed the request."""

    code = "identity.unknown-key"


class KeyRevokedError(IdentityError):
    """The key that signed the request was enrolled once and is no longer trusted."""

    code = "identity.key-revoked"


class WrongRoleError(IdentityError):
    """A key that is enrolled, for something else: an operator's route called by a node, or the reverse."""

    code = "identity.wrong-role"
    http_status = 403


_RETRY_AFTER_S: Final = {429: 60, 503: 1}  # RFC 6585, 4 and RFC 9110, 15.6.4; an error may say itself


def retry_headers(error: IriaiError) -> dict[str, str]:
    """When to ask again, for answers that are told so."""
    after_s = error.retry_after_s or _RETRY_AFTER_S.get(error.http_status)
    return {} if after_s is None else {"Retry-After": str(after_s)}
