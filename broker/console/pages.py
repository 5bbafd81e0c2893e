# SPDX-License-Identifier: Apache-2.0
"""From a screen to the answer: HTML in the reader's language, JSON or CSV, with the headers of every page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from broker.console.errors import FormError
from broker.console.exports import as_csv, as_json, tables_of
from broker.console.formtoken import masked
from broker.console.headers import PAGE_HEADERS
from broker.console.languages import LANGUAGES, speech
from broker.console.rendering import Said, environment, query_string
from broker.console.screens import PUBLIC, Area, Panel, Route, Screen, Sees
from broker.console.values import Name, T
from broker.errors import retry_headers
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from broker.auth.service import Login
    from broker.console.screens import Done
    from policies.errors import IriaiError

__all__ = ["ERROR_ROUTE", "Place", "Shell", "answer", "panel_html", "refusal"]

ERROR_ROUTE: Final = Route(
    kind="screen",
    path="",
    name="refused",
    roles=PUBLIC,
    sees=Sees.OPEN,
    title=T("This was refused"),
    area=Area.CONSOLE,
    command=None,
    nav=False,
    endpoint=lambda _: None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What stands around a screen: who reads, in which language, where one can go.

    Attributes:
        route: The screen's own route.
        nav: Routes of the navigation.
        login: Who is signed in, or None.
        lang: Language of the page.
        path: Path of the page, and its query.
        once: Mark of the forms on this page.
        mask: Random bytes of this page, for its token (`broker.console.formtoken`).
        said: What an act before had to say.
        counts: When the password was given that counts for a form without one; None if none does.
    """

    route: Route
    nav: Sequence[Route]
    login: Login | None
    lang: str
    now_ms: int
    path: str
    query: Mapping[str, str]
    once: str
    mask: bytes = field(repr=False)
    origin: str
    said: Done | None = None
    counts: Callable[[], int | None] = lambda: None  # read from the rows only where a form asks

    @property
    def person(self) -> Name | None:
        """Name of whoever is signed in."""
        return None if self.login is None else Name(self.login.person.name)

    @property
    def csrf(self) -> str:
        """Token of the forms; empty without a login."""
        return "" if self.login is None else masked(self.login.csrf, self.mask)

    def link(self, **changes: str | None) -> str:
        """This page with another query."""
        return self.path + query_string(self.query, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The page that a part of it is sent for: where the part's links go."""

    path: str
    query: Mapping[str, str]

    def link(self, **changes: str | None) -> str:
        """That page with another query."""
        return self.path + query_string(self.query, **changes)


def answer(shell: Shell, screen: Screen) -> Response:
    """The page, or with ``?format=`` its facts.

    Raises:
        FormError: Another format, or a table that is not on the screen.
    """
    wanted = shell.query.get("format", "html")
    if wanted == "json":
        body = canonical(as_json(shell.route.name, screen, shell.now_ms))
        return Response(body, screen.status, headers=dict(PAGE_HEADERS), media_type="application/json")
    if wanted == "csv":
        return _csv(shell, screen)
    if wanted != "html":
        raise FormError(
            need="format html, json or csv", found=ascii(wanted)[:40], remedy="correct the address"
        )
    said = Said(speech(shell.lang), shell.now_ms)
    html = (
        environment()
        .get_template("screen.html")
        .render(
            shell=shell,
            screen=screen,
            say=said,
            languages=LANGUAGES,
            tables=list(tables_of(list(screen.panels))),
        )
    )
    return Response(html, screen.status, headers=dict(PAGE_HEADERS), media_type="text/html; charset=utf-8")


def panel_html(panel: Panel, lang: str, now_ms: int, place: Place) -> Markup:
    """The inner part of a panel, as the page has it and as event streams send it."""
    module = environment().get_template("_parts.html").make_module({"say": Said(speech(lang), now_ms)})
    inner: Markup = module.inner(panel, place)  # type: ignore[attr-defined]  # a macro of the template
    return inner


def refusal(shell: Shell, error: IriaiError) -> Response:
    """A page, or JSON, that says what was refused, why, and what to do."""
    response = _refusal(shell, error)
    response.headers.update(retry_headers(error))
    return response


def _refusal(shell: Shell, error: IriaiError) -> Response:
    panel = Panel(name="refusal", title=T("Why, and what to do"), error=error)
    screen = Screen(panels=(panel,), status=error.http_status)
    if shell.query.get("format") == "json":
        body = canonical({"screen": "refused", "error": error.as_dict()})
        return Response(body, error.http_status, headers=dict(PAGE_HEADERS), media_type="application/json")
    plain = {name: value for name, value in shell.query.items() if name != "format"}
    return answer(
        Shell(
            route=ERROR_ROUTE,
            nav=shell.nav,
            login=shell.login,
            lang=shell.lang,
            now_ms=shell.now_ms,
            path=shell.path,
            query=plain,
            once=shell.once,
            mask=shell.mask,
            origin=shell.origin,
        ),
        screen,
    )


def _csv(shell: Shell, screen: Screen) -> Response:
    tables = {one.name: one for one in tables_of(list(screen.panels))}
    name = shell.query.get("table", next(iter(tables), ""))
    if name not in tables:
        raise FormError(
            need="a table of this screen: " + (", ".join(tables) or "it has none"),
            found=ascii(name)[:40] if name else "none",
            remedy="add &table=NAME to the address",
        )
    headers = {
        **PAGE_HEADERS,
        "Content-Disposition": f'attachment; filename="{shell.route.name}-{name}.csv"',
    }
    return Response(
        as_csv(tables[name]).encode(), screen.status, headers=headers, media_type="text/csv; charset=utf-8"
    )
