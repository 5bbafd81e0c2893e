# SPDX-License-Identifier: Apache-2.0
"""Passkeys in a real Chromium: a virtual authenticator, and our self-made certificate as one that it trusts.

Chromium refuses WebAuthn on a page whose certificate it does not trust, also where a context ignores such
errors (``ignore_https_errors``). One key is excepted by ``--ignore-certificate-errors-spki-list``, which works
only with a profile folder of its own: so the browser is launched with it.

    with trusting(tls_pem, profile_folder) as context:
        page = context.new_page()
        authenticator = Authenticator(page)
        page.goto("https://localhost:8443/console/login")        # the name, never 127.0.0.1: passkeys need one
        page.get_by_role("button", name="Add a passkey").click()
        authenticator.credentials()                              # what it holds; remove() takes the device away
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.browsersim import ARGUMENTS, CHROMIUM

OPTIONS = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def spki_pin(tls_pem: Path) -> str:
    """What Chromium calls a key that it shall trust: base64 of SHA-256 of its SubjectPublicKeyInfo."""
    leaf = x509.load_pem_x509_certificates(tls_pem.read_bytes())[0]
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


@contextlib.contextmanager
def trusting(tls_pem: Path, profile: Path, *, browser: Any = None, **context: Any) -> Iterator[Any]:
    """A browser context that trusts exactly this certificate's key.

    Args:
        tls_pem: The certificate.
        profile: A folder that is empty.
        browser: One that runs already in this thread: Playwright starts only once in it.
        context: Options of the context, as ``locale="ja-JP"``.
    """
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as held:
        kind = held.enter_context(sync_playwright()).chromium if browser is None else browser.browser_type
        opened = kind.launch_persistent_context(
            str(profile),
            executable_path=CHROMIUM,
            headless=True,
            args=[*ARGUMENTS, f"--ignore-certificate-errors-spki-list={spki_pin(tls_pem)}"],
            service_workers="block",
            **context,
        )
        held.callback(opened.close)
        yield opened


class Authenticator:
    """A virtual authenticator of one page: it says yes to everything, and keeps its keys until `remove`."""

    def __init__(self, page: Any, **options: Any) -> None:
        self._cdp = page.context.new_cdp_session(page)
        self._cdp.send("WebAuthn.enable", {"enableUI": False})
        made = self._cdp.send("WebAuthn.addVirtualAuthenticator", {"options": OPTIONS | options})
        self._id = {"authenticatorId": made["authenticatorId"]}

    def credentials(self) -> list[dict[str, Any]]:
        """What it holds: id, rpId, user handle, private key, counter."""
        return list(self._cdp.send("WebAuthn.getCredentials", self._id)["credentials"])

    def give(self, credential: dict[str, Any]) -> None:
        """Puts a credential of another page's authenticator into this one."""
        self._cdp.send("WebAuthn.addCredential", self._id | {"credential": credential})

    def absent(self) -> None:
        """Nobody touches it any more: what is asked now is refused."""
        self._cdp.send("WebAuthn.setUserVerified", self._id | {"isUserVerified": False})
        self._cdp.send("WebAuthn.setAutomaticPresenceSimulation", self._id | {"enabled": False})

    def remove(self) -> None:
        """Takes the device away."""
        self._cdp.send("WebAuthn.removeVirtualAuthenticator", self._id)
