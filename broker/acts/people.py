# SPDX-License-Identifier: Apache-2.0
"""People: added, disabled, and given a way to log in again.

- ``person.add`` takes two people (`broker.auth.people.takes_two`): it is an act like the others. Only
  an auditor whose name has no key of an auditor is added by one operator (`add_one`).
- Disabling takes one operator. It ends the person's key file too, if they have one, for ever.
- A new login (`reset`) is a one-time link. One's own, asked for with one's own key, comes at once. For
  somebody else whom it takes two people to add, it takes two people as well, who must not be able to use it
  themselves: the first one is told a code, the second one the link, and both are needed to come in. Until the
  second has asked, nothing changes for the person.

Everything here is part of a unit of work of the writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.acts.kinds import Act, Doing, Done
from broker.auth.errors import PersonUnknownError
from broker.auth.links import ENTER, begin_reset, begun_reset, code_digest, make_link, new_code, new_secret
from broker.auth.people import (
    OPERATOR,
    ROLES,
    Addition,
    add_person,
    check_addition,
    disable_person,
    forget_logins,
    get_person,
    person_digest,
    takes_two,
)
from broker.auth.proposal_errors import ProposalOwnError, ProposalRoleError
from broker.membership.operators import revoke_operator_key
from broker.membership.records import console_action
from policies.limits import LINK_TTL_H
from policies.log.kinds import ID, NAME, Kind, enum, nullable
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.services import Services
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["ADD", "add_one", "addition", "addition_of", "disable", "reset"]

ADD: Final = "person.add"
_SUB: Final = Kind("name at the provider", lambda value: isinstance(value, str))


def addition(services: Services) -> Act:
    """The act of adding somebody."""

    def facts(session: Session, _tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        wanted = addition_of(services, payload)
        check_addition(session, wanted)
        return wanted.facts()

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        wanted = addition_of(services, doing.payload)
        add_person(session, tx, wanted, by=doing.operator.name, request=doing.request, now_ms=tx.now_ms)
        return Done(result={"person": wanted.name, "role": wanted.role})

    return Act(
        kind=ADD,
        payload={"name": NAME, "role": enum(*ROLES), "org": nullable(ID), "sub": nullable(_SUB)},
        facts=facts,
        effect=effect,
    )


def addition_of(services: Services, payload: Mapping[str, Json]) -> Addition:
    """The person to be, out of what was asked.

    Raises:
        PersonInvalidError: There cannot be such a person.
    """
    sub = payload["sub"]
    issuer = services.settings.oidc.issuer or None
    return Addition(
        name=str(payload["name"]),
        role=str(payload["role"]),
        org=None if payload["org"] is None else str(payload["org"]),
        sub=None if sub is None else str(sub),
        issuer=None if sub is None else issuer,
    )


def add_one(
    services: Services, session: Session, tx: LogTx, wanted: Addition, *, operator: Operator, request: str
) -> dict[str, Json]:
    """Adds an auditor, by one operator, with a link to come in.

    Raises:
        ProposalRoleError: It takes two people, or the one who asks is no operator.
        PersonTakenError, PersonInvalidError: They cannot be added.
    """
    _check_operator(session, operator)
    if takes_two(session, wanted.name, wanted.role):
        raise ProposalRoleError(
            need=f"two people for {wanted.name} as {wanted.role}",
            found="one",
            remedy="propose it: iriai-broker operator add NAME --role ROLE --dir DIR --key FILE",
        )
    add_person(session, tx, wanted, by=operator.name, request=request, now_ms=tx.now_ms)
    return _link(services, session, tx, wanted.name, operator, code=None)


def disable(session: Session, tx: LogTx, *, name: str, operator: Operator, request: str) -> dict[str, Json]:
    """Ends what somebody may do here, at once; the directory is told after the commit.

    Raises:
        ProposalRoleError: The one who asks is no operator.
        PersonUnknownError: Nobody of this name, or nobody any more.
    """
    _check_operator(session, operator)
    done = disable_person(session, tx, name=name, by=operator.name, request=request)
    key = revoke_operator_key(session, tx, name=name, reason="person-disabled")
    return {"name": done.name, "state": done.state, "key_revoked": key}


def reset(
    services: Services,
    session: Session,
    tx: LogTx,
    *,
    name: str,
    operator: Operator,
    request: str,
    by_key: bool,
) -> dict[str, Json]:
    """A new way to log in, for oneself or for somebody else; see the module.

    1. the person is in force; 2. with their own key: a link; 3. one's own login alone gives none; 4. whoever
       asks is an operator, or the second one and an approver; 5. of an auditor without a key: a link;
       6. the first one, also once more: a code; the second one: a link.

    Args:
        services: For the console's address.
        session: Of the transaction.
        tx: Of the transaction.
        name: Whose login.
        operator: Who asks.
        request: Digest of the request, for the log.
        by_key: Whether they signed it with their own key file.

    Raises:
        PersonUnknownError: Step 1.
        ProposalOwnError: Step 3.
        ProposalRoleError: Step 4.
    """
    own = name == operator.name
    who = get_person(session, name)
    if not who.active:  # 1.
        raise PersonUnknownError(
            need=f"{name} in force",
            found=who.state,
            remedy="add them again: iriai-broker operator add NAME --role ROLE --dir DIR --key FILE",
        )
    tx.add(console_action(operator, "person.reset", subject=person_digest(name), request=request))
    if own and by_key:  # 2.
        return _link(services, session, tx, name, operator, code=None)
    if own:  # 3.
        raise ProposalOwnError(
            need="your own key file, or two others", found="your login alone", remedy="ask two operators"
        )
    two = takes_two(session, name, who.role)
    begun = begun_reset(session, name, now_ms=tx.now_ms) if two else None
    second = begun is not None and begun[0] != operator.name
    _check_operator(session, operator, *(["approver"] if second else []))  # 4.
    if not two:  # 5.
        return _link(services, session, tx, name, operator, code=None)
    if begun is None or not second:  # 6.
        return _code(services, session, tx, name, operator)
    return _link(services, session, tx, name, operator, code=begun[1])


def _code(services: Services, session: Session, tx: LogTx, name: str, operator: Operator) -> dict[str, Json]:
    code = new_code(services.entropy)
    begin_reset(session, name=name, by=operator.name, code=code_digest(code), now_ms=tx.now_ms)
    return {"name": name, "code": code, "waits_for": "another operator"}


def _link(
    services: Services, session: Session, tx: LogTx, name: str, operator: Operator, *, code: str | None
) -> dict[str, Json]:
    secret = new_secret(services.entropy)
    forget_logins(session, name)
    make_link(session, name=name, secret=secret, made_by=operator.name, now_ms=tx.now_ms, code=code)
    made: dict[str, Any] = {
        "name": name,
        "link": services.settings.console + ENTER + secret,
        "until": iso_s(tx.now_ms + LINK_TTL_H * 3_600_000),
        "needs_code": code is not None,
    }
    return made


def _check_operator(session: Session, operator: Operator, *others: str) -> None:
    """Refuses everybody who is not an operator in force (or one of the other roles), however they came in."""
    found = get_person(session, operator.name)
    if not found.active or found.role not in {OPERATOR, *others}:
        raise ProposalRoleError(
            need="a person whose role is operator", found=found.role, remedy="ask an operator of this broker"
        )
