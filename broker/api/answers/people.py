# SPDX-License-Identifier: Apache-2.0
"""What the room of people answers."""

from __future__ import annotations

from broker.api.answers.proposals import ProposalShown  # noqa: TC001  pydantic reads the annotations
from broker.api.answers.values import ABSENT, Name
from broker.api.declared import Shown

__all__ = ["LoginMade", "People", "PersonAdded", "PersonDisabled"]


class PersonShown(Shown):
    """Somebody, and how they can log in."""

    name: Name
    role: str
    org: str | None
    state: str
    since: str | None
    passkeys: int
    password: bool
    provider: bool


class People(Shown):
    """Everybody who may log in, or could once, by name; ``you``: the operator whose key asks."""

    people: list[PersonShown]
    you: Name


class PersonAdded(Shown):
    """A proposal, where it takes two people; else a one-time link, which a repeated request does not get."""

    name: Name
    proposal: ProposalShown = ABSENT
    link: str = ABSENT
    until: str = ABSENT
    needs_code: bool = ABSENT


class PersonDisabled(Shown):
    """Somebody who may do nothing here any more."""

    name: Name
    state: str
    key_revoked: bool


class LoginMade(Shown):
    """A one-time link, or the code that goes with the one that a second operator gets."""

    name: Name
    link: str = ABSENT
    until: str = ABSENT
    needs_code: bool = ABSENT
    code: str = ABSENT
    waits_for: str = ABSENT
