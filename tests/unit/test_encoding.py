# SPDX-License-Identifier: Apache-2.0
"""Canonical bytes, the narrower profile of signed documents, and the spelling of decimals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.encoding import (
    b64,
    canonical,
    decimal_text,
    digest,
    digest_of,
    is_digest,
    new_id,
    parse,
    sha256,
    unb64,
)
from policies.errors import EncodingError
from policies.limits import INTEGER_MAX, NESTING_DEPTH, STRING_CHARS

texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "S")), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(documents)
def test_what_canonical_writes_parse_reads(document):
    data = canonical(document)
    try:
        read = parse(data)
    except EncodingError as error:  # only the normalisation form is narrower than JSON here
        assert "normalisation" in error.need  # noqa: PT017
    else:
        assert read == document
        assert canonical(read) == data


def test_keys_are_sorted_by_utf16_code_units():
    assert (
        canonical({"\u20ac": 1, "\U0001f600": 2, "\ufb33": 3, "a": 4})
        == '{"a":4,"€":1,"😀":2,"\ufb33":3}'.encode()
    )


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), "\ud800", {"\ud800": 1}, {1: "x"}, b"bytes", {1, 2}, object()],
)
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(EncodingError) as refused:
        canonical(value)
    assert refused.value.code == "encoding.not-canonical"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{} ",
        b' {"a":1}',
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b"{'a':1}",
        '{"a":"e\u0301"}'.encode(),
        b'{"a":"' + b"x" * (STRING_CHARS + 1) + b'"}',
        b"[" * (NESTING_DEPTH + 2) + b"]" * (NESTING_DEPTH + 2),
        b"[" * 100_000,
    ],
)
def test_parse_refuses_every_other_spelling(data):
    with pytest.raises(EncodingError):
        parse(data)


def test_parse_allows_up_to_its_bounds():
    deepest = b"[" * NESTING_DEPTH + b"]" * NESTING_DEPTH
    assert canonical(parse(deepest)) == deepest
    for document in ({"a": INTEGER_MAX}, {"a": -INTEGER_MAX}, {"a": "x" * STRING_CHARS}, {"é": "北"}):
        assert parse(canonical(document)) == document


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("8", "8"),
        ("8.00", "8"),
        ("08", "8"),
        ("0.50", "0.5"),
        ("1e-5", "0.00001"),
        ("1E2", "100"),
        ("0", "0"),
        ("0.0", "0"),
        ("0e5", "0"),
        ("999999999999", "999999999999"),
        ("0." + "0" * 17 + "1", "0." + "0" * 17 + "1"),
    ],
)
def test_decimals_have_one_plain_spelling(text, plain):
    assert decimal_text(text) == plain
    assert decimal_text(plain) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "NaN",
        "sNaN",
        "Infinity",
        "-1",
        "-0",
        "1000000000000",
        "0." + "0" * 18 + "1",
        "0x1",
        "1,5",
        8,
        8.0,
        None,
        True,
        b"8",
    ],
)
def test_other_decimals_are_refused(text):
    with pytest.raises(EncodingError):
        decimal_text(text)


def test_digests():
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of({"b": 1, "a": 2}) == digest(b'{"a":2,"b":1}')
    assert digest(b"x") == "sha256:" + sha256(b"x").hex()
    assert is_digest(digest(b""))
    for other in ("sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 64, "0" * 64, None, b""):
        assert not is_digest(other)


@given(st.binary(max_size=40))
def test_base64_round_trip_standard_and_url_safe(data):
    text = b64(data)
    assert unb64(text) == data
    assert unb64(text.replace("+", "-").replace("/", "_")) == data


@pytest.mark.parametrize("text", ["A", "AA", "AAA", "AA=", "A A=", "AA==\n", "!!!!", None, 5])
def test_other_base64_is_refused(text):
    with pytest.raises(EncodingError):
        unb64(text)


def test_identifiers():
    assert new_id("org", bytes(10)) == "org_aaaaaaaaaaaaaaaa"
    assert len(new_id("ctr", b"\xff" * 10)) == 20
    with pytest.raises(EncodingError):
        new_id("org", bytes(9))
