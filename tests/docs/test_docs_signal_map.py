# SPDX-License-Identifier: Apache-2.0
"""The page of the signal map names every key, field, unit, rule, class and profile. Planted: a key that nobody described."""

from __future__ import annotations

from typing import get_args

import pytest

from client.data.proposing import profile_names
from client.data.signalmap import Segment, load_map
from client.data.units import FIELD_RULES, ROTATION, UNITS
from policies.messages import EMBODIMENT_CLASSES
from tests.docs import signal_map_page
from tests.docs.facts import ROOT


def page() -> str:
    return (ROOT / "docs/reference/signal-map.md").read_text("utf-8")


def test_everything_that_a_map_may_say_is_on_the_page() -> None:
    assert signal_map_page.lacking() == []
    rules = get_args(Segment.model_fields["by"].annotation)
    names = [*FIELD_RULES, *UNITS, *EMBODIMENT_CLASSES, *profile_names(), *rules]
    text = page()
    assert [one for one in names if f"`{one}`" not in text] == []
    assert {name for name, one in UNITS.items() if one.dimension == ROTATION} == set(
        signal_map_page.ROTATIONS
    )


def test_a_key_without_words_and_words_without_a_key_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {one: said for one, said in signal_map_page.WORDS.items() if one != "clock.unit"}
    monkeypatch.setattr(signal_map_page, "WORDS", words | {"clock.zone": "no such thing"})
    assert signal_map_page.lacking() == ["clock.unit: no words", "clock.zone: no such key"]


def test_the_example_of_the_page_is_a_map() -> None:
    assert load_map(ROOT / "docs/how-to/example/signalmap.toml").signals
