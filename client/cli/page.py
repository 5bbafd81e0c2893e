# SPDX-License-Identifier: Apache-2.0
"""``iriai-node page``: the node's local page, and the codes that its changes ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.answers import Answer, finish
from client.cli.options import Config, Dir, Json, as_typed, end
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.layers import locate

if TYPE_CHECKING:
    from client.settings import Home

__all__ = ["page"]


def page(  # no `command`: the link is told at the start, and nothing at the end
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 0,
    show: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="A fresh code, and a fresh link, for the page that runs already."),
    ] = False,
    folder: Dir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Serves this node's own page on 127.0.0.1 until it is stopped, and prints a link that opens it once."""
    if again:
        end(lambda: _again(locate(folder, config)), as_json=as_json)
    end(
        lambda: _serve(locate(folder, config), port, show=show, as_json=as_json),
        as_json=as_json,
        told_before=True,
    )


def _again(home: Home) -> Answer:
    from client.page import running

    return running.again(home, clock=SystemClock(), entropy=SystemEntropy())


def _serve(home: Home, port: int, *, show: bool, as_json: bool) -> Answer:
    from client.page import running

    say = as_typed()  # here, where the line is known: screens are made in other threads

    def tell(facts: dict[str, Any]) -> None:
        lines = (
            f"page  {facts['page']}",
            f"opens once, within 10 minutes; changes ask for a code: {home.command('page --again')}",
        )
        finish(lambda: Answer(data=facts, text=lines), as_json=as_json, say=say)
        if show:
            _open(home, facts["page"])

    running.serve(home, port=port, clock=SystemClock(), entropy=SystemEntropy(), tell=tell, say=say)
    return Answer(data={})


def _open(home: Home, link: str) -> None:
    """Opens a file of this account that holds the link: what a browser is started with, others can read."""
    import html
    import webbrowser

    from client.settings import write_durably

    path = home.root / "page" / "open.html"
    text = f'<!doctype html><meta charset="utf-8"><title>iriai</title><a href="{html.escape(link)}">iriai</a>'
    write_durably(path, text.encode("utf-8"))
    webbrowser.open(path.absolute().as_uri())
