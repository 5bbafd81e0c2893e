# SPDX-License-Identifier: Apache-2.0
"""One-time links: how a person comes in who has nothing to log in with yet.

- The secret in a link is 256 random bits; the database has its SHA-256. It works once, within `LINK_TTL_H`.
- A link for whoever it takes two people to add has a second half, a code that another person hands over: the
  one who asked first has the code, the one who asked second has the link. Neither alone comes in as a third
  person. Until the second one has asked, the row of the code alone waits, under an id that no secret has.
- Making a link ends the older ones of the same person.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select, update

from broker.auth.errors import LinkError
from broker.auth.people import get_person
from broker.store.tables import login_link
from broker.store.upserts import insert_or_update
from policies.encoding import digest
from policies.limits import LINK_TTL_H

if TYPE_CHECKING:
    from broker.auth.people import Person
    from broker.store import Session
    from policies.ports import Entropy

__all__ = [
    "ENTER",
    "begin_reset",
    "begun_reset",
    "code_digest",
    "make_link",
    "needs_code",
    "new_code",
    "new_secret",
    "stands",
    "use_link",
]

ENTER: Final = "/console/enter/"
_SECRET_BYTES: Final = 32
_CODE_BYTES: Final = 10  # 16 letters and digits; tried online only, and a link that was tried wrongly is over
_CODE_GROUP: Final = 4
_BEGUN: Final = "begun:"  # no digest begins like this


def new_secret(entropy: Entropy) -> str:
    """The secret of a link: 43 characters."""
    return base64.urlsafe_b64encode(entropy.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode("ascii")


def new_code(entropy: Entropy) -> str:
    """A second half, to be read out: ``abcd-efgh-2345-6777``."""
    text = base64.b32encode(entropy.token_bytes(_CODE_BYTES)).decode("ascii").lower()
    return "-".join(text[at : at + _CODE_GROUP] for at in range(0, len(text), _CODE_GROUP))


def code_digest(code: str) -> str:
    """What is stored of a second half; spaces, hyphens and case do not matter."""
    return digest("".join(one for one in code.lower() if one.isalnum()).encode("utf-8"))


def make_link(
    session: Session, *, name: str, secret: str, made_by: str, now_ms: int, code: str | None = None
) -> None:
    """Keeps what recognises a link.

    Args:
        session: Of the transaction.
        name: Whose link.
        secret: From `new_secret`; told to one person and stored nowhere.
        made_by: Who is told.
        now_ms: The time.
        code: `code_digest` of the second half; None for a link that needs none.
    """
    session.execute(delete(login_link).where(login_link.c.person == name))
    session.execute(
        insert(login_link).values(
            id=digest(secret.encode("ascii")),
            person=name,
            code=code,
            made_by=made_by,
            expires_ms=now_ms + LINK_TTL_H * 3_600_000,
            used_ms=None,
        )
    )


def begin_reset(session: Session, *, name: str, by: str, code: str, now_ms: int) -> None:
    """Keeps the first half of what two people have to want: who asked, and the digest of their code."""
    row = {
        "id": _BEGUN + name,
        "person": name,
        "code": code,
        "made_by": by,
        "expires_ms": now_ms + LINK_TTL_H * 3_600_000,
        "used_ms": None,
    }
    insert_or_update(session, login_link, row)


def begun_reset(session: Session, name: str, *, now_ms: int) -> tuple[str, str] | None:
    """Who asked first, and the digest of their code; None if nobody did, or too long ago."""
    mine = (login_link.c.id == _BEGUN + name) & (login_link.c.expires_ms > now_ms)
    row = session.execute(select(login_link.c.made_by, login_link.c.code).where(mine)).first()
    return None if row is None else (str(row[0]), str(row[1]))


def needs_code(session: Session, secret: str) -> bool:
    """Whether a link has a second half; False also of links that nobody made."""
    found = session.scalar(select(login_link.c.code).where(login_link.c.id == _id(secret)))
    return found is not None


def stands(session: Session, secret: str) -> bool:
    """Whether a link, used or not, was neither replaced by a newer one nor ended with its person."""
    return session.scalar(select(login_link.c.id).where(login_link.c.id == _id(secret))) is not None


def use_link(session: Session, *, secret: str, code: str | None, now_ms: int) -> Person | None:
    """Uses a link up; who came in. None after a wrong second half: then the link is over too.

    1. somebody made it; 2. nobody used it; 3. in its time; 4. its person is in force; 5. its second
       half fits.

    Raises:
        LinkError: Steps 1 to 4; nothing was changed.
    """
    mine = login_link.c.id == _id(secret)
    row = session.execute(select(login_link).where(mine)).mappings().first()
    if row is None:  # 1.
        raise _refuse("a link in force", "one that was used, replaced by a newer one, or never made")
    if row["used_ms"] is not None:  # 2.
        raise _refuse("a link that was not used", "a used one; if it was not you, tell the operators at once")
    if now_ms >= row["expires_ms"]:  # 3.
        raise _refuse(f"a link at most {LINK_TTL_H} hours old", "an older one")
    who = get_person(session, row["person"])
    if not who.active:  # 4.
        raise _refuse("a link of somebody who may log in", "one who may not")
    session.execute(update(login_link).where(mine).values(used_ms=now_ms))
    fits = row["code"] is None or hmac.compare_digest(row["code"], code_digest(code or ""))
    return who if fits else None  # 5.


def wrong_code() -> LinkError:
    """The refusal of a link whose second half was wrong."""
    return _refuse("the code that the first operator was told", "another one; the link is over now")


def _id(secret: str) -> str:
    return digest(secret.encode("utf-8", "replace"))


def _refuse(need: str, found: str) -> LinkError:
    return LinkError(need=need, found=found, remedy="ask an operator for a new link")
