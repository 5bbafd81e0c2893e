# SPDX-License-Identifier: Apache-2.0
"""What opens the page and what confirms a change: secrets that are used once, in a folder of this account.

::

    page/page.lock      held by the one page of this node that runs
    page/page.json      where it answers, while it runs
    page/once.json      SHA-256 of each secret that is not used yet, with its kind and its end

- A **link** opens a session: 256 bits, `LINK_S` seconds. A **code** confirms one change: 60 bits as twelve
  letters for a person to type, `CODE_S` seconds, and all codes are void after `WRONG_CODES` wrong ones.
- Only digests are on the disk, in a file of mode 0600 that is written under a lock; using a secret takes its
  digest out before anything else happens, so that of two who bring it one is refused.
- A page that starts makes all older secrets void.

    keys = Keys(home, clock=clock, entropy=entropy)
    token = keys.draw("link")
    keys.use("link", token)                         # LinkError the second time
"""

from __future__ import annotations

import base64
import contextlib
import copy
import fcntl
import hashlib
import json
import os
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from client.page.errors import CodeError, LinkError, PageBusyError
from client.settings import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["CODE_S", "LINK_S", "WRONG_CODES", "Keys", "grouped"]

LINK_S: Final = 600
CODE_S: Final = 600
WRONG_CODES: Final = 5
_LINK_BYTES: Final = 32
_CODE_BYTES: Final = 10
_CODE_CHARS: Final = 12
_SECRET_CHARS: Final = 100
Kind = Literal["link", "code"]


def grouped(code: str) -> str:
    """A code in groups of four letters, for the eye."""
    return "-".join(code[at : at + 4] for at in range(0, len(code), 4))


class Keys:
    """Secrets of a node's page, and the files that they are in.

    Attributes:
        folder: The folder of the files.
        again: The command line that draws a link and a code for the page that runs.
    """

    def __init__(self, home: Home, *, clock: Clock, entropy: Entropy) -> None:
        self.folder = home.root / "page"
        self.again = home.command("page --again")
        self._clock = clock
        self._entropy = entropy

    def draw(self, kind: Kind) -> str:
        """A fresh secret; from now on it can be used once."""
        if kind == "link":
            secret = base64.urlsafe_b64encode(self._entropy.token_bytes(_LINK_BYTES)).decode().rstrip("=")
        else:
            secret = base64.b32encode(self._entropy.token_bytes(_CODE_BYTES)).decode().lower()[:_CODE_CHARS]
        ends_ms = self._clock.now_ms() + (LINK_S if kind == "link" else CODE_S) * 1000
        with self._unused() as unused:
            unused[_digest(kind, secret)] = {"kind": kind, "ends_ms": ends_ms}
        return secret

    def use(self, kind: Kind, secret: str) -> None:
        """Uses a secret up.

        Raises:
            LinkError: A link that was used, is too old, or never was.
            CodeError: A code likewise; none is left after `WRONG_CODES` wrong ones.
        """
        name = _digest(kind, _cleaned(kind, secret))
        with self._unused() as unused:
            found = unused.pop(name, None)
            if found is None and kind == "code":
                _count_wrong(unused)
        if found is None or found["ends_ms"] < self._clock.now_ms():
            raise self._refused(
                kind, "one that was used, or never was" if found is None else "one that is too old"
            )

    def void(self) -> None:
        """Makes every unused secret void."""
        with self._unused() as unused:
            unused.clear()

    def running(self) -> dict[str, Any] | None:
        """Where the page of this node answers; None where none runs."""
        try:
            with (self.folder / "page.lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except OSError:
            return self._facts()
        return None

    def _facts(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / "page.json").read_bytes())
        except (OSError, ValueError):  # it is about to say where it is
            return None
        return found if isinstance(found, dict) else None

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Holds the lock of the one page that runs; whoever does not get it changes no file of it.

        Raises:
            PageBusyError: Another one holds it.
        """
        with self._opened("page.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PageBusyError(
                    need="no other page of this node",
                    found=str((self._facts() or {}).get("url", "one that runs")),
                    remedy=f"{self.again} gives a link and a code for it; or stop it first",
                ) from error
            try:
                self.void()
                yield
            finally:
                (self.folder / "page.json").unlink(missing_ok=True)

    def tell(self, port: int) -> None:
        """Writes down where the page answers."""
        facts = {"url": f"http://127.0.0.1:{port}", "port": port, "pid": os.getpid()}
        write_durably(self.folder / "page.json", json.dumps(facts).encode("ascii"))

    @contextlib.contextmanager
    def _unused(self) -> Iterator[dict[str, Any]]:
        """The unused secrets, under a lock; what is changed is durable when the block ends."""
        lock, path = self._opened("once.lock"), self.folder / "once.json"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unused = _read(path.read_bytes()) if path.exists() else {}
            before = copy.deepcopy(unused)
            yield unused
            now_ms = self._clock.now_ms()
            for name in [one for one, facts in unused.items() if facts["ends_ms"] < now_ms]:
                del unused[name]
            if unused != before:
                write_durably(path, json.dumps(unused, sort_keys=True).encode("ascii"))
        finally:
            lock.close()

    def _refused(self, kind: Kind, found: str) -> LinkError | CodeError:
        remedy = f"{self.again} prints a fresh one"
        if kind == "link":
            return LinkError(need="a link that was not used yet", found=found, remedy=remedy)
        return CodeError(need="a code that was not used yet", found=found, remedy=remedy)

    def _opened(self, name: str) -> IO[bytes]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return os.fdopen(handle, "rb+")


def _read(data: bytes) -> dict[str, Any]:
    """What the file says; a damaged one holds no secret that opens anything."""
    try:
        found = json.loads(data)
        return {
            str(name): {"kind": str(one["kind"]), "ends_ms": int(one["ends_ms"]), **_wrong(one)}
            for name, one in found.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _wrong(one: dict[str, Any]) -> dict[str, int]:
    return {"wrong": int(one["wrong"])} if "wrong" in one else {}


def _count_wrong(unused: dict[str, Any]) -> None:
    """Each wrong code counts against every code that is open; the last one takes them all."""
    for name in [one for one, facts in unused.items() if facts["kind"] == "code"]:
        unused[name]["wrong"] = unused[name].get("wrong", 0) + 1
        if unused[name]["wrong"] >= WRONG_CODES:
            del unused[name]


def _cleaned(kind: Kind, secret: str) -> str:
    """A code as it was drawn, however a person typed it."""
    if kind == "link":
        return secret[:_SECRET_CHARS]
    return "".join(secret.split()).replace("-", "").lower()[:_SECRET_CHARS]


def _digest(kind: Kind, secret: str) -> str:
    return hashlib.sha256(f"iriai-page {kind} {secret}".encode("utf-8", "replace")).hexdigest()
