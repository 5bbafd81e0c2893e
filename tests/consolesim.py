# SPDX-License-Identifier: Apache-2.0
"""People before the console of a `House`: their browser's cookies and forms, and what they read on a page.

    alice = await PersonSim.enter(house, "alice")                     an operator of every house
    eve = await PersonSim.enter(house, "eve", role="member", org=kita.org)
    page = await alice.page("/console/members")
    assert page.screen == "members"
    assert page.fact("enrolled") == "3"
    assert page.rows("members")[0]["name"] == "Kita GmbH"             by the names of the columns
    done = await alice.post(page.form("/console/invitations"), legal_name="Kita GmbH", country="DE")
    assert done.said == "The invitation is made."                     the page that the form leads to
    token = done.fact("secret")

A page is read as a person reads it: entities resolved, markup gone, what is hidden left out. `PersonSim.post`
sends what a browser would send: the fields that the form has (a name that it lacks is a fault of the test),
``Sec-Fetch-Site`` and ``Origin``, and follows the answer. `save` writes a page with its static files, for a
look at it:

    chromium --headless --no-sandbox --screenshot=page.png --window-size=1200,1500 file:///…/page.html
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from broker.auth.people import Addition, Person, add_person, find_person
from broker.auth.sessions import COOKIE
from broker.console.rendering import STATIC
from policies.encoding import digest
from tests.brokersim import URL, House

_VOID = frozenset(
    {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr", "line", "path"}
)
_BLOCKS = frozenset(
    {"p", "div", "li", "dt", "dd", "tr", "td", "th", "h1", "h2", "section", "form", "table", "ul", "dl"}
)


@dataclass
class Node:
    """An element of a page, or with tag ``#`` a text."""

    tag: str
    attrs: dict[str, str] = field(default_factory=dict)
    parts: list[Node] = field(default_factory=list)
    data: str = ""

    def all(self, tag: str = "", **attrs: str | None) -> list[Node]:
        """Elements below, in order; an attribute of None only has to be there, ``data_fact`` is data-fact."""
        wanted = {name.replace("_", "-"): value for name, value in attrs.items()}
        found = []
        for one in self.parts:
            fits = tag in {"", one.tag} and one.tag != "#"
            if fits and all(
                name in one.attrs and value in {None, one.attrs[name]} for name, value in wanted.items()
            ):
                found.append(one)
            found += one.all(tag, **attrs)
        return found

    def first(self, tag: str = "", **attrs: str | None) -> Node:
        found = self.all(tag, **attrs)
        assert found, f"no {tag or 'element'} {attrs}"
        return found[0]

    @property
    def text(self) -> str:
        """What a person reads, on one line; signs that only decorate are left out."""
        return re.sub(r"\s+", " ", self._text()).strip()

    def _text(self) -> str:
        if self.tag == "#":
            return self.data
        if self.attrs.get("aria-hidden") == "true" or self.tag in {"script", "style"}:
            return ""
        inner = "".join(one._text() for one in self.parts)
        return f" {inner} " if self.tag in _BLOCKS else inner

    @property
    def value(self) -> str:
        """As `text`, but of what can be copied the whole: a digest."""
        copied = self.all(data_copy=None)
        return copied[0].attrs["data-copy"] if len(copied) == 1 else self.text


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(Node("#", data=data))


def read_html(text: str) -> Node:
    """The tree of a page; an element that is closed wrongly is an error."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], f"not closed: {[one.tag for one in reader.open]}"
    return reader.root


@dataclass
class FormSim:
    """A form of a page: where it goes and what stands in it."""

    action: str
    method: str
    fields: dict[str, str]
    button: str
    effect: list[str]
    panel: str
    choices: dict[str, list[str]]
    checks: frozenset[str]
    page: str

    @classmethod
    def of(cls, node: Node, panel: str, page: str) -> FormSim:
        fields, checks, choices = {}, set(), {}
        for one in node.all("input", name=None):
            name, kind = one.attrs["name"], one.attrs.get("type", "text")
            if kind == "checkbox":
                checks.add(name)
                if "checked" not in one.attrs:
                    continue
            fields[name] = one.attrs.get("value", "on" if kind == "checkbox" else "")
        for one in node.all("textarea"):
            fields[one.attrs["name"]] = "".join(part.data for part in one.parts)
        for one in node.all("select"):
            options = one.all("option")
            chosen = next((each for each in options if "selected" in each.attrs), options[0])
            fields[one.attrs["name"]] = chosen.attrs["value"]
            choices[one.attrs["name"]] = [each.attrs["value"] for each in options]
        return cls(
            action=node.attrs["action"],
            method=node.attrs.get("method", "get"),
            fields=fields,
            button=node.first("button", type="submit").text,
            effect=[one.text for one in node.all("li")],
            panel=panel,
            choices=choices,
            checks=frozenset(checks),
            page=page,
        )

    def filled(self, given: dict[str, str]) -> dict[str, str]:
        """What is sent."""
        for name, value in given.items():
            assert name in self.fields or name in self.checks, f"{self.action} has no field {name}"
            assert name not in self.choices or value in self.choices[name], f"{name} has no choice {value}"
        return {**self.fields, **given}


@dataclass
class Page:
    """A page that was read."""

    answer: httpx.Response
    path: str
    root: Node

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def html(self) -> str:
        return self.answer.text

    @property
    def main(self) -> Node:
        return self.root.first("main")

    @property
    def screen(self) -> str:
        """Name of the screen; ``refused`` where it was refused."""
        return self.main.attrs["data-screen"]

    @property
    def title(self) -> str:
        return self.main.first("h1").text

    @property
    def text(self) -> str:
        return self.main.text

    @property
    def code(self) -> str:
        """Code of the refusal that the page, or one of its panels, shows."""
        return self.fact("code")

    @property
    def said(self) -> str:
        """What the act before had to say."""
        return self.main.first(role="status").first("p").text

    def fact(self, name: str) -> str:
        """The value of a fact, a digest whole."""
        node = self.main.first(data_fact=name)
        values = node.all("span", **{"class": "value"})
        return values[0].value if values else node.value

    def facts(self) -> list[str]:
        return [one.attrs["data-fact"] for one in self.main.all(data_fact=None)]

    def age(self, name: str) -> str:
        """How old a fact is said to be; empty without an age."""
        found = self.main.first(data_fact=name).all("span", **{"class": "age"})
        return found[0].text if found else ""

    def panel(self, name: str) -> Node:
        return self.main.first("section", data_panel=name)

    def panels(self) -> list[str]:
        return [one.attrs["data-panel"] for one in self.main.all("section", data_panel=None)]

    def rows(self, table: str) -> list[dict[str, str]]:
        """Rows of a table by the names of its columns, digests whole; none where it is empty."""
        found = self.main.all("table", data_table=table)
        if not found:
            assert self.main.all("p", **{"class": "empty"}), f"neither table {table} nor an empty state"
            return []
        names = [one.attrs["data-column"] for one in found[0].first("thead").all("th")]
        return [
            dict(zip(names, (one.value for one in row.parts if one.tag in {"th", "td"}), strict=True))
            for row in found[0].first("tbody").all("tr")
        ]

    def empty(self, panel: str) -> str:
        """The empty state of a panel's table."""
        return self.panel(panel).first("p", **{"class": "empty"}).text

    def links(self) -> list[str]:
        """Where one can go from here, without the frame."""
        return [one.attrs["href"] for one in self.main.all("a", href=None)]

    def nav(self) -> list[str]:
        return [one.attrs["href"] for nav in self.root.all("nav") for one in nav.all("a", href=None)]

    @property
    def forms(self) -> list[FormSim]:
        """The forms of the screen, without the frame's."""
        return [
            FormSim.of(one, panel.attrs["data-panel"], self.path)
            for panel in self.main.all("section", data_panel=None)
            for one in panel.all("form")
        ]

    def form(self, action: str, button: str = "") -> FormSim:
        """The first form that goes to this path."""
        found = [one for one in self.forms if one.action == action and button in {"", one.button}]
        assert found, f"no form to {action}; there are {[(one.action, one.button) for one in self.forms]}"
        return found[0]

    def has_form(self, action: str) -> bool:
        return any(one.action == action for one in self.forms)


@dataclass
class PersonSim:
    """Somebody with a browser. ``name`` is empty for somebody who is not signed in."""

    house: House
    name: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    lang: str = ""

    @classmethod
    async def enter(
        cls,
        house: House,
        name: str,
        *,
        role: str = "operator",
        org: str | None = None,
        how: Any = "link",
        lang: str = "",
    ) -> PersonSim:
        """Somebody who is signed in; a person of this name and role is made if there is none."""
        person = await add(house, name, role=role, org=org)
        assert (person.role, person.org) == (role, org), person
        opened = await house.services.auth.sessions.open(person, how, agent="consolesim")
        return cls(house, name, {COOKIE: opened.token}, lang)

    @property
    def csrf(self) -> str:
        login = self.house.services.auth.find(self.cookies.get(COOKIE))
        assert login is not None, f"{self.name} is signed in no longer"
        return login.csrf

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """One request with this browser's cookies, and nothing that is not said; redirects are not followed."""
        given = {"Host": URL.removeprefix("https://"), "Accept": "text/html"}
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.lang:
            given["Accept-Language"] = self.lang
        request = httpx.Request(method, URL + path, content=body, headers={**given, **(headers or {})})
        transport = httpx.ASGITransport(app=self.house.port, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.send(request)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                gone = morsel["max-age"] == "0" or not morsel.value
                self.cookies.pop(name, None) if gone else self.cookies.update({name: morsel.value})
        return answer

    async def get(self, path: str, *, lang: str = "") -> httpx.Response:
        """An address that is opened, by hand or from a page of ours."""
        asked = path + ((("&" if "?" in path else "?") + f"lang={lang}") if lang else "")
        return await self.send("GET", asked, headers={"Sec-Fetch-Site": "same-origin"})

    async def page(self, path: str, *, lang: str = "") -> Page:
        """A page, wherever its address leads."""
        for _ in range(5):
            answer = await self.get(path, lang=lang)
            if answer.status_code not in {302, 303, 307}:
                break
            path = answer.headers["location"]
        assert answer.headers["content-type"].startswith("text/html"), answer.text[:300]
        return Page(answer, path, read_html(answer.text))

    async def json(self, path: str) -> Any:
        """The same facts for programs."""
        answer = await self.get(path + ("&" if "?" in path else "?") + "format=json")
        assert answer.headers["content-type"] == "application/json", answer.text[:300]
        return answer.json()

    async def csv(self, path: str, table: str = "") -> list[dict[str, str]]:
        """A table of the screen as CSV."""
        named = f"&table={table}" if table else ""
        answer = await self.get(path + ("&" if "?" in path else "?") + "format=csv" + named)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8", answer.text[:300]
        return list(csv.DictReader(io.StringIO(answer.text)))

    async def submit(self, form: FormSim, **given: str) -> httpx.Response:
        """Sends a form as a browser does; the answer as it comes."""
        filled = urlencode(form.filled(given))
        if form.method == "get":
            return await self.get(f"{form.action}?{filled}")
        return await self.post_raw(form.action, filled.encode())

    async def post_raw(self, path: str, body: bytes, **headers: str | None) -> httpx.Response:
        """A body that is sent as a form of ours would be; a header of None is left out."""
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Sec-Fetch-Site": "same-origin",
            "Origin": URL,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.send(
            "POST", path, body, {name: value for name, value in sent.items() if value is not None}
        )

    async def post(self, form: FormSim, **given: str) -> Page:
        """Sends a form and reads the page that it leads to."""
        answer = await self.submit(form, **given)
        if answer.status_code == 303:
            return await self.page(answer.headers["location"])
        return Page(answer, form.action, read_html(answer.text))


async def add(house: House, name: str, *, role: str, org: str | None = None) -> Person:
    """A person of the house, as two people would have added them."""
    with house.services.store.read() as session:
        known = find_person(session, name)
    if known is not None and known.active:
        return known
    made: list[Person] = []

    def work(session: Any, tx: Any) -> None:
        addition = Addition(name=name, role=role, org=org)
        now_ms, request = house.clock.now_ms(), digest(name.encode())
        made.append(add_person(session, tx, addition, by="alice", request=request, now_ms=now_ms))

    await house.services.writer.run(work)
    return made[0]


def save(page: Page, folder: Path) -> Path:
    """Writes a page with its static files into a folder; the file can be opened without a server."""
    folder.mkdir(parents=True, exist_ok=True)
    for used in re.findall(r'"/console/static/[0-9a-f]+/([^"]+)"', page.html):
        to = folder / "static" / used
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes((STATIC / used).read_bytes())
    lang = page.root.first("html").attrs["lang"]
    path = folder / f"{page.screen}-{lang}.html"
    path.write_text(re.sub(r'"/console/static/[0-9a-f]+/', '"static/', page.html), encoding="utf-8")
    return path
