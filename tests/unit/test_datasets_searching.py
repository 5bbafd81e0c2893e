# SPDX-License-Identifier: Apache-2.0
"""`catalogue search` and `export` at a node: words of closed lists, digits of a recipe, a file that can be written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from client.errors import NoSuchThingError
from client.membership import Member
from client.searching import export, search

RECIPES = ["sha256:" + digit * 64 for digit in "ab"]


class Broker:
    """Answers what a broker lists, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/catalogue/dcat":
            return {"dcat:dataset": []}
        fits = [{"recipe": one, "minimum_met": True} for one in RECIPES]
        return {"datasets": [{"legal_name": "Kita", "dataset": "kita/pick", "view": {"fits": fits}}]}


@pytest.fixture
def broker() -> Broker:
    return Broker()


def member(broker: Broker) -> Member:
    return cast("Member", SimpleNamespace(client=broker))


@pytest.mark.parametrize(
    ("name", "word", "listed"), [("embodiment_class", "6axis", "6r-arm "), ("episodes", "150", "100-299")]
)
def test_a_word_of_no_closed_list_is_refused_with_the_list(
    broker: Broker, name: str, word: str, listed: str
) -> None:
    with pytest.raises(NoSuchThingError) as caught:
        search(member(broker), {name: word}, certified=False)
    assert listed in caught.value.need
    assert broker.asked == []


@pytest.mark.parametrize("digits", ["a" * 12, "sha256:" + "a" * 12, "A" * 12, RECIPES[0]])
def test_twelve_digits_of_a_recipe_are_enough(broker: Broker, digits: str) -> None:
    search(member(broker), {"recipe": digits}, certified=True)
    assert broker.asked[-1] == f"/catalogue?recipe=sha256%3A{'a' * 64}&certified=true"


@pytest.mark.parametrize("digits", ["a" * 11, "c" * 12, ""])
def test_fewer_digits_or_those_of_no_recipe_are_refused_with_what_there_is(
    broker: Broker, digits: str
) -> None:
    with pytest.raises(NoSuchThingError, match="aaaaaaaaaaaa, bbbbbbbbbbbb"):
        search(member(broker), {"recipe": digits}, certified=False)


def test_an_export_into_a_folder_that_is_not_there_is_refused_before_the_broker_is_asked(
    broker: Broker, tmp_path: Any
) -> None:
    with pytest.raises(NoSuchThingError, match="mkdir -p"):
        export(member(broker), tmp_path / "none/catalogue.jsonld")
    assert broker.asked == []
    assert export(member(broker), tmp_path / "catalogue.jsonld").data["datasets"] == 0
