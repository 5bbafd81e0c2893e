# SPDX-License-Identifier: Apache-2.0
"""What this node keeps about its negotiations: verified messages, what is on its way out, a kept refusal.

- A message is in the book before it is sent: after a crash the same bytes go out again.
- Who says something holds the book's lock (`LaneBook.alone`): a command and the worker never answer the same
  lane at once.
- A no is in the book before anything is asked (`LaneBook.withdraw`): what was on its way stays here.
- A page that cannot be read stops its negotiation: nothing is signed in it any more.

    contracts/lanes/neg_….json
    {"schema":"iriai-lanes/1","negotiation":..,"lines":[{"seq":..,"message":DSSE}],
     "outgoing":{…the body as it is posted…}|null,"refusal":{…}|null}
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from client.contract.lanes import Line, line_of
from client.errors import LaneBookError, PeerAnswerError
from client.settings import write_durably
from policies.contract.errors import LaneMessageError
from policies.contract.negotiation.lanes import read_message
from policies.encoding import canonical
from policies.errors import EncodingError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.settings import Home
    from policies.contract.negotiation.lanes import LaneMessage

__all__ = ["LaneBook", "Page", "Refusal"]

_SCHEMA: Final = "iriai-lanes/1"
_ENDS: Final = "terminate"
_NEGOTIATION: Final = re.compile(r"neg_[a-z2-7]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A person's no, which a lane in ACCEPTED takes only once the broker has agreed."""

    digest: str
    code: str
    clause: str | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is kept about one negotiation.

    Attributes:
        lines: Messages that were verified.
        outgoing: Body of the message that is on its way, as it is posted; None if all arrived.
        refusal: A no that waits for AGREED.
    """

    lines: tuple[Line, ...] = ()
    outgoing: Mapping[str, Any] | None = None
    refusal: Refusal | None = None

    @property
    def message(self) -> LaneMessage | None:
        """The message that is on its way."""
        if self.outgoing is None:
            return None
        return read_message(Envelope.from_json(self.outgoing["message"]).payload)

    @property
    def says(self) -> str | None:
        """Type of the message that is on its way."""
        message = self.message
        return None if message is None else message.type

    @property
    def open_texts(self) -> frozenset[str]:
        """Digests that the lane holds and that the message on its way is about."""
        said = [one.message for one in self.lines[-1:]] + [self.message]
        return frozenset(one.digest for one in said if one is not None)


class LaneBook:
    """The pages of this node, one file per negotiation."""

    def __init__(self, home: Home) -> None:
        self._folder = home.contracts / "lanes"

    @contextmanager
    def alone(self, *, wait: bool) -> Iterator[bool]:
        """Holds the lock of the whole book; gives whether it is held, which it is if ``wait``."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def page(self, negotiation: str) -> Page:
        """What is kept about a negotiation; an empty page if nothing is.

        Raises:
            LaneBookError: The file holds something else.
        """
        try:
            tree = json.loads(self._path(negotiation).read_bytes())
        except FileNotFoundError:
            return Page()
        except (ValueError, RecursionError) as error:
            raise self._damaged(negotiation) from error
        try:
            if (tree["schema"], tree["negotiation"]) != (_SCHEMA, negotiation):
                raise self._damaged(negotiation)
            refusal = tree["refusal"]
            return Page(
                lines=tuple(line_of(one) for one in tree["lines"]),
                outgoing=tree["outgoing"],
                refusal=None if refusal is None else Refusal(**refusal),
            )
        except (KeyError, TypeError, ValueError, LaneMessageError, EncodingError) as error:
            raise self._damaged(negotiation) from error

    def withdraw(self, refusal: Refusal) -> None:
        """Keeps a no wherever its text stands or is on its way, and takes back what is on its way there.

        A page that cannot be read stays: nothing is sent by it either.
        """
        for path in sorted(self._folder.glob("neg_*.json")):
            try:
                page = self.page(path.stem)
            except (LaneBookError, PeerAnswerError):
                continue
            if refusal.digest in page.open_texts:
                outgoing = page.outgoing if page.says == _ENDS else None
                self.keep(path.stem, replace(page, outgoing=outgoing, refusal=refusal))

    def keep(self, negotiation: str, page: Page) -> None:
        """Writes a page durably."""
        tree = {
            "schema": _SCHEMA,
            "negotiation": negotiation,
            "lines": [one.to_json() for one in page.lines],
            "outgoing": page.outgoing,
            "refusal": None if page.refusal is None else _refusal_json(page.refusal),
        }
        write_durably(self._path(negotiation), canonical(tree))

    def _path(self, negotiation: str) -> Path:
        if not _NEGOTIATION.fullmatch(negotiation):
            raise PeerAnswerError(
                need="neg_ and 16 of base32", found=ascii(negotiation)[:60], remedy="check both versions"
            )
        return self._folder / f"{negotiation}.json"

    def _damaged(self, negotiation: str) -> LaneBookError:
        return LaneBookError(
            need=f"the messages of {negotiation} as they were written",
            found="something else",
            remedy="restore contracts/lanes from the newest backup; sign nothing in it before",
        )


def _refusal_json(one: Refusal) -> dict[str, Any]:
    return {"digest": one.digest, "code": one.code, "clause": one.clause, "text": one.text}
