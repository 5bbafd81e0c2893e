# SPDX-License-Identifier: Apache-2.0
"""The page's process: one for a node, on 127.0.0.1, until it is told to end.

1. the lock of the page is taken, and every older link and code is void;
2. the port is bound, on the loopback of this machine and nowhere else;
3. a link is drawn; ``page/page.json`` says where the page answers;
4. the caller is told the link once requests are answered.

    serve(home, port=0, clock=SystemClock(), entropy=SystemEntropy(), tell=print)
    again(home, clock=..., entropy=...)         # in another process: a fresh link and a fresh code
"""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.page.errors import NotServedError, PortError
from client.page.keys import CODE_S, Keys, grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn

    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["HOST", "again", "configured", "serve"]

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 64
_REQUESTS: Final = 32  # at a time
_GRACE_S: Final = 2


def serve(
    home: Home,
    *,
    port: int,
    clock: Clock,
    entropy: Entropy,
    tell: Callable[[dict[str, Any]], None],
    say: Callable[[str], str] = str,
) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        home: The node's folder.
        port: 0 takes a free one.
        clock: Of ages and ends.
        entropy: Of secrets.
        tell: Hears ``{"page": link, "port": number}`` once it answers.
        say: Completes the commands that screens show, such that they can be typed.

    Raises:
        NotInitialisedError: The folder holds no node.
        PageBusyError: Another page of this node runs.
        PortError: The port cannot be listened at.
    """
    from client.page.app import Page

    keys = Keys(home.need(), clock=clock, entropy=entropy)
    with keys.serving(), _listening(port) as listener:  # 1. and 2.
        number = int(listener.getsockname()[1])
        page = Page(home, port=number, clock=clock, entropy=entropy, say=say)
        keys.tell(number)  # 3.
        facts = {"page": _link(number, keys), "port": number}
        asyncio.run(_run(page, listener, lambda: tell(facts)))  # 4.


def _link(port: int, keys: Keys) -> str:
    return f"http://{HOST}:{port}/open/{keys.draw('link')}"


async def _run(page: Any, listener: socket.socket, ready: Callable[[], None]) -> None:  # noqa: ANN401
    import uvicorn

    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(number, lambda *_: None)

    class Server(uvicorn.Server):
        """uvicorn, which says when it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    await Server(configured(page.app)).serve(sockets=[listener])


def configured(app: Any) -> uvicorn.Config:  # noqa: ANN401  uvicorn's
    """uvicorn, as a page uses it: connections without a session hold little (`client.deploy.connections`)."""
    import uvicorn

    from client.deploy.connections import Doorway, connection_type

    return uvicorn.Config(
        app,
        http=connection_type(Doorway()),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_REQUESTS,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _listening(port: int) -> socket.socket:
    """A bound socket of this machine's loopback.

    Raises:
        PortError: Somebody listens there, or it needs rights that we lack.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PortError(
            need=f"a free port of this machine, {port}",
            found=error.strerror or "another listener",
            remedy="name another one with --port, or leave it out",
        ) from error
    return listener


def again(home: Home, *, clock: Clock, entropy: Entropy) -> Answer:
    """A fresh link and a fresh code for the page that runs.

    Raises:
        NotServedError: None runs.
    """
    keys = Keys(home.need(), clock=clock, entropy=entropy)
    facts = keys.running()
    if facts is None:
        raise NotServedError(
            need="a page of this node that runs",
            found="none",
            remedy=f"{home.command('page')} starts one",
        )
    code, link = grouped(keys.draw("code")), _link(int(facts["port"]), keys)
    return Answer(
        data={"code": code, "page": link, "port": facts["port"], "ends_s": CODE_S},
        text=(
            f"code  {code}  confirms one change, within {CODE_S // 60} minutes",
            f"link  {link}  opens a session, once",
        ),
    )
