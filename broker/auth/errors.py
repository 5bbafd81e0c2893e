# SPDX-License-Identifier: Apache-2.0
"""Why a person is not let in, or their word does not count.

AuthError
  SessionEndedError      auth.session          nobody is logged in, or not any more
  WrongLoginError        auth.wrong            no such name with this password or passkey; which, is not told
  TooManyError           auth.too-many         too many wrong tries, or too many at a time
  LinkError              auth.link             a one-time link that is used, too old or unknown
  PasskeyError           auth.passkey          what the passkey answered proves nothing
  ChallengeError         auth.challenge        its question is used, too old or somebody else's
  NoDomainError          auth.no-domain        the console's address is none for which passkeys exist
  PasswordWeakError      auth.password         too short, too long, too uniform, or not text
  StepUpError            auth.step-up          it has to be confirmed in person, now
  EvidenceError          auth.evidence         what was kept of a confirmation does not prove it
  PersonUnknownError     auth.person-unknown   nobody has this name
  PersonTakenError       auth.person-taken     somebody has it
  PersonInvalidError     auth.person-invalid   a role without what it needs
  CredentialError        auth.credential       no such passkey of this person, or one too many
  OidcError              auth.oidc             the provider's answer proves nothing, or none came
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AuthError",
    "ChallengeError",
    "CredentialError",
    "EvidenceError",
    "LinkError",
    "NoDomainError",
    "OidcError",
    "PasskeyError",
    "PasswordWeakError",
    "PersonInvalidError",
    "PersonTakenError",
    "PersonUnknownError",
    "SessionEndedError",
    "StepUpError",
    "TooManyError",
    "WrongLoginError",
]


class AuthError(IriaiError):
    """Root of refusals about people and their logins."""

    code = "auth.error"
    exit_code = 6
    http_status = 403


class SessionEndedError(AuthError):
    """Nobody is logged in: never, too long idle, too long ago, or ended by somebody."""

    code = "auth.session"
    http_status = 401


class WrongLoginError(AuthError):
    """Name and password, or passkey, do not let anybody in; which of them is wrong is not told."""

    code = "auth.wrong"
    http_status = 401


class TooManyError(AuthError):
    """Too many wrong tries, or too many at a time; nothing was tried."""

    code = "auth.too-many"
    exit_code = 75
    http_status = 429


class LinkError(AuthError):
    """The one-time link is used, too old or unknown, or its second half is wrong."""

    code = "auth.link"
    http_status = 410


class PasskeyError(AuthError):
    """What the passkey answered does not prove who answered, or to whom."""

    code = "auth.passkey"


class ChallengeError(PasskeyError):
    """The question that the passkey answered is used, too old, or was put to somebody else."""

    code = "auth.challenge"


class NoDomainError(AuthError):
    """Passkeys belong to a domain name, and the console's address has none."""

    code = "auth.no-domain"
    exit_code = 3
    http_status = 409


class PasswordWeakError(AuthError):
    """The password is too short, too long, of too few different characters, or no text."""

    code = "auth.password"
    exit_code = 2
    http_status = 422


class StepUpError(AuthError):
    """This has to be confirmed in person, now: by a passkey, or by the password of whoever has none."""

    code = "auth.step-up"
    exit_code = 7


class EvidenceError(AuthError):
    """What was kept of a confirmation does not prove that this person confirmed this."""

    code = "auth.evidence"
    exit_code = 3
    http_status = 409


class PersonUnknownError(AuthError):
    """Nobody of this name, or nobody any more."""

    code = "auth.person-unknown"
    exit_code = 3
    http_status = 404


class PersonTakenError(AuthError):
    """Somebody has this name; names are never given twice."""

    code = "auth.person-taken"
    exit_code = 3
    http_status = 409


class PersonInvalidError(AuthError):
    """A person who cannot be: an unknown role, a member without an organisation, or the reverse."""

    code = "auth.person-invalid"
    exit_code = 2
    http_status = 422


class CredentialError(AuthError):
    """No such passkey of this person, one that is known already, or one too many."""

    code = "auth.credential"
    exit_code = 3
    http_status = 409


class OidcError(AuthError):
    """The identity provider did not answer, or what it answered proves nothing."""

    code = "auth.oidc"
    exit_code = 5
    http_status = 502
