# SPDX-License-Identifier: Apache-2.0
"""Event streams: parts of a page as they become new.

    return stream(view, look, after=last_event_id)

- Every event has an id, ``<entries of the log>.<what is shown>``; who comes back with ``Last-Event-ID`` gets
  what is shown by then, if it is something else than they have: nothing is lost, and nothing comes twice.
- Nothing is known only to the stream: each event carries the inner part of a panel that the whole page has.
- A comment every 15 seconds shows that the stream lives. A reader's queue is its connection: the next look
  happens when the one before was taken, so a slow reader misses steps and gets the newest.
- The stream ends when the broker drains, when the login ends, when the reader may see it no longer, and after
  an hour; browsers come back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi.sse import format_sse_event
from sqlalchemy.exc import DBAPIError
from starlette.responses import StreamingResponse

from broker.console.exports import as_json
from broker.console.pages import Place, panel_html
from broker.console.screens import Screen
from policies.encoding import canonical, sha256
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from broker.console.screens import Panel
    from broker.console.viewing import View
    from broker.services import Services
    from broker.store import Session

__all__ = ["Looked", "News", "news_of", "stream"]

LOOK_S: Final = 1.0
_COMMENT_EVERY: Final = 15
_LOOKS: Final = 3_600
_RETRY_MS: Final = 3_000
_ID: Final = re.compile(r"[0-9]{1,18}\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class News:
    """What is new: its id, the name of the event, and the HTML of the part."""

    id: str
    event: str
    html: str


@dataclass(frozen=True, slots=True)
class Looked:
    """A panel as it is now, and how many entries the log had."""

    panel: Panel
    size: int


def news_of(looked: Looked, *, after: str, lang: str, now_ms: int, place: Place) -> News | None:
    """The panel as an event; None if the reader has it already, by the id that they had last."""
    said = as_json(looked.panel.name, Screen(panels=(looked.panel,)), 0)
    shown = sha256(canonical(said)).hex()[:16]
    if after.partition(".")[2] == shown:
        return None
    html = str(panel_html(looked.panel, lang, now_ms, place))
    return News(f"{looked.size}.{shown}", looked.panel.name, html)


def stream(
    view: View, look: Callable[[Services, Session], Looked | None], *, after: str, place: Place
) -> StreamingResponse:
    """A stream of what `look` finds; it is asked once a second.

    Args:
        view: Whose stream it is; its login must stay.
        look: Given the services and a read of the database, the panel; None if it is as it was.
        after: ``Last-Event-ID`` as it came; another text means from the start.
        place: The page that the panel is on, for its links.
    """
    services, login, lang = view.services, view.login, view.lang
    began = after if _ID.fullmatch(after) else ""

    async def events() -> AsyncIterator[bytes]:
        last = began
        for turn in range(_LOOKS):
            if login is not None and not services.auth.alive(login):
                return
            try:
                with services.store.read() as session:
                    looked = look(services, session)
            except (IriaiError, DBAPIError):
                return
            now_ms = services.clock.now_ms()
            found = None
            if looked is not None:
                found = news_of(looked, after=last, lang=lang, now_ms=now_ms, place=place)
            if found is not None:
                last = found.id
                yield format_sse_event(data_str=found.html, event=found.event, id=found.id, retry=_RETRY_MS)
            elif turn % _COMMENT_EVERY == 0:
                yield format_sse_event(comment="alive")
            if await services.draining.within(LOOK_S):
                return

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
