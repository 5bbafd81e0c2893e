# SPDX-License-Identifier: Apache-2.0
"""Where people are logged in: opaque tokens, rows that can be ended, and what a request is told.

- A token is 256 random bits in the cookie `COOKIE`; the database has its SHA-256 only, which names the
  session. A fresh token is drawn at each login, so no token from before a login is ever worth one.
- A session ends when it was idle for `SESSION_IDLE_MIN`, `SESSION_H` after its login, when somebody ends it,
  and with its person. Its last use is written at most every `SESSION_SEEN_S`, and exact in memory.
- The form token (``csrf``) is computed from the token; it is stored nowhere.
- While the log is frozen nothing can be written, but whoever has to find out why must get in: sessions that
  begin or end then do so in this process. A process that starts with a frozen log trusts no stored session,
  because it cannot know which were ended: everybody logs in again.
- A session begins, and is confirmed, only if what was checked before still holds in that transaction: the
  person is in force in the same role, and the password, passkey or link is still the one that was verified.
- A person has at most `SESSIONS_PER_PERSON`; the one that was idle longest makes room.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import delete, insert, select, update

from broker.auth.credentials import can_come_back
from broker.auth.errors import SessionEndedError, WrongLoginError
from broker.auth.people import Person, find_person
from broker.log.errors import LogFrozenError
from broker.store.tables import login_session
from policies.encoding import digest
from policies.limits import SESSION_H, SESSION_IDLE_MIN, SESSION_SEEN_S, SESSIONS_PER_PERSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Delete

    from broker.log import LogTx, Writer
    from broker.store import Session, Store
    from policies.log.entries import Event
    from policies.ports import Clock, Entropy

    Check = Callable[[Session], bool]

__all__ = ["COOKIE", "How", "Login", "Opened", "Sessions", "Step"]

COOKIE: Final = "__Host-iriai"
How = Literal["passkey", "password", "link", "oidc"]
Step = Literal["passkey", "password"]
_TOKEN_BYTES: Final = 32
_IDLE_MS: Final = SESSION_IDLE_MIN * 60_000
_WHOLE_MS: Final = SESSION_H * 3_600_000
_SEEN_MS: Final = SESSION_SEEN_S * 1_000
_AGENT_CHARS: Final = 200
_KEPT: Final = 1_000  # last uses in memory before those of ended sessions go
_STEPS: Final = frozenset({"passkey", "password"})  # a login by these is a confirmation in person


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Somebody who is logged in.

    Attributes:
        person: Who.
        id: Digest of the token: the session's name.
        csrf: What each form of this session carries.
        since_ms: When they logged in.
        seen_ms: When they were here last, this time included.
        stepped_ms: When they confirmed last in person that it is them; None if they did not.
        stepped_by: By what they did; None if they did not, or if nobody knows.
        how: By what they logged in.
        agent: What their browser called itself, for the list of sessions.
        has_credential: Whether they can come back: by a passkey, a password or the provider.
    """

    person: Person
    id: str
    csrf: str
    since_ms: int
    seen_ms: int
    stepped_ms: int | None
    how: How
    agent: str = ""
    has_credential: bool = True
    stepped_by: Step | None = None

    @property
    def until_ms(self) -> int:
        """When it ends, whatever they do."""
        return self.since_ms + _WHOLE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session that has just begun; ``token`` is for the cookie and told this once."""

    token: str
    login: Login


class Sessions:
    """The sessions. `find` may be called from anywhere; changes go through the writer."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._trusted = writer.frozen is None
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._ended: set[str] = set()
        self._seen: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._stepped: dict[str, tuple[int, Step]] = {}

    def find(self, token: str | None) -> Login | None:
        """Who has this token; None if nobody, or nobody any more.

        1. it has the form of a token; 2. it is of a session; 3. that is neither idle nor old; 4. its person
           is in force. Then it was seen now.
        """
        raw = _raw(token)  # 1.
        if raw is None:
            return None
        name, now_ms = digest(raw), self._clock.now_ms()
        with self._store.read() as session:
            row = self._row(session, name)  # 2.
            if row is None or not self._current(row, now_ms):  # 3.
                return None
            who = find_person(session, row["person"])
            returns = row["how"] != "link" or can_come_back(session, row["person"])
        if who is None or not who.active:  # 4.
            return None
        self._touch(row, now_ms)
        return replace(_login(row | {"seen_ms": now_ms}, who, _csrf(raw)), has_credential=returns)

    def alive(self, login: Login) -> bool:
        """Whether a login is still one: for streams, which read it once and do not count as being there."""
        with self._store.read() as session:
            return self.holds(session, login) and find_person(session, login.person.name) == login.person

    def holds(self, session: Session, login: Login) -> bool:
        """Whether a login is still one in this transaction: not ended, not old, its person as they were."""
        row = self._row(session, login.id)
        current = row is not None and self._current(row, self._clock.now_ms())
        return current and _same(session, login.person)

    async def open(
        self, who: Person, how: How, *, agent: str = "", check: Check = lambda _session: True
    ) -> Opened:
        """Lets somebody in, with a fresh token.

        Args:
            who: As they were when they proved it.
            how: By what.
            agent: What their browser calls itself.
            check: Whether what they proved it with is still theirs; asked in the session's transaction.

        Raises:
            WrongLoginError: It is not, or they are not in force any more.
        """
        raw, now_ms = self._entropy.token_bytes(_TOKEN_BYTES), self._clock.now_ms()
        row: dict[str, Any] = {
            "id": digest(raw),
            "person": who.name,
            "how": how,
            "agent": ascii(agent)[1:-1][:_AGENT_CHARS],
            "since_ms": now_ms,
            "seen_ms": now_ms,
            "stepped_ms": now_ms if how in _STEPS else None,
            "stepped_by": how if how in _STEPS else None,
        }

        def still(session: Session) -> None:
            if not (_same(session, who) and check(session)):
                raise WrongLoginError(
                    need="a way in that is still good", found="it changed meanwhile", remedy="sign in again"
                )

        def work(session: Session, _tx: LogTx) -> None:
            still(session)
            self._make_room(session, who.name, now_ms)
            session.execute(insert(login_session).values(row))

        try:
            await self._writer.run(work)
        except LogFrozenError:
            with self._store.read() as session:
                still(session)
            self._unwritten[digest(raw)] = row
        login = replace(_login(row, who, _csrf(raw)), has_credential=how != "link")
        return Opened(token=_token(raw), login=login)

    async def step(self, login: Login, by: Step, *, check: Check = lambda _session: True) -> Login:
        """Notes that somebody has just confirmed in person.

        Raises:
            SessionEndedError: The login ended meanwhile, or what they confirmed with is not theirs any more.
        """
        now_ms = self._clock.now_ms()
        mine = update(login_session).where(login_session.c.id == login.id)

        def still(session: Session) -> None:
            if not (self.holds(session, login) and check(session)):
                raise SessionEndedError(
                    need="a login that is still good", found="it ended meanwhile", remedy="sign in again"
                )

        def work(session: Session, _tx: LogTx) -> None:
            still(session)
            session.execute(mine.values(stepped_ms=now_ms, stepped_by=by))

        try:
            await self._writer.run(work)
        except LogFrozenError:
            with self._store.read() as session:
                still(session)
            self._stepped[login.id] = now_ms, by
        return replace(login, stepped_ms=now_ms, stepped_by=by)

    async def end(self, name: str, session_id: str, *, event: Event | None = None) -> bool:
        """Ends one session of a person, with an entry if one is given; False if they have no such session."""
        if session_id not in {one.id for one in self.of(name)}:
            return False
        await self._end([session_id], event)
        return True

    async def end_all(self, name: str, *, keep: str | None = None, event: Event | None = None) -> int:
        """Ends every session of a person, but for one, with an entry if any ended; how many."""
        ended = [one.id for one in self.of(name) if one.id != keep]
        if ended:
            await self._end(ended, event)
        return len(ended)

    async def _end(self, names: list[str], event: Event | None) -> None:
        """Ends sessions in this process at once, then on the disk."""
        for one in names:
            self._forget(one)
        if await self._change(delete(login_session).where(login_session.c.id.in_(names)), event):
            self._ended.difference_update(names)

    def of(self, name: str) -> list[Login]:
        """A person's sessions that have not ended, the newest first; without their form tokens."""
        now_ms = self._clock.now_ms()
        with self._store.read() as session:
            who = find_person(session, name)
            ids = session.scalars(select(login_session.c.id).where(login_session.c.person == name)).all()
            ids = [*ids, *(one for one, row in self._unwritten.items() if row["person"] == name)]
            rows = [row for row in (self._row(session, one) for one in ids) if row is not None]
        if who is None or not who.active:
            return []
        found = [_login(row, who, "") for row in rows if self._current(row, now_ms)]
        return sorted(found, key=lambda one: -one.since_ms)

    def _row(self, session: Session, name: str) -> dict[str, Any] | None:
        """A session's row, with what only this process knows of it."""
        if name in self._ended:
            return None
        row = self._unwritten.get(name)
        if row is None and self._trusted:
            found = session.execute(select(login_session).where(login_session.c.id == name)).mappings()
            row = next((dict(one) for one in found), None)
        if row is None:
            return None
        written_ms = row["seen_ms"]
        seen_ms = max(written_ms, self._seen.get(name, 0))
        stepped_ms, by = self._stepped.get(name, (row["stepped_ms"], row["stepped_by"]))
        kept = {"written_ms": written_ms, "seen_ms": seen_ms, "stepped_ms": stepped_ms, "stepped_by": by}
        return row | kept

    @staticmethod
    def _current(row: dict[str, Any], now_ms: int) -> bool:
        seen_ms, since_ms = int(row["seen_ms"]), int(row["since_ms"])
        return now_ms - seen_ms < _IDLE_MS and now_ms - since_ms < _WHOLE_MS

    def _touch(self, row: dict[str, Any], now_ms: int) -> None:
        """Notes that a session was used; on the disk once in a while, and nobody waits for that."""
        name = row["id"]
        if len(self._seen) >= _KEPT:
            self._seen = {one: at for one, at in self._seen.items() if now_ms - at < _IDLE_MS}
        asked_ms = max(row["written_ms"], self._asked.get(name, 0))
        self._seen[name] = max(row["seen_ms"], now_ms)
        if now_ms - asked_ms < _SEEN_MS:
            return
        self._asked = {one: at for one, at in self._asked.items() if now_ms - at < _SEEN_MS} | {name: now_ms}
        seen = update(login_session).where(login_session.c.id == name).values(seen_ms=now_ms)
        self._writer.submit(lambda session, _tx: session.execute(seen) and None)

    async def _change(self, statement: Delete, event: Event | None) -> bool:
        """Removes rows; False if nothing can be written now."""

        def work(session: Session, tx: LogTx) -> None:
            session.execute(statement)
            if event is not None:
                tx.add(event)

        try:
            await self._writer.run(work)
        except LogFrozenError:
            return False
        return True

    def _forget(self, name: str) -> None:
        self._ended.add(name)
        self._unwritten.pop(name, None)
        self._seen.pop(name, None)
        self._stepped.pop(name, None)

    @staticmethod
    def _make_room(session: Session, name: str, now_ms: int) -> None:
        old = (login_session.c.since_ms <= now_ms - _WHOLE_MS) | (
            login_session.c.seen_ms <= now_ms - _IDLE_MS - _SEEN_MS
        )
        session.execute(delete(login_session).where(old))
        mine = select(login_session.c.id).where(login_session.c.person == name)
        oldest_last = mine.order_by(login_session.c.seen_ms.desc(), login_session.c.id)
        for one in session.scalars(oldest_last).all()[SESSIONS_PER_PERSON - 1 :]:
            session.execute(delete(login_session).where(login_session.c.id == one))


def _same(session: Session, who: Person) -> bool:
    """Whether a person is in force, and what they were."""
    now = find_person(session, who.name)
    return now is not None and now.active and (now.role, now.org) == (who.role, who.org)


def _login(row: dict[str, Any], who: Person, csrf: str) -> Login:
    return Login(
        person=who,
        id=row["id"],
        csrf=csrf,
        since_ms=row["since_ms"],
        seen_ms=row["seen_ms"],
        stepped_ms=row["stepped_ms"],
        how=row["how"],
        agent=row["agent"],
        stepped_by=row["stepped_by"],
    )


def _token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _raw(token: str | None) -> bytes | None:
    if token is None or len(token) != len(_token(bytes(_TOKEN_BYTES))):
        return None
    try:
        raw = base64.b64decode(token + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _token(raw) == token else None


def _csrf(raw: bytes) -> str:
    return _token(hashlib.sha256(b"iriai/csrf/1\x00" + raw).digest())
