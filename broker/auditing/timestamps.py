# SPDX-License-Identifier: Apache-2.0
"""Time stamps of others (RFC 3161): a token over a checkpoint, by an authority outside the pool. Optional.

A token is over the *text* of a note, the three lines that every signature in it is over: cosignatures that
come later change nothing. The broker asks nobody; the operator's command line does, checks, and hands the
reply over:

1. `ask`: a question over the text, with a nonce, and with the request for certificates;
2. `check_reply`: the authority granted it; signature and chain lead to a certificate that the operator named;
   it answers this very question; the imprint is of this text;
3. the broker looks again at what needs no trust (`check_imprint`), and keeps the reply as it came, once for
   each size. It is in every bundle from then on, and OpenSSL checks it (`iriai-verify` prints how).

The library comes with the extra ``rfc3161``. Without it nothing here works, and nothing else is missing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import select

from broker.auditing.errors import AuthorityError, TimestampInvalidError, TimestampsMissingError
from broker.membership.records import console_action
from broker.store import tables
from policies.encoding import digest
from policies.limits import TSA_REPLY_BYTES
from policies.log.checkpoint import parse_note

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from rfc3161_client import TimeStampRequest, TimeStampResponse

    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session

__all__ = ["ask", "check_imprint", "check_reply", "keep_reply", "text_of", "trusted"]

_GRANTED: Final = 0
_TABLE = tables.log_timestamp


def _library() -> Any:  # noqa: ANN401  a module that may be absent
    try:
        import rfc3161_client
    except ImportError as error:
        raise TimestampsMissingError(
            need="the library rfc3161-client",
            found="none",
            remedy="install iriai with the extra rfc3161: pip install 'iriai[broker,rfc3161]'",
        ) from error
    return rfc3161_client


def text_of(note: str) -> bytes:
    """What a token is over: the text of a note, without its signatures.

    Raises:
        NoteError: No note.
    """
    return parse_note(note).text.encode("utf-8")


def trusted(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of an authority, as the operator keeps them in a file.

    Raises:
        AuthorityError: No certificates in PEM.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise AuthorityError(
            need="certificates of the time-stamping authority, in PEM",
            found="something else",
            remedy="get them from the authority itself; name the file with --tsa-ca",
        ) from error


def ask(text: bytes) -> TimeStampRequest:
    """Step 1. ``as_bytes()`` of it is what is sent.

    Raises:
        TimestampsMissingError: The library is not installed.
    """
    library = _library()
    builder = library.TimestampRequestBuilder(data=text, hash_algorithm=library.HashAlgorithm.SHA256)
    request: TimeStampRequest = builder.build()
    return request


def check_reply(
    reply: bytes, text: bytes, *, asked: TimeStampRequest, anchors: Sequence[x509.Certificate]
) -> int:
    """Step 2; the time of the token, in milliseconds.

    Args:
        reply: As the authority sent it.
        text: What was to be stamped.
        asked: From `ask`.
        anchors: From `trusted`: its root, and whatever certificates its reply lacks.

    Raises:
        TimestampInvalidError: Something does not hold.
        TimestampsMissingError: The library is not installed.
    """
    library = _library()
    response = _response(reply)
    builder = library.VerifierBuilder.from_request(asked)
    for one in anchors:
        if one.issuer == one.subject:
            builder = builder.add_root_certificate(one)
        elif _stamps(one):
            builder = builder.tsa_certificate(one)
        else:
            builder = builder.add_intermediate_certificate(one)
    _understood(lambda: builder.build().verify_message(response, text))
    return check_imprint(reply, text)


def check_imprint(reply: bytes, text: bytes) -> int:
    """Step 3: what needs no trust; the time that the token says, in milliseconds.

    Raises:
        TimestampInvalidError: Not granted, or about something else.
        TimestampsMissingError: The library is not installed.
    """
    response = _response(reply)
    if response.status != _GRANTED:
        raise _invalid("a granted time stamp", f"status {response.status}")
    imprint = _understood(lambda: response.tst_info.message_imprint)
    if imprint.message != hashlib.sha256(text).digest():
        raise _invalid("the SHA-256 of the checkpoint's three lines", imprint.message.hex())
    made: dt.datetime = _understood(lambda: response.tst_info.gen_time)
    return round(made.timestamp() * 1000)


def keep_reply(
    session: Session, tx: LogTx, *, size: int, reply: bytes, operator: Operator, request: str
) -> bool:
    """Stores a reply that was checked; False if there is one for this size already."""
    if session.scalar(select(_TABLE.c.size).where(_TABLE.c.size == size)) is not None:
        return False
    session.execute(_TABLE.insert().values(size=size, token=reply, at_ms=tx.now_ms))
    tx.add(console_action(operator, "audit.timestamp", subject=digest(reply), request=request))
    return True


def _response(reply: bytes) -> TimeStampResponse:
    if len(reply) > TSA_REPLY_BYTES:
        raise _invalid(f"at most {TSA_REPLY_BYTES} bytes", f"{len(reply)}")
    library = _library()
    response: TimeStampResponse = _understood(lambda: library.decode_timestamp_response(reply))
    if response.as_bytes() != reply:
        raise _invalid("one DER encoding and nothing behind it", "another")
    return response


def _understood(step: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the library gives
    try:
        return step()
    except Exception as error:  # a parser of foreign bytes: whatever it raises, this is no time stamp
        raise _invalid("a time stamp that holds", f"{type(error).__name__}: {error}") from error


def _stamps(certificate: x509.Certificate) -> bool:
    """Whether a certificate is one that signs time stamps."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return ExtendedKeyUsageOID.TIME_STAMPING in usages


def _invalid(need: str, found: str) -> TimestampInvalidError:
    return TimestampInvalidError(
        need=need,
        found=ascii(found)[1:-1][:200],
        remedy="ask again, or another authority; check the certificates of --tsa-ca",
    )
