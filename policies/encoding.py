# SPDX-License-Identifier: Apache-2.0
"""Canonical bytes: what digests and signatures are taken over (RFC 8785, JSON Canonicalization Scheme).

- `canonical` writes, `parse` reads and refuses every byte string that `canonical` would not have written.
- The profile of signed documents is narrower than JSON: no floats (decimals are strings), integers up to
  2**53 - 1, strings in
  Unicode normalisation form C, no duplicate keys. `canonical` itself takes any JSON value, so that the
  public vectors apply.
- A digest prints as ``sha256:`` and 64 hex digits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import TYPE_CHECKING, Any

import rfc8785

from policies.errors import EncodingError
from policies.limits import (
    DECIMAL_FRACTION_DIGITS,
    DECIMAL_INTEGER_DIGITS,
    INTEGER_MAX,
    JSON_DEPTH,
    NESTING_DEPTH,
    STRING_CHARS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "b64",
    "canonical",
    "decimal_text",
    "digest",
    "digest_of",
    "new_id",
    "parse",
    "parse_plain",
    "sha256",
    "unb64",
]

Json = Any  # a JSON value; recursive types would be re-checked at every boundary anyway

_REMEDY = "send exactly the RFC 8785 bytes of the document"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _writer() -> Callable[[Json], str]:
    """`_ENCODER.encode`, without a new compiled encoder for every value."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _ENCODER.encode
    quote = json.encoder.encode_basestring
    write = make(None, _ENCODER.default, quote, None, ":", ",", True, False, True)  # noqa: FBT003  its own
    return lambda obj: "".join(write(obj, 0))


_write = _writer()
_quote = json.encoder.encode_basestring


def _refuse(need: str, found: str) -> EncodingError:
    return EncodingError(need=need, found=found, remedy=_REMEDY)


def canonical(obj: Json) -> bytes:
    """RFC 8785 bytes of a JSON value.

    Raises:
        EncodingError: The value has no canonical form (NaN, an integer beyond 2**53 - 1, a lone surrogate, a
            key that is no string), or is nested deeper than `JSON_DEPTH`: a bound of our own, since Python
            gives up at a depth that depends on who called.
    """
    if type(obj) is str and obj.isascii():
        return _quote(obj).encode("ascii")  # most values are such, and the encoder has its price
    if _is_plain(obj, JSON_DEPTH):
        return _write(obj).encode("utf-8")
    _check_depth(obj)
    try:
        return rfc8785.dumps(obj)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise _refuse("a value that RFC 8785 can write", type(error).__name__) from error


def _is_plain(obj: Json, deeper: int) -> bool:
    """Whether `json.dumps` writes the canonical bytes: no floats, small integers, ASCII keys, not too deep.

    It is three times faster. A property test pins the equality of both; whatever this refuses, the library
    decides.
    """
    kind = type(obj)
    if kind is str:
        return obj.isascii() or _is_encodable(obj)
    if kind is dict:
        return deeper > 0 and _are_plain(obj, deeper - 1)
    if kind is list:
        return deeper > 0 and all(map(_is_plain, obj, repeat(deeper - 1)))
    return obj is None or kind is bool or (kind is int and -INTEGER_MAX <= obj <= INTEGER_MAX)


def _are_plain(members: dict[Json, Json], deeper: int) -> bool:
    for key, value in members.items():
        if type(key) is not str or not key.isascii():
            return False
        if (type(value) is not str or not value.isascii()) and not _is_plain(value, deeper):
            return False
    return True


def _check_depth(obj: Json) -> None:
    """Level by level, so that it fails for no depth.

    Raises:
        EncodingError: Nested deeper than `JSON_DEPTH`.
    """
    level = [obj]
    for _ in range(JSON_DEPTH):
        level = [value for one in level for value in _values(one)]
    if any(isinstance(one, dict | list | tuple) for one in level):
        raise _refuse(f"nesting of at most {JSON_DEPTH}", "a deeper value")


def _values(obj: Json) -> Iterable[Json]:
    """What is nested directly in a value."""
    if isinstance(obj, dict):
        return obj.values()
    return obj if isinstance(obj, list | tuple) else ()


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise _refuse("each key once", f"key {key!r} twice")
        found[key] = value
    return found


def _refuse_float(text: str) -> Json:
    raise _refuse("decimals as strings", f"the number {text[:40]}")


def _bounded_int(text: str) -> int:
    if len(text) > len(str(INTEGER_MAX)) + 1 or abs(int(text)) > INTEGER_MAX:
        raise _refuse(f"integers within ±{INTEGER_MAX}", f"{text[:40]}")
    return int(text)


def _check_string(text: str) -> None:
    if len(text) > STRING_CHARS:
        raise _refuse(f"strings of at most {STRING_CHARS} characters", f"{len(text)} characters")
    if not unicodedata.is_normalized("NFC", text):
        raise _refuse("strings in normalisation form C", ascii(text[:40]))


def check_profile(obj: Json, *, depth: int = 0) -> None:
    """Refuses what signed documents may not hold: floats, huge integers, text not in NFC, deep nesting.

    Raises:
        EncodingError: With what was found.
    """
    if depth > NESTING_DEPTH:
        raise _refuse(f"nesting of at most {NESTING_DEPTH}", "a deeper document")
    if isinstance(obj, str):
        _check_string(obj)
    elif isinstance(obj, dict):
        for key, value in obj.items():
            check_profile(key, depth=depth + 1)
            check_profile(value, depth=depth + 1)
    elif isinstance(obj, list | tuple):
        for value in obj:
            check_profile(value, depth=depth + 1)
    elif isinstance(obj, float):
        _refuse_float(repr(obj))
    elif isinstance(obj, int) and abs(obj) > INTEGER_MAX:
        raise _refuse(f"integers within ±{INTEGER_MAX}", "a larger one")


_READ_PLAIN = json.JSONDecoder(
    parse_float=_refuse_float, parse_int=_bounded_int, parse_constant=_refuse_float
).decode


def parse_plain(data: bytes, *, depth: int = NESTING_DEPTH) -> Json | None:
    """The value behind bytes that are canonical and plain; None where the slow way has to decide.

    Plain is ASCII without floats, nested no deeper than ``depth``. Then writing what was read gives the
    bytes again if and only if they are canonical: a repeated key, another order, spelling or escape all come
    out otherwise.
    """
    if not data.isascii():
        return None
    text = data.decode("ascii")
    try:
        obj = _READ_PLAIN(text)
        if _write(obj) != text:
            return None
    except (ValueError, EncodingError, RecursionError):
        return None
    shallow = text.count("{") + text.count("[") <= depth
    return obj if shallow or _nested(obj, depth) else None


def _nested(obj: Json, depth: int) -> bool:
    """Whether containers are nested no deeper than this."""
    if not isinstance(obj, dict | list):
        return True
    below = obj.values() if isinstance(obj, dict) else obj
    return depth > 0 and all(_nested(one, depth - 1) for one in below if isinstance(one, dict | list))


def parse(data: bytes) -> Json:
    """The JSON value behind canonical bytes of a signed document.

    Returns:
        The parsed value; hand it on, so that nobody parses the bytes twice.

    Raises:
        EncodingError: Not UTF-8 JSON, a duplicate key, a float, an integer beyond 2**53 - 1, a string that
            is not NFC, nesting deeper
            than the limit, or bytes that differ from their own canonical form.
    """
    if len(data) <= STRING_CHARS and (plain := parse_plain(data)) is not None:
        return plain
    try:
        obj = json.loads(
            data.decode("utf-8", errors="strict"),
            object_pairs_hook=_no_duplicates,
            parse_float=_refuse_float,
            parse_int=_bounded_int,
            parse_constant=_refuse_float,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _refuse("UTF-8 JSON", type(error).__name__) from error
    check_profile(obj)
    if canonical(obj) != data:
        raise _refuse("canonical bytes", "another spelling of the same document")
    return obj


def sha256(data: bytes) -> bytes:
    """SHA-256 of bytes, 32 bytes."""
    return hashlib.sha256(data).digest()


def digest(data: bytes) -> str:
    """``sha256:`` and 64 hex digits of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(obj: Json) -> str:
    """Digest of the canonical bytes of a JSON value."""
    return digest(canonical(obj))


def is_digest(text: object) -> bool:
    """Whether a value is a digest as `digest` prints it."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def b64(data: bytes) -> str:
    """Standard base64 with padding, the form of all binary values in our JSON."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Bytes behind standard or URL-safe base64.

    Raises:
        EncodingError: Any character outside the alphabet, wrong padding, or bits that mean nothing.
    """
    if not isinstance(text, str):
        raise _refuse("base64", type(text).__name__)
    plain = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refuse("base64", "other characters or lengths") from error
    if base64.b64encode(data).decode("ascii") != plain:
        raise _refuse("the one base64 spelling of these bytes", "another")
    return data


def decimal_text(text: str) -> str:
    """Plain spelling of a decimal string: ``"8.00"`` gives ``"8"``, ``"1e-5"`` gives ``"0.00001"``.

    Raises:
        EncodingError: Not a finite decimal, negative, or more than 12 integer or 18 fraction digits.
    """
    try:
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise _refuse("a decimal as a string", repr(text)[:40]) from error
    if not isinstance(text, str) or not value.is_finite() or value.is_signed():
        raise _refuse("a finite decimal that is not negative", repr(text)[:40])
    if value and not -DECIMAL_FRACTION_DIGITS <= value.adjusted() < DECIMAL_INTEGER_DIGITS:
        raise _refuse("a decimal of ordinary size", repr(text)[:40])  # before its zeros are written out
    if not value:
        return "0"
    plain = format(value, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    whole, _, fraction = plain.partition(".")
    whole = whole.lstrip("0") or "0"
    if len(whole) > DECIMAL_INTEGER_DIGITS or len(fraction) > DECIMAL_FRACTION_DIGITS:
        raise _refuse(
            f"at most {DECIMAL_INTEGER_DIGITS} integer and {DECIMAL_FRACTION_DIGITS} fraction digits",
            repr(text)[:40],
        )
    return f"{whole}.{fraction}" if fraction else whole


def new_id(prefix: str, random10: bytes) -> str:
    """An identifier: ``prefix_`` and base32 of 80 random bits, made by the party that owns the thing."""
    if len(random10) != 10:  # noqa: PLR2004  80 bits
        raise _refuse("10 random bytes", f"{len(random10)}")
    return f"{prefix}_{base64.b32encode(random10).decode('ascii').lower()}"
