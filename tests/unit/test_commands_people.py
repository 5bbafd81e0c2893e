# SPDX-License-Identifier: Apache-2.0
"""What the commands about people say: links and codes on standard output alone, and the next step."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker.commands import people

if TYPE_CHECKING:
    from collections.abc import Iterator

LINK = "https://localhost:8443/console/enter/" + "A" * 43


@dataclass
class Told:
    """A broker that answers one document, and the command's way to it."""

    answer: dict[str, Any]
    sent: list[tuple[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def client(self) -> Iterator[Told]:
        yield self

    def get(self, path: str) -> dict[str, Any]:
        self.sent.append((path, None))
        return self.answer

    def post(self, path: str, body: Any) -> dict[str, Any]:
        self.sent.append((path, body))
        return self.answer


def test_a_link_is_the_output_and_the_words_are_beside_it() -> None:
    where = Told({"name": "alice", "link": LINK, "until": "2026-09-24T14:13:20Z", "needs_code": False})
    result = people.operator_reset_login(where, "alice")  # type: ignore[arg-type]
    assert result.plain_output == LINK
    assert "works once" in result.text[0]
    assert LINK not in "".join(result.text)
    assert where.sent == [("/operator/people/alice/reset-login", {})]


def test_one_s_own_login_needs_no_name_because_the_key_says_who_asks() -> None:
    where = Told({"people": [], "you": "bob", "name": "bob", "link": LINK, "until": "2026-09-24T14:13:20Z"})
    result = people.operator_login(where)  # type: ignore[arg-type]
    assert (result.plain_output, where.sent) == (
        LINK,
        [("/operator/people", None), ("/operator/people/bob/reset-login", {})],
    )


def test_a_link_with_a_second_half_says_who_has_it() -> None:
    where = Told({"name": "carol", "link": LINK, "until": "2026-09-24T14:13:20Z", "needs_code": True})
    assert "the first operator was told" in "".join(people.operator_reset_login(where, "carol").text)  # type: ignore[arg-type]


def test_a_code_is_the_output_and_the_next_step_is_another_operators() -> None:
    where = Told({"name": "carol", "code": "abcd-efgh-2345-6777", "waits_for": "another operator"})
    result = people.operator_reset_login(where, "carol")  # type: ignore[arg-type]
    assert result.plain_output == "abcd-efgh-2345-6777"
    assert any(
        "another operator runs iriai-broker operator reset-login carol" in line for line in result.text
    )


def test_what_was_told_before_is_not_told_again() -> None:
    result = people.operator_reset_login(Told({"name": "alice"}), "alice")  # type: ignore[arg-type]
    assert result.plain_output is None
    assert "ask for another one" in result.text[0]


def test_whoever_could_approve_is_proposed_and_the_steps_are_named() -> None:
    where = Told({"name": "carol", "proposal": {"id": "prop_a"}})
    result = people.operator_add(where, "carol", role="approver", org=None, sub=None)  # type: ignore[arg-type]
    assert where.sent == [("/operator/people", {"name": "carol", "role": "approver"})]
    assert result.plain_output == "prop_a"
    assert any("iriai-broker proposal approve prop_a" in line for line in result.text)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        ({"passkeys": 2, "password": True, "provider": True}, "2 passkeys, password, provider"),
        ({"passkeys": 1, "password": False, "provider": False}, "1 passkey"),
        ({"passkeys": 0, "password": False, "provider": False}, "nothing yet"),
    ],
)
def test_the_list_says_how_each_one_comes_in(one: dict[str, Any], says: str) -> None:
    row = {"name": "alice", "role": "operator", "org": None, "state": "active", "since": None} | one
    lines = people.operator_list(Told({"people": [row]})).text  # type: ignore[arg-type]
    assert says in lines[-1]
    assert "from the start" in lines[-1]


def test_disabling_says_what_became_of_the_key() -> None:
    done = Told({"name": "bob", "state": "disabled", "key_revoked": True})
    assert people.operator_disable(done, "bob").text == (  # type: ignore[arg-type]
        "bob: disabled; logged out everywhere; the key file is revoked",
    )
