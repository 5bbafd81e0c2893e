# SPDX-License-Identifier: Apache-2.0
"""Connectors of dataspaces that operators registered: who they are, how they prove it, where they are told.

- A connector cannot sign as our members do. It shows a bearer token that was told once; only its SHA-256 is
  stored, and every registered one is compared, in constant time.
- Callbacks go to the registered address and to no other. It is https, without user, query or fragment.
- A name belongs to one participant for good. Registering the same participant again gives a new token and
  ends the old one; a removed one has no token.
- ``org`` ties a connector to a member: then the member's own agreements are open to it, else only open tiers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sqlalchemy import func, insert, select, update

from broker.contracts.errors import (
    CallbackInvalidError,
    CounterpartyTakenError,
    NotPartyError,
    TokenRefusedError,
)
from broker.membership.records import console_action
from broker.store.tables import dsp_counterparty
from policies.contract.odrl.profile import PREFIX
from policies.encoding import digest_of
from policies.limits import DSP_COUNTERPARTIES, DSP_ID_CHARS

if TYPE_CHECKING:
    from sqlalchemy import Row, Update

    from broker.log import LogTx
    from broker.membership.directory import Directory, Operator
    from broker.store import Session
    from policies.encoding import Json
    from policies.ports import Clock, Entropy

__all__ = ["Counterparties", "Counterparty", "Registration", "check_callback"]

ACTIVE: Final = "active"
REMOVED: Final = "removed"
_TOKEN_BYTES: Final = 32
_TOKEN_CHARS: Final = 200
_SCHEME: Final = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterparty:
    """A registered connector.

    Attributes:
        name: Among the operators.
        participant: How it is called in agreements.
        callback: Where it is told.
        org: The member that it speaks for, or None.
    """

    name: str
    participant: str
    callback: str
    org: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A connector as an operator registers it, with the token that is told once."""

    counterparty: Counterparty
    token: str

    @property
    def token_sha256(self) -> str:
        """What is stored of the token."""
        return _token_digest(self.token)


def _token_digest(token: str) -> str:
    return hashlib.sha256(token.encode("ascii", errors="replace")).hexdigest()


def check_callback(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        CallbackInvalidError: Not https, or with a user, a query, a fragment or no host.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise _bad_callback(address) from error
    plain = address.isascii() and address.isprintable() and " " not in address
    clean = not (parts.username or parts.password or parts.query or parts.fragment or "?" in address)
    if parts.scheme != "https" or not parts.hostname or not plain or not clean or port == 0:
        raise _bad_callback(address)
    if len(address) > DSP_ID_CHARS or "\\" in address or "/.." in parts.path:
        raise _bad_callback(address)
    return address.rstrip("/")


def _bad_callback(address: str) -> CallbackInvalidError:
    return CallbackInvalidError(
        need=f"https://host[:port][/path], at most {DSP_ID_CHARS} characters",
        found=ascii(address)[1:-1][:120],
        remedy="give the address at which the connector takes messages of the Dataspace Protocol",
    )


class Counterparties:
    """The service; methods that take a session and a log are units of work of the writer."""

    def __init__(self, *, directory: Directory, clock: Clock, entropy: Entropy) -> None:
        self._directory = directory
        self._clock = clock
        self._entropy = entropy

    def new(self, *, name: str, callback: str, participant: str | None, org: str | None) -> Registration:
        """A registration with a fresh token; nothing is stored yet.

        Raises:
            CallbackInvalidError: No address that would be called.
            NotActiveError, UnknownOrganisationError: No such active member.
        """
        if org is not None:
            self._directory.member(org)
        secret = base64.urlsafe_b64encode(self._entropy.token_bytes(_TOKEN_BYTES)).decode("ascii").rstrip("=")
        counterparty = Counterparty(
            name=name,
            participant=participant or f"{PREFIX}counterparty:{name}",
            callback=check_callback(callback),
            org=org,
        )
        return Registration(counterparty=counterparty, token=f"dsp_{secret}")

    def add(
        self, session: Session, tx: LogTx, made: Registration, *, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Stores a registration; the same participant again gets the new token in place of the old one.

        Raises:
            CounterpartyTakenError: The name belongs to another participant, or there is no room.
        """
        one = made.counterparty
        fields = {
            "participant": one.participant,
            "callback": one.callback,
            "org": one.org,
            "token_sha256": made.token_sha256,
            "state": ACTIVE,
            "at_ms": self._clock.now_ms(),
        }
        known = _row(session, one.name)
        if known is None:
            _check_room(session)
            session.execute(insert(dsp_counterparty).values(name=one.name, **fields))
        else:
            if (known.participant, known.org) != (one.participant, one.org):
                raise CounterpartyTakenError(
                    need=f"{one.name} as registered: {known.participant}, {known.org or 'no member'}",
                    found=f"{one.participant}, {one.org or 'no member'}",
                    remedy="give another participant another name",
                )
            session.execute(_at(one.name).values(**fields))
        subject = digest_of(["dsp.counterparty", one.name, one.participant, one.callback, one.org])
        tx.add(console_action(operator, "dsp.counterparty-add", subject=subject, request=request))
        return _shown(one)

    def remove(
        self, session: Session, tx: LogTx, name: str, *, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Ends a connector's token at once. What it agreed stays.

        Raises:
            NotPartyError: No such connector.
        """
        known = _row(session, name)
        if known is None:
            raise NotPartyError(
                need="a registered connector",
                found=ascii(name)[1:-1][:60],
                remedy="iriai-broker dsp counterparty list",
            )
        session.execute(_at(name).values(state=REMOVED, token_sha256=""))
        tx.add(
            console_action(
                operator,
                "dsp.counterparty-remove",
                subject=digest_of(["dsp.counterparty", name]),
                request=request,
            )
        )
        return _shown(_of(known)) | {"state": REMOVED}

    def list(self, session: Session) -> list[dict[str, Json]]:
        """Every connector that was ever registered."""
        rows = session.execute(select(dsp_counterparty).order_by(dsp_counterparty.c.name))
        return [_shown(_of(row)) | {"state": row.state} for row in rows]

    def authenticate(self, session: Session, header: str | None) -> Counterparty:
        """The connector behind an ``Authorization`` header.

        Raises:
            TokenRefusedError: No token, or nobody's.
        """
        token = (header or "").removeprefix(_SCHEME)
        given = header is not None and header.startswith(_SCHEME) and 0 < len(token) <= _TOKEN_CHARS
        presented, found = _token_digest(token), None
        for row in session.execute(select(dsp_counterparty).where(dsp_counterparty.c.state == ACTIVE)):
            if hmac.compare_digest(row.token_sha256, presented):  # every one is compared, always
                found = _of(row)
        if found is None or not given:
            raise TokenRefusedError(
                need="Authorization: Bearer and a registered token",
                found="another one" if given else "none",
                remedy="ask the broker's operators for a token",
            )
        return found


def _check_room(session: Session) -> None:
    count = session.scalar(select(func.count()).select_from(dsp_counterparty)) or 0
    if count >= DSP_COUNTERPARTIES:
        raise CounterpartyTakenError(
            need=f"at most {DSP_COUNTERPARTIES} connectors",
            found=str(count + 1),
            remedy="register one connector for several partners of the same participant",
        )


def _row(session: Session, name: str) -> Row[tuple[str, ...]] | None:
    return session.execute(select(dsp_counterparty).where(dsp_counterparty.c.name == name)).first()


def _at(name: str) -> Update:
    return update(dsp_counterparty).where(dsp_counterparty.c.name == name)


def _of(row: Row[tuple[str, ...]]) -> Counterparty:
    return Counterparty(name=row.name, participant=row.participant, callback=row.callback, org=row.org)


def _shown(one: Counterparty) -> dict[str, Json]:
    return {
        "name": one.name,
        "participant": one.participant,
        "callback": one.callback,
        "org": one.org,
        "state": ACTIVE,
    }
