# SPDX-License-Identifier: Apache-2.0
"""A confirmation in person of exactly some bytes, as evidence that can be kept and checked again.

- ``passkey``: the browser's answer to the question SHA-256(bytes), with the public key. Whoever has the bytes
  and the log (``passkey.add``) can check it without the broker.
- ``password``: the broker's own word that this person, in this session, gave their password for these bytes
  at most `STEP_UP_MIN` before. It proves nothing to others, and says so by its name.

`Confirmed` is what a person's word becomes: called with bytes it gives the evidence, if that is for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.auth.errors import AuthError, EvidenceError
from broker.auth.passkeys import Passkeys, question_of
from broker.auth.proposals import Evidence
from policies.encoding import b64, canonical, digest, unb64
from policies.errors import EncodingError
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.auth.credentials import Credential
    from broker.auth.sessions import Login

__all__ = ["Confirmed", "Proof", "by_passkey", "by_password", "check_evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """Somebody's word for the bytes of this digest."""

    name: str
    digest: str
    evidence: Evidence

    def __call__(self, subject: bytes) -> Evidence:
        """The evidence, for whoever holds the bytes.

        Raises:
            EvidenceError: It was given for other bytes.
        """
        if digest(subject) != self.digest:
            raise EvidenceError(
                need=f"a confirmation of {digest(subject)}",
                found=f"one of {self.digest}",
                remedy="look at it again and confirm what is shown",
            )
        return self.evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What evidence proves.

    Attributes:
        name: Whose word it is.
        how: ``passkey`` or ``password``.
        key: Digest of the passkey's public key, as ``passkey.add`` names it; None for a password.
    """

    name: str
    how: str
    key: str | None


def by_passkey(login: Login, subject: bytes, answer: str, passkey: Credential) -> Confirmed:
    """Evidence from an answer that was checked just now."""
    given = json.loads(answer)
    response = given["response"]
    document = {
        "person": login.person.name,
        "subject": digest(subject),
        "key": b64(passkey.key),
        "id": passkey.id,
        "client_data": response["clientDataJSON"],
        "authenticator_data": response["authenticatorData"],
        "signature": response["signature"],
    }
    evidence = Evidence(how="passkey", data=canonical(document))
    return Confirmed(name=login.person.name, digest=digest(subject), evidence=evidence)


def by_password(login: Login, subject: bytes, stepped_ms: int) -> Confirmed:
    """Evidence from a password that was given just now, or a moment ago."""
    document = {
        "person": login.person.name,
        "subject": digest(subject),
        "session": login.id,
        "given": iso_s(stepped_ms),
    }
    evidence = Evidence(how="password", data=canonical(document))
    return Confirmed(name=login.person.name, digest=digest(subject), evidence=evidence)


def check_evidence(evidence: Evidence, subject: bytes, *, passkeys: Passkeys) -> Proof:
    """Checks evidence again: that it is of these bytes, and the passkey's answer. Not whose passkey it was.

    Args:
        evidence: As it was kept.
        subject: The bytes.
        passkeys: Of the console at which it was given.

    Raises:
        EvidenceError: It does not prove it.
    """
    try:
        document = json.loads(evidence.data)
        if document["subject"] != digest(subject):
            raise _refuse(f"evidence of {digest(subject)}", str(document["subject"])[:80])
        name = str(document["person"])
        if evidence.how == "password":
            return Proof(name=name, how="password", key=None)
        if evidence.how != "passkey":
            raise _refuse("a passkey's or a password's evidence", evidence.how[:40])
        key = unb64(document["key"])
        passkeys.check_answer(_answer(document), question_of(subject), name=name, key=key, count=0)
    except EvidenceError:
        raise
    except (AuthError, EncodingError, ValueError, KeyError, TypeError) as error:
        raise _refuse("an answer of that passkey to that question", ascii(str(error))[1:-1][:120]) from error
    return Proof(name=name, how="passkey", key=digest(key))


def _answer(document: dict[str, Any]) -> str:
    response = {
        "clientDataJSON": document["client_data"],
        "authenticatorData": document["authenticator_data"],
        "signature": document["signature"],
    }
    whole = {"id": document["id"], "rawId": document["id"], "type": "public-key", "response": response}
    return json.dumps(whole)


def _refuse(need: str, found: str) -> EvidenceError:
    return EvidenceError(need=need, found=found, remedy="do not rely on it; ask the person")
