# SPDX-License-Identifier: Apache-2.0
"""The way into an OPC UA server: encrypted, to the one server that was named, as somebody it knows.

1. sign-and-encrypt, with a certificate of this client and the certificate that the server must show: a first
   look at whatever answers proves nothing;
2. the identity is a user with a password, else the certificate itself;
3. ``insecure=True`` alone allows a connection without either, and the caller notes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from client.data.errors import LiveInsecureError, LiveSourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Access", "broken", "check_access", "closed", "connected", "unreachable"]

_TIMEOUT_S: Final = 10
_SECURE: Final = "name --certificate, --key and --server-certificate, or say --insecure-no-security"
Policy = Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a server is entered.

    Attributes:
        certificate: This client's certificate, PEM or DER; its URI is the client's name.
        key: Its private key.
        server_certificate: The one certificate that the server may show.
        user: Name; without one the certificate is the identity.
        password: Of the user.
        policy: Security policy; the mode is always sign-and-encrypt.
        insecure: No signature, no encryption, no identity unless ``user`` is there.
    """

    certificate: Path | None = None
    key: Path | None = None
    server_certificate: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    policy: Policy = "Basic256Sha256"
    insecure: bool = False


def check_access(endpoint: str, access: Access) -> None:
    """Refuses an endpoint or a way in that is not safe.

    Raises:
        LiveSourceError: No endpoint of OPC UA.
        LiveInsecureError: Less than sign-and-encrypt, and nobody asked for that.
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "opc.tcp" or not parts.hostname or "@" in parts.netloc:
        raise LiveSourceError(
            need="an endpoint opc.tcp://host:port, without a user in it",
            found="another address",
            remedy="correct it; name the user with --user",
        )
    if access.insecure:
        return
    if not (access.certificate and access.key and access.server_certificate):
        raise LiveInsecureError(
            need="a certificate of this client and that of the server", found="none", remedy=_SECURE
        )
    if access.user is not None and not access.password:
        raise LiveInsecureError(
            need="a password for the user", found="none", remedy="name a file with --password-file"
        )


async def connected(endpoint: str, access: Access) -> Any:  # noqa: ANN401  a client of asyncua
    """A client that entered the server.

    Raises:
        LiveSourceError: No connection, no entry, no readable certificate, or no library.
    """
    try:
        from asyncua.client.client import Client
        from asyncua.crypto import security_policies
    except ImportError as error:
        raise LiveSourceError(
            need="asyncua", found="not installed", remedy="pip install 'iriai[opcua]'"
        ) from error
    client = Client(endpoint, timeout=_TIMEOUT_S)
    refusals: tuple[type[Exception], ...] = (*broken(), ValueError, TypeError)  # the last two: of files
    try:
        if not access.insecure:
            policy = getattr(security_policies, f"SecurityPolicy{access.policy}")
            client.application_uri = _uri_of(access)
            await client.set_security(
                policy,
                str(access.certificate),
                str(access.key),
                server_certificate=str(access.server_certificate),
            )
        if access.user is not None:
            client.set_user(access.user)
            client.set_password(access.password or "")
        elif access.certificate is not None and access.key is not None:
            await client.load_client_certificate(str(access.certificate))
            await client.load_private_key(access.key)
        await client.connect()
    except refusals as error:
        await closed(client)
        raise unreachable(error) from error
    return client


def _uri_of(access: Access) -> str:
    """The name by which the certificate knows this client."""
    from cryptography import x509

    data = access.certificate.read_bytes() if access.certificate else b""
    pem = data.lstrip().startswith(b"-----")
    found = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("a certificate without a URI") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise ValueError("a certificate without a URI")
    return uris[0]


async def closed(client: Any) -> None:  # noqa: ANN401  of asyncua, or None
    """Ends a connection, whatever is left of it."""
    if client is not None:
        with contextlib.suppress(*broken()):
            await client.disconnect()


def broken() -> tuple[type[Exception], ...]:
    """What asyncua raises when a connection or a request fails."""
    from asyncua.ua.uaerrors import UaError

    return (UaError, OSError, TimeoutError, StopAsyncIteration)


def unreachable(error: Exception) -> LiveSourceError:
    """The refusal behind an error of the connection."""
    name = getattr(error, "name", None) or type(error).__name__
    return LiveSourceError(
        need="a server that answers and lets this client in",
        found=str(name)[:80],
        remedy="check endpoint, certificates and user; the server must trust this client's certificate",
    )
