# SPDX-License-Identifier: Apache-2.0
"""The shape of a screen, and the registry of all screens and acts with who may have them.

    room = Room("members")

    @room.screen("/console/members", name="members", title=T("Members and nodes"), roles=OPERATORS,
                 sees=Sees.EVERYTHING, command="iriai-broker org list")
    def members(view: View) -> Screen:
        return Screen(panels=(Panel("list", T("Who is in"), table=Table(...)),))

    @room.act("/console/members/{org}/suspend", name="org-suspend", roles=OPERATORS, sees=Sees.EVERYTHING)
    async def suspend(act: Act) -> Done:
        await act.change(lambda session, tx: ...)
        return Done("/console/members", T("{org} is suspended.", org=Code(org)))

- Routes are closed by default: a screen or act without roles and without `Sees` cannot be written.
- A panel whose source cannot be read shows the code of that; the others are shown (`View.panel`).
- Names of panels, facts and tables are unique on their screen; they are the keys of the JSON.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from broker.console.values import Nothing, T, Value, plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from markupsafe import Markup

    from broker.console.acting import Act
    from broker.console.viewing import View
    from policies.encoding import Json
    from policies.errors import IriaiError

__all__ = [
    "ALL_PEOPLE",
    "ANYONE",
    "AUDITORS",
    "OPERATORS",
    "PUBLIC",
    "READERS",
    "Area",
    "Ceremony",
    "Column",
    "Done",
    "Drawing",
    "Fact",
    "Field",
    "Form",
    "Panel",
    "Room",
    "Route",
    "Screen",
    "Sees",
    "Table",
]

ANYONE: Final = "anyone"
"""The role of whoever is not signed in, and of everybody else besides."""
PUBLIC: Final = frozenset({ANYONE})
OPERATORS: Final = frozenset({"operator", "approver"})
"""Whoever runs the broker. Acts that only ``operator`` may do say so: ``roles=frozenset({"operator"})``."""
AUDITORS: Final = frozenset({"auditor"})
READERS: Final = frozenset({"operator", "approver", "auditor"})
ALL_PEOPLE: Final = frozenset({"operator", "approver", "auditor", "member"})


class Sees(enum.Enum):
    """Which objects a screen or act reaches: the object check that every route declares."""

    EVERYTHING = "everything"
    """All of the broker's; only for roles that may."""
    OWN = "own"
    """What the caller's organisation may see by the API; anything else answers 404."""
    SELF = "self"
    """The person's own login, keys and settings."""
    OPEN = "open"
    """What is for anybody."""


class Area(enum.Enum):
    """Which navigation a screen stands in."""

    CONSOLE = "console"
    AUDIT = "audit"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Fact:
    """One value with its name; ``as_of_ms``: when it was said, ``fresh_s``: how long it is news."""

    name: str
    label: T
    value: Value
    as_of_ms: int | None = None
    fresh_s: int | None = None
    note: T | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; ``sort``: its head is a link that sorts by it."""

    name: str
    label: T
    sort: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of values by the names of the columns.

    Attributes:
        name: Key in the JSON; what ``?format=csv&table=`` asks for.
        caption: What the rows are.
        columns: From left to right; the first one heads its row.
        rows: A value that is missing is `Nothing`.
        empty: What would be here, why it is not, and the next step.
        more: Query of the next page (``after=…``), if there are more rows.
        total: Rows in all, where that is cheap to know.
        folded: Rows of the page, where equal ones stand in one; JSON and CSV have each of `rows`.
    """

    name: str
    caption: T
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    empty: T
    more: Mapping[str, str] | None = None
    total: int | None = None
    folded: Sequence[Mapping[str, Value]] | None = None

    @property
    def shown(self) -> Sequence[Mapping[str, Value]]:
        """The rows of the page."""
        return self.rows if self.folded is None else self.folded

    def sorted_by(self, query: Mapping[str, str]) -> Table:
        """The same rows in the order that ``?sort=NAME`` (and ``&desc=1``) asks for."""
        name = query.get("sort", "")
        if not any(one.name == name and one.sort for one in self.columns):
            return self
        rows = sorted(self.rows, key=lambda row: _order(row.get(name)), reverse=query.get("desc") == "1")
        return Table(
            name=self.name,
            caption=self.caption,
            columns=self.columns,
            rows=rows,
            empty=self.empty,
            more=self.more,
            total=self.total,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture made on the server, and the same figures as a table (`broker.console.charts`)."""

    name: str
    title: T
    svg: Callable[[Callable[[Value], str]], Markup]
    """Given how to say a value in the reader's language, the picture."""
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form: ``kind`` is text, password, number, select, checkbox, hidden, area or file."""

    name: str
    label: T | None = None
    kind: str = "text"
    value: str = ""
    choices: Sequence[tuple[str, Value]] = ()
    help: T | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Ceremony:
    """A passkey's part in a form: ``create`` or ``get``, and what the browser is asked (WebAuthn's JSON).

    The form needs scripts; it is shown only where they run.
    """

    kind: str
    options: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Something a person may do from here.

    Attributes:
        action: Path that takes it.
        button: What happens, as a verb.
        fields: What the person fills in.
        effect: What will happen, in numbers, before it is done.
        method: ``post``, or ``get`` for filters.
        subject: Bytes that the person signs with it; then a passkey or the password is asked for.
        danger: Whether it stops or ends something.
        ceremony: What a passkey is asked when the form is sent; its answer goes along as ``assertion``.
    """

    action: str
    button: T
    fields: Sequence[Field] = ()
    effect: Sequence[T] = ()
    method: str = "post"
    subject: bytes | None = None
    danger: bool = False
    ceremony: Ceremony | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A part of a screen under its own heading.

    Attributes:
        name: Key in the JSON and ``id`` of the part.
        title: Its heading.
        facts: Values with their names.
        prose: Sentences.
        table: Rows.
        drawing: A picture with its data.
        forms: What may be done.
        error: Why its source could not be read.
        live: Path of an event stream that renews it; its events carry the panel's inner part.
        wide: Whether it takes the whole width.
    """

    name: str
    title: T
    facts: Sequence[Fact] = ()
    prose: Sequence[Value] = ()
    table: Table | None = None
    drawing: Drawing | None = None
    forms: Sequence[Form] = ()
    error: IriaiError | None = None
    live: str | None = None
    wide: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What one screen shows.

    Attributes:
        panels: From top to bottom.
        title: Instead of the route's, where it names an object.
        trail: Links to the screens above: (label, path).
        command: Command line that prints the same, instead of the route's.
        refresh_s: After how many seconds a page with scripts fetches itself again; 0: never.
        status: HTTP status.
    """

    panels: Sequence[Panel]
    title: Value | None = None
    trail: Sequence[tuple[Value, str]] = ()
    command: str | None = None
    refresh_s: int = 0
    status: int = 200


@dataclass(frozen=True, slots=True)
class Done:
    """An act that was done: where to go, what to say there, and what is shown once and kept nowhere."""

    to: str
    said: T
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One screen, act or stream, and who may have it."""

    kind: str
    path: str
    name: str
    roles: frozenset[str]
    sees: Sees
    title: T
    area: Area
    command: str | None
    nav: bool
    endpoint: Callable[..., Any]


class Room:
    """Screens and acts that belong together; the frame serves what is registered here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.routes: list[Route] = []

    def screen(
        self,
        path: str,
        *,
        name: str,
        title: T,
        roles: frozenset[str],
        sees: Sees,
        area: Area = Area.CONSOLE,
        command: str | None = None,
        nav: bool = False,
    ) -> Callable[[Callable[[View], Screen]], Callable[[View], Screen]]:
        """Registers a screen; ``nav``: it has a link of its own in the navigation of its area."""

        def keep(endpoint: Callable[[View], Screen]) -> Callable[[View], Screen]:
            self._keep("screen", path, name, roles, sees, title, area, endpoint, command=command, nav=nav)
            return endpoint

        return keep

    def act(
        self, path: str, *, name: str, roles: frozenset[str], sees: Sees, area: Area = Area.CONSOLE
    ) -> Callable[[Callable[[Act], Awaitable[Done]]], Callable[[Act], Awaitable[Done]]]:
        """Registers an act: a form that is posted."""

        def keep(endpoint: Callable[[Act], Awaitable[Done]]) -> Callable[[Act], Awaitable[Done]]:
            self._keep("act", path, name, roles, sees, T("Act"), area, endpoint)
            return endpoint

        return keep

    def events(
        self, path: str, *, name: str, roles: frozenset[str], sees: Sees, area: Area = Area.CONSOLE
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers a stream of events (`broker.console.live`)."""

        def keep(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._keep("events", path, name, roles, sees, T("Events"), area, endpoint)
            return endpoint

        return keep

    def file(
        self, path: str, *, name: str, roles: frozenset[str], sees: Sees, area: Area = Area.CONSOLE
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers a download: ``(view) -> starlette Response``, or what gives one when it is awaited.

        What has to be awaited is so after the view's read has ended, and does without it.
        """

        def keep(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._keep("file", path, name, roles, sees, T("File"), area, endpoint)
            return endpoint

        return keep

    def door(
        self, path: str, *, name: str, title: T, area: Area = Area.CONSOLE
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers a page for whoever is not signed in yet: ``async (door) -> Response``."""

        def keep(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._keep("door", path, name, PUBLIC, Sees.SELF, title, area, endpoint)
            return endpoint

        return keep

    def _keep(  # noqa: PLR0917  one route is all of these
        self,
        kind: str,
        path: str,
        name: str,
        roles: frozenset[str],
        sees: Sees,
        title: T,
        area: Area,
        endpoint: Callable[..., Any],
        *,
        command: str | None = None,
        nav: bool = False,
    ) -> None:
        if not roles:
            raise ValueError(f"{path}: a route needs roles")
        self.routes.append(
            Route(
                kind=kind,
                path=path,
                name=name,
                roles=roles,
                sees=sees,
                title=title,
                area=area,
                command=command,
                nav=nav,
                endpoint=endpoint,
            )
        )


def _order(value: Value | None) -> tuple[int, float, str]:
    """A key by which values of one column can be sorted, whatever is missing last."""
    found: Json = None if value is None or isinstance(value, Nothing) else plain(value)
    if isinstance(found, (int, float)):
        return (0, float(found), "")
    return (2, 0.0, "") if found is None else (1, 0.0, str(found))
