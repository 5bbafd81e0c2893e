# SPDX-License-Identifier: Apache-2.0
"""Push: a log calls (C2SP tlog-witness).

====================================
=========================================================================== ``POST /add-checkpoint``
200 signature line · 400 malformed · 403 not signed by a key of the policy ·
                                      404 another log · 409 the size that was cosigned last · 422 not
                                      consistent
``GET /<sha256(origin)>/checkpoint``  the last note that was cosigned, with the cosignature; 404 without
one ====================================
===========================================================================

`answer` is the whole protocol without a socket; `serve` puts it behind `http.server`. There is no TLS in
it: a note authenticates itself, and who wants secrecy of sizes puts a proxy before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from policies.log.errors import NoteError
from policies.log.witness import REQUEST_BYTES, SIZE_TYPE, Cosign, parse_request
from policies.verify.commands.answers import say
from policies.verify.report import plain

if TYPE_CHECKING:
    from policies.verify.witnessing.store import WitnessStore

__all__ = ["Answer", "answer", "serve"]

ADD: Final = "/add-checkpoint"
_TEXT: Final = "text/plain; charset=utf-8"
_IDLE_S: Final = 60  # a kept connection
_REASON_CHARS = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and media type of one answer."""

    status: int
    body: bytes = b""
    media: str = _TEXT


def answer(store: WitnessStore, method: str, path: str, body: bytes) -> Answer:
    """Answers one request."""
    if method == "GET":
        note = store.note(path.removeprefix("/"))
        return Answer(404, b"nothing here\n") if note is None else Answer(200, note.encode("utf-8"))
    return _added(store, body) if (method, path) == ("POST", ADD) else Answer(404, b"nothing here\n")


def _added(store: WitnessStore, body: bytes) -> Answer:
    try:
        asked = parse_request(body)
    except NoteError as error:
        return Answer(400, _text(str(error)))
    try:
        verdict = store.step(asked.note, old_size=asked.old_size, proof=asked.proof)
    except OSError as error:  # nothing is signed that is not on disk
        say(f"DISK      {plain(str(error))}")
        return Answer(500, b"the state cannot be stored\n")
    if isinstance(verdict, Cosign):
        return Answer(200, verdict.line.encode("utf-8"))
    if verdict.evidence is not None:
        kept = store.keep(verdict.evidence)
        if kept is not None:
            say(f"EVIDENCE  the log signed two histories: {plain(str(kept))}; send it to every member")
    if verdict.status == 409:  # noqa: PLR2004  Conflict
        return Answer(409, f"{verdict.known_size}\n".encode("ascii"), SIZE_TYPE)
    return Answer(verdict.status, _text(verdict.reason))


def _text(reason: str) -> bytes:
    return (plain(reason, limit=_REASON_CHARS) + "\n").encode("ascii")


def server(store: WitnessStore, host: str, port: int) -> ThreadingHTTPServer:
    """The server, bound and not yet serving."""

    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"
        server_version = "iriai-verify"
        sys_version = ""
        timeout = _IDLE_S

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdecimal() or int(length[:10]) > REQUEST_BYTES:
                self.close_connection = True
                self._send(Answer(400, _text(f"a body of at most {REQUEST_BYTES} bytes is needed")))
                return
            self._answer(self.rfile.read(int(length)))

        def _answer(self, body: bytes) -> None:
            self._send(answer(store, self.command, self.path, body))

        def _send(self, told: Answer) -> None:
            self.send_response(told.status)
            self.send_header("Content-Type", told.media)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's word
            say(plain(f"{self.address_string()} {format % args}"))

    return ThreadingHTTPServer((host, port), Handler)


def serve(store: WitnessStore, host: str, port: int) -> None:
    """Serves until it is interrupted."""
    with server(store, host, port) as listening:
        address = listening.server_address
        say(f"listening http://{plain(str(address[0]))}:{address[1]}{ADD}")
        listening.serve_forever()
