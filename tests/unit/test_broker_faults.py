# SPDX-License-Identifier: Apache-2.0
"""A field that does not fit is answered with what it has to be, never with a library's word or the value."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from broker.api.bodies import Body, read_body
from broker.api.faults import said
from broker.errors import RequestInvalidError
from policies.encoding import canonical


class _Asked(Body):
    country: str = Field(pattern=r"^[A-Z]{2}$")
    name: str = Field(min_length=1, max_length=3)
    days: int = Field(default=1, ge=1, le=9)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            {"country": "Japan", "name": "x"},
            "country: has to be two capital letters of ISO 3166, such as JP",
        ),
        ({"country": "JP"}, "name: is missing"),
        ({"country": "JP", "name": "x", "more": 1}, "more: is no field of this request"),
        ({"country": 3, "name": "x"}, "country: has to be a text"),
        ({"country": "JP", "name": "long name"}, "name: has to have at most 3 characters"),
        (
            {"country": "JP", "name": "", "days": 10},
            "name: has to have at least 1 characters; days: has to be at most 9",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_told_what_it_has_to_be(body, found):
    with pytest.raises(RequestInvalidError) as refused:
        read_body(canonical(body), _Asked)
    assert refused.value.found == found


def test_a_form_without_words_is_shown_as_it_is():
    assert said("string_pattern_mismatch", {"pattern": "^x$"}) == "has to be of the form ^x$"
    assert said("of_another_kind", {}) == "of_another_kind"


def test_every_form_that_a_route_asks_for_by_a_pattern_has_words():
    """Those of bodies that people fill in; identifiers of protocols are shown as patterns."""
    from broker.api import auditors, incidents, membership, people, proposals, runs

    patterns = set()
    for module in (auditors, incidents, membership, people, proposals, runs):
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, BaseModel):
                patterns |= set(_patterns(one.model_json_schema()))
    assert patterns
    assert sorted(one for one in patterns if said("", {"pattern": one}).endswith(one)) == []


def _patterns(tree):
    if isinstance(tree, dict):
        found = [tree["pattern"]] if isinstance(tree.get("pattern"), str) else []
        return found + [one for value in tree.values() for one in _patterns(value)]
    return [one for value in tree for one in _patterns(value)] if isinstance(tree, list) else []


def test_a_value_that_was_sent_is_never_repeated():
    with pytest.raises(RequestInvalidError) as refused:
        read_body(canonical({"country": "a secret", "name": "a secret"}), _Asked)
    assert "secret" not in refused.value.found
