# SPDX-License-Identifier: Apache-2.0
"""Pages of any list, whatever is added between them: every row that was there comes once, in order; no text breaks a cursor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.api.paging import PageAsked
from broker.errors import RequestInvalidError

KEYS = st.tuples(st.integers(0, 20), st.text("abc", min_size=1, max_size=2))


@settings(deadline=None)
@given(
    before=st.sets(KEYS, max_size=25),
    added=st.lists(st.sets(KEYS, max_size=3), max_size=12),
    limit=st.integers(1, 5),
    newest=st.booleans(),
)
def test_every_row_that_was_there_comes_once_whatever_is_added(before, added, limit, newest):
    rows, cursor, seen = set(before), None, []
    more = iter(added)
    while True:
        page = PageAsked(limit=limit, cursor=cursor).of("list", rows, key=lambda one: one, newest=newest)
        seen += page.rows[::-1] if newest else page.rows
        assert len(page.rows) <= limit
        assert page.rows == sorted(page.rows)
        if page.next is None:
            break
        cursor = page.next
        rows |= next(more, set())
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=newest)
    assert before <= set(seen)


@settings(deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))))
def test_no_text_is_a_cursor_unless_a_list_made_it(text):
    with pytest.raises(RequestInvalidError):
        PageAsked(limit=1, cursor=text).of("list", [(1, "a"), (2, "b")], key=lambda one: one)


def test_a_cursor_of_another_list_or_with_another_key_is_refused():
    rows = [(1, "a"), (2, "b")]
    page = PageAsked(limit=1, cursor=None).of("list", rows, key=lambda one: one)
    with pytest.raises(RequestInvalidError):
        PageAsked(limit=1, cursor=page.next).of("other", rows, key=lambda one: one)
    with pytest.raises(RequestInvalidError):
        PageAsked(limit=1, cursor=page.next).of("list", rows, key=lambda one: (one[1],))
    with pytest.raises(RequestInvalidError):
        PageAsked(limit=1, cursor=f"{page.next}=").of("list", rows, key=lambda one: one)
