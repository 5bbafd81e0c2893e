# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a field of a request, in words that say what it has to be; never the value itself.

    said("string_pattern_mismatch", {"pattern": "^[A-Z]{2}$"})
    # 'has to be two capital letters of ISO 3166, such as JP'

The forms are those that routes ask for. One that has no words here is shown as the pattern that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["said"]

_REASON: Final = "a code of lower-case words, such as operator-decision or data.quality"
_FORMS: Final = {
    r"^[A-Z]{2}$": "two capital letters of ISO 3166, such as JP",
    r"^[a-z][a-z0-9-]{0,31}$": "lower-case letters, digits and hyphens, at most 32, such as kita-group",
    r"^[a-z][a-z0-9-]{0,40}$": "lower-case letters, digits and hyphens, at most 41, such as kita-audit",
    r"^[a-z][a-z0-9_]{0,40}$": "lower-case letters, digits and underscores, such as legal_name",
    r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$": _REASON,
    r"^(operator|approver|auditor|member)$": "operator, approver, auditor or member",
    r"^[a-z]+\.[a-z-]+$": "two words with a dot between them, such as org.remove",
    r"^[0-9a-f]{64}$": "64 hex digits",
    r"^[A-Za-z0-9+/]*={0,2}$": "bytes in base64",
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$": "a time in UTC, such as 2027-01-31T09:00:00Z",
    r"^sha256:[0-9a-f]{64}$": "sha256: and 64 hex digits",
    r"^ed25519:[0-9a-f]{64}$": "ed25519: and 64 hex digits",
    r"^org_[a-z2-7]{16}$": "the id of an organisation: org_ and 16 letters or digits",
    r"^node_[a-z2-7]{16}$": "the id of a node: node_ and 16 letters or digits",
    r"^run_[a-z2-7]{16}$": "the id of a run: run_ and 16 letters or digits",
}
_KINDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is no field of this request",
    "string_type": "has to be a text",
    "int_type": "has to be a whole number",
    "bool_type": "has to be true or false",
    "list_type": "has to be a list",
    "dict_type": "has to be an object",
    "model_type": "has to be an object",
    "model_attributes_type": "has to be an object",
    "string_too_short": "has to have at least {min_length} characters",
    "string_too_long": "has to have at most {max_length} characters",
    "too_short": "has to have at least {min_length} items",
    "too_long": "has to have at most {max_length} items",
    "greater_than": "has to be more than {gt}",
    "greater_than_equal": "has to be at least {ge}",
    "less_than": "has to be less than {lt}",
    "less_than_equal": "has to be at most {le}",
    "literal_error": "has to be {expected}",
}


def said(kind: str, about: Mapping[str, Any]) -> str:
    """The fault of one field.

    Args:
        kind: Its name, as the library that checks bodies gives it.
        about: The bounds that the rule has.
    """
    pattern = about.get("pattern")
    if pattern is not None:
        return f"has to be {_FORMS.get(str(pattern), f'of the form {pattern}')}"
    words = _KINDS.get(kind, kind)
    return words.format_map({name: str(value) for name, value in about.items()}) if "{" in words else words
