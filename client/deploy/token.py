# SPDX-License-Identifier: Apache-2.0
"""Two tokens of a service, each in a file of this account alone: the cell's, and its owner's.

A token is a secret of both sides and **never travels**. Who asks proves that it knows one, and the answer
proves that the service does: whoever took the port of a service that died learns nothing and proves nothing.

    Authorization: IRIAI-HMAC-SHA256 <nonce>:<hex of HMAC(token, ask)>
        ask     "iriai-ask/1" LF method LF path LF nonce LF body
    Iriai-Proof: <hex of HMAC(token, answer)>
        answer  "iriai-answer/1" LF nonce LF status LF body

- HMAC is HMAC-SHA256; the key is the token's text. The nonce is drawn for each request by who asks, 16 to 64
  letters, digits, - and _. **An answer without its proof is no answer**: stop, as if there were none.
- The cell's token admits questions, episode ends, status and schema; the owner's these and `resume`. A
  controller that trips a guard cannot let itself go on.
- Both are drawn anew at each start; so a request of an earlier start is worth nothing. A file that others can
  read is refused (`TokenFileError`). Its second line is the address that the token belongs to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from client.deploy.refusals import TokenFileError
from client.settings import write_durably

if TYPE_CHECKING:
    from pathlib import Path

    from policies.ports import Entropy

__all__ = [
    "CELL_FILE",
    "OWNER_FILE",
    "PROOF",
    "Caller",
    "Tokens",
    "draw_tokens",
    "fresh_nonce",
    "proof",
    "proves",
    "read_token",
    "signed",
]

CELL_FILE: Final = "cell.token"
OWNER_FILE: Final = "owner.token"
PROOF: Final = "iriai-proof"
_SIZE: Final = 32
_NONCE_BYTES: Final = 16
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_SCHEME: Final = "IRIAI-HMAC-SHA256 "
_SIGNED: Final = re.compile(r"IRIAI-HMAC-SHA256 ([A-Za-z0-9_-]{16,64}):([0-9a-f]{64})", re.ASCII)


def _mac(token: str, *lines: str, body: bytes) -> str:
    text = "\n".join(lines).encode("utf-8", "replace") + b"\n" + body
    return hmac.new(token.encode("ascii"), text, hashlib.sha256).hexdigest()


def fresh_nonce(entropy: Entropy) -> str:
    """A nonce for one request."""
    return base64.urlsafe_b64encode(entropy.token_bytes(_NONCE_BYTES)).rstrip(b"=").decode("ascii")


def signed(token: str, method: str, path: str, body: bytes, *, nonce: str) -> str:
    """The ``Authorization`` of a request."""
    return f"{_SCHEME}{nonce}:{_mac(token, 'iriai-ask/1', method, path, nonce, body=body)}"


def proof(token: str, nonce: str, status: int, body: bytes) -> str:
    """What an answer bears, as `PROOF`."""
    return _mac(token, "iriai-answer/1", nonce, str(status), body=body)


def proves(token: str, nonce: str, status: int, body: bytes, *, given: str) -> bool:
    """Whether an answer comes from the service that the token is of, and is of this request."""
    return hmac.compare_digest(proof(token, nonce, status, body).encode(), given.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who proved to know a token, and by which request."""

    who: Literal["cell", "owner"]
    nonce: str
    token: str = field(repr=False)

    def proof(self, status: int, body: bytes) -> str:
        """Of the answer to this request."""
        return proof(self.token, self.nonce, status, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What requests are compared with; ``folder`` is where their files are, for whoever is told to look."""

    cell: str = field(repr=False)
    owner: str = field(repr=False)
    folder: str = ""

    def caller(self, header: str, method: str, path: str, body: bytes) -> Caller | None:
        """Who a request comes from; None where it proves nothing. Compared in constant time."""
        found = _SIGNED.fullmatch(header)
        if found is None:
            return None
        nonce, given = found.groups()
        is_owner, is_cell = (
            hmac.compare_digest(_mac(one, "iriai-ask/1", method, path, nonce, body=body), given)
            for one in (self.owner, self.cell)
        )
        if is_owner:
            return Caller(who="owner", nonce=nonce, token=self.owner)
        return Caller(who="cell", nonce=nonce, token=self.cell) if is_cell else None

    def is_password(self, given: str | None) -> bool:
        """Whether a text is the cell's token, or its owner's: over a channel that encrypts (OPC UA)."""
        data = (given or "").encode("utf-8", "replace")
        found = [hmac.compare_digest(data, one.encode("ascii")) for one in (self.cell, self.owner)]
        return any(found)

    def file(self, *, owner: bool) -> str:
        """Where a token is read from."""
        return f"{self.folder}/{OWNER_FILE if owner else CELL_FILE}"


def draw_tokens(folder: Path, entropy: Entropy, *, url: str = "") -> Tokens:
    """Two fresh tokens, written to a folder of this account with the address that they belong to."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    drawn = [base64.urlsafe_b64encode(entropy.token_bytes(_SIZE)).rstrip(b"=") for _ in range(2)]
    for name, token in zip((CELL_FILE, OWNER_FILE), drawn, strict=True):
        write_durably(folder / name, token + b"\n" + (url + "\n" if url else "").encode("ascii"))
    cell, owner = (one.decode("ascii") for one in drawn)
    return Tokens(cell=cell, owner=owner, folder=str(folder))


def read_token(path: Path) -> str:
    """The token of a file.

    Raises:
        TokenFileError: No file, one that other accounts can read, or another text.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_SIZE * 8).decode("ascii", "replace").split("\n", 1)[0].strip()
    except OSError as error:
        raise _refused(str(path), error.strerror or "it cannot be read") from error
    if mode & 0o077:
        raise _refused(str(path), f"mode {mode:04o}")
    if not _TOKEN.fullmatch(text):
        raise _refused(str(path), "another text")
    return text


def _refused(path: str, found: str) -> TokenFileError:
    return TokenFileError(
        need=f"a token in {path}, mode 0600", found=found, remedy="start the service again; it draws new ones"
    )
