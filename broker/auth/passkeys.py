# SPDX-License-Identifier: Apache-2.0
"""Passkeys (WebAuthn): what is asked of a browser, and what its answer proves. No rows, no time.

- They belong to the host of the console's URL; an address without a domain name has none (`Passkeys.there`).
- Discoverable, without attestation: whose it is, is said by the person who adds it while logged in.
- An answer is checked for its type, our origin, our host, presence, the question it answers, its counter,
  and the signature; `webauthn` does that. Here besides: no frame of another site in between, the passkey is
  that person's, attestation "none" alone, and whatever the library stumbles over is a refusal.
- A confirmation is an answer whose question is the SHA-256 of exactly what is confirmed; it can be checked
  again by whoever has that, the public key and the answer.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from broker.auth.errors import NoDomainError, PasskeyError
from policies.limits import ASSERTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from policies.encoding import Json

__all__ = ["NewPasskey", "Passkeys", "credential_of", "question_of"]

T = TypeVar("T")
_TIMEOUT_MS: Final = 120_000
_NAME: Final = "iriai broker"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,1364}")  # 1023 bytes at most (Web Authentication, credential id)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPasskey:
    """A passkey that was just made: its id (base64url), its public key (COSE), its counter."""

    id: str
    key: bytes
    count: int


class Passkeys:
    """Passkeys of one console."""

    def __init__(self, console_url: str) -> None:
        self.origin = console_url
        host = urlsplit(console_url).hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            self.rp_id: str | None = host or None
        else:
            self.rp_id = None

    @property
    def there(self) -> bool:
        """Whether there can be passkeys at this address."""
        return self.rp_id is not None

    def registration_options(self, name: str, challenge: bytes, known: Iterable[str]) -> dict[str, Json]:
        """What the browser is asked to make; ``known``: ids of passkeys that the person has.

        Raises:
            NoDomainError: No domain name.
        """
        from webauthn import generate_registration_options
        from webauthn.helpers.structs import (
            AuthenticatorSelectionCriteria,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        options = generate_registration_options(
            rp_id=self._rp_id(),
            rp_name=_NAME,
            user_name=name,
            user_id=user_handle(name),
            challenge=challenge,
            timeout=_TIMEOUT_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=_descriptors(known),
            supported_pub_key_algs=_algorithms(),
        )
        return _as_json(options)

    def login_options(self, challenge: bytes, known: Iterable[str] = ()) -> dict[str, Json]:
        """What the browser is asked to prove.

        Raises:
            NoDomainError: No domain name.
        """
        from webauthn import generate_authentication_options

        return _as_json(
            generate_authentication_options(
                rp_id=self._rp_id(),
                challenge=challenge,
                timeout=_TIMEOUT_MS,
                allow_credentials=_descriptors(known),
            )
        )

    def check_registration(self, answer: str, challenge: bytes) -> NewPasskey:
        """The passkey that an answer brings.

        Raises:
            NoDomainError: No domain name.
            PasskeyError: It proves nothing.
        """
        from webauthn import verify_registration_response
        from webauthn.helpers import bytes_to_base64url, parse_attestation_object
        from webauthn.helpers.parse_registration_credential_json import parse_registration_credential_json
        from webauthn.helpers.structs import AttestationFormat

        document, rp_id = _document(answer), self._rp_id()

        def check() -> NewPasskey:
            given = parse_registration_credential_json(document)
            if parse_attestation_object(given.response.attestation_object).fmt != AttestationFormat.NONE:
                raise ValueError("an attestation that nobody asked for")
            _check_frame(given.response.client_data_json)
            made = verify_registration_response(
                credential=given,
                expected_challenge=challenge,
                expected_rp_id=rp_id,
                expected_origin=self.origin,
                supported_pub_key_algs=_algorithms(),
            )
            return NewPasskey(
                id=bytes_to_base64url(made.credential_id),
                key=made.credential_public_key,
                count=made.sign_count,
            )

        return _proved(check)

    def check_answer(self, answer: str, challenge: bytes, *, name: str, key: bytes, count: int) -> int:
        """The new counter of a passkey whose answer holds.

        Args:
            answer: JSON of the browser.
            challenge: The question that it must answer.
            name: Whose passkey it has to be.
            key: Its public key.
            count: The counter of its last answer.

        Raises:
            NoDomainError: No domain name.
            PasskeyError: It proves nothing.
        """
        from webauthn import verify_authentication_response
        from webauthn.helpers.parse_authentication_credential_json import parse_authentication_credential_json

        document, rp_id = _document(answer), self._rp_id()

        def check() -> int:
            given = parse_authentication_credential_json(document)
            if given.response.user_handle not in {None, user_handle(name)}:
                raise ValueError("a passkey that says it is somebody else's")
            _check_frame(given.response.client_data_json)
            held = verify_authentication_response(
                credential=given,
                expected_challenge=challenge,
                expected_rp_id=rp_id,
                expected_origin=self.origin,
                credential_public_key=key,
                credential_current_sign_count=count,
            )
            return held.new_sign_count

        return _proved(check)

    def _rp_id(self) -> str:
        if self.rp_id is None:
            raise NoDomainError(
                need="a console whose address has a domain name",
                found=self.origin,
                remedy="use the password; or let the operators set console_url to https://NAME:PORT",
            )
        return self.rp_id


def credential_of(answer: str) -> str:
    """Id of the passkey that an answer claims to come from.

    Raises:
        PasskeyError: It has another form.
    """
    found = _document(answer).get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise _refuse("an answer without an id")
    return found


def question_of(subject: bytes) -> bytes:
    """The question whose answer confirms exactly these bytes."""
    return hashlib.sha256(subject).digest()


def user_handle(name: str) -> bytes:
    """What a passkey keeps as its owner: not the name, but always the same for it."""
    return hashlib.sha256(b"iriai/person/1\x00" + name.encode("ascii")).digest()


def _document(answer: str) -> dict[str, Any]:
    if len(answer) > ASSERTION_BYTES:
        raise _refuse("an answer that is too large")
    try:
        found = json.loads(answer, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half of a character is no text
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _refuse("no JSON object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _proved(check: Callable[[], T]) -> T:
    try:
        return check()
    except Exception as error:  # what comes from a browser may let the library stumble in any way
        raise _refuse(f"{type(error).__name__}: {ascii(str(error))[1:-1][:120]}") from error


def _check_frame(client_data: bytes) -> None:
    """Refuses an answer that was given inside a frame on another site's page."""
    if json.loads(client_data).get("crossOrigin", False) is not False:
        raise ValueError("an answer from inside another site's page")


def _algorithms() -> list[Any]:
    from webauthn.helpers.cose import COSEAlgorithmIdentifier

    return [
        COSEAlgorithmIdentifier.EDDSA,
        COSEAlgorithmIdentifier.ECDSA_SHA_256,
        COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
    ]


def _descriptors(known: Iterable[str]) -> list[Any]:
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known]


def _as_json(options: Any) -> dict[str, Json]:  # noqa: ANN401  two kinds of the library
    from webauthn.helpers import options_to_json_dict

    made: dict[str, Json] = options_to_json_dict(options)
    return made


def _refuse(found: str) -> PasskeyError:
    return PasskeyError(
        need="an answer of a passkey of this person, for this console and this question",
        found=found,
        remedy="reload the page and use the passkey again",
    )
