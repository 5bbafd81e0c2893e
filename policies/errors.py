# SPDX-License-Identifier: Apache-2.0
"""The one error shape of iriai, and the errors that belong to no single part of the ground floor.

Every refusal carries a stable ``code``, what was needed, what was found, what to do, and the contract clause
if one refused.
An error never holds a secret, an episode's values or another party's number.

    IriaiError
      InvariantError        internal.invariant          a belief of ours is false: our bug
      EncodingError         encoding.*                  bytes that are not the canonical form
      IdentityError         identity.*                  keys, signatures, who somebody is
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["EncodingError", "IdentityError", "InvariantError", "IriaiError", "invariant"]


class IriaiError(Exception):
    """Base of every error that a person or a program is told about.

    Attributes:
        code: Stable, lower.dotted name; part of the API, never reused.
        exit_code: 1 our bug, 2 usage, 3 check failed, 4 denied, 5 peer unreachable, 6 identity, 7 needs a
            human, 75 try again.
        http_status: Status of the problem document (RFC 9457).
        retry_after_s: When it may be tried again; None where that is not known.
    """

    code: ClassVar[str] = "internal.error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        *,
        need: str,
        found: str,
        remedy: str,
        clause: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.need = need
        self.found = found
        self.remedy = remedy
        self.clause = clause
        self.retry_after_s = retry_after_s
        super().__init__(str(self))

    def __str__(self) -> str:
        at = f" [{self.clause}]" if self.clause else ""
        return f"{self.code}{at}: needs {self.need}; found {self.found}. Remedy: {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders whole: from a worker of a pool to whoever waits for it."""
        return _rebuilt, (type(self), self.__dict__.copy())

    def as_dict(self) -> dict[str, str | None]:
        """The five fields that HTTP problem documents and ``--json`` envelopes show."""
        return {
            "code": self.code,
            "clause": self.clause,
            "need": self.need,
            "found": self.found,
            "remedy": self.remedy,
        }


def _rebuilt(kind: type[IriaiError], facts: dict[str, object]) -> IriaiError:
    error = kind.__new__(kind)
    error.__dict__.update(facts)
    Exception.__init__(error, str(error))
    return error


class InvariantError(IriaiError):
    """Something that must always hold does not; nothing is done, nothing is signed."""

    code = "internal.invariant"


class EncodingError(IriaiError):
    """Bytes from another party are not the canonical form that digests and signatures are taken over."""

    code = "encoding.not-canonical"
    exit_code = 3
    http_status = 400


class IdentityError(IriaiError):
    """A key, a signature or a claim of identity does not hold."""

    code = "identity.invalid"
    exit_code = 6
    http_status = 401


class WeakKeyError(IdentityError):
    """A public key under which a signature proves nothing, or whose encoding is not canonical."""

    code = "identity.weak-key"
    http_status = 422


class SignatureInvalidError(IdentityError):
    """A signature does not verify under the key that the contract, the log policy or the enrolment names."""

    code = "identity.signature-invalid"


class RequestUnsignedError(IdentityError):
    """A request came without a usable RFC 9421 signature."""

    code = "identity.request-unsigned"


class RequestStaleError(IdentityError):
    """A request was signed outside the time window; usually one of the two clocks is wrong."""

    code = "identity.clock"


class RequestReplayedError(IdentityError):
    """A nonce was seen before: the request is a copy."""

    code = "identity.replayed"
    http_status = 409


def invariant(condition: object, what: str) -> None:
    """Raises `InvariantError` unless ``condition`` holds; stays on under ``python -O``, unlike ``assert``."""
    if not condition:
        raise InvariantError(
            need=what,
            found="the opposite",
            remedy="report this with the log of the process; nothing was changed",
        )
