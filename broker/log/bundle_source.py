# SPDX-License-Identifier: Apache-2.0
"""The parts of a bundle that a log is repaired from, read one pack of 256 entries at a time.

Nothing is believed: whoever reads compares the hashes of the bodies with a signed root before any of it is
stored. Names and sizes are bounded here, so that a foreign file is a refusal.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from typing import TYPE_CHECKING, Any, Final, Self

from broker.log.errors import LogRepairError
from policies.encoding import canonical, parse
from policies.errors import EncodingError
from policies.log.bundle import split_tile, tile_name
from policies.log.errors import LogError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BundleSource"]

_PACK: Final = 256
_FILE_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 1024 * 1024


class BundleSource:
    """An open bundle; use it as a context.

    Attributes:
        origin: Of its log, as it says.
        size: Number of its entries, as it says.
        grade: ``auditor`` or ``member``.
        note: Its checkpoint.
    """

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            LogRepairError: No bundle, or a damaged one.
            OSError: It cannot be read.
        """
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error) as error:
            raise _damaged("a bundle", "something else") from error
        try:
            about = self._document("BUNDLE")
            self.origin, self.size, self.grade = about["origin"], about["size"], about["grade"]
            self.note = self._read("checkpoint").decode("utf-8")
            self._check_size()
        except (KeyError, TypeError, UnicodeDecodeError) as error:
            self._zip.close()
            raise _damaged("BUNDLE and checkpoint", "others") from error
        except BaseException:
            self._zip.close()
            raise

    def _check_size(self) -> None:
        if type(self.size) is not int or self.size < 0:
            raise _damaged("a number of entries", str(self.size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def digest(self) -> str:
        """``sha256:`` of the whole file."""
        running = hashlib.sha256()
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                running.update(chunk)
        return f"sha256:{running.hexdigest()}"

    def bodies(self) -> Iterator[list[bytes]]:
        """All bodies, in packs of 256.

        Raises:
            LogRepairError: One is missing or damaged.
        """
        for n in range(-(-self.size // _PACK)):
            width = min(_PACK, self.size - n * _PACK)
            suffix = "" if width == _PACK else f".p/{width}"
            try:
                yield split_tile(self._read(f"tile/entries/{tile_name(n)}{suffix}"), width)
            except LogError as error:
                raise _damaged(error.need, error.found) from error

    def envelopes(self, n: int) -> dict[int, Envelope]:
        """Members' envelopes of the n-th pack, by index."""
        try:
            return {
                _integer(line["index"]): Envelope.from_bytes(canonical(line["envelope"]))
                for line in self._lines(f"envelopes/{tile_name(n)}.jsonl")
            }
        except (KeyError, TypeError, EncodingError) as error:
            raise _damaged("envelopes by index", "others") from error

    def disclosures(self, n: int) -> list[tuple[int, str, bytes, Any]]:
        """Opened commitments of the n-th pack: index, field, salt, value."""
        try:
            return [
                (
                    _integer(line["index"]),
                    _text(line["field"]),
                    bytes.fromhex(_text(line["salt"])),
                    line["value"],
                )
                for line in self._lines(f"disclosures/{tile_name(n)}.jsonl")
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged("disclosures by index", "others") from error

    def notes(self) -> list[str]:
        """Every published note in it."""
        return [str(line.get("note", "")) for line in self._lines("checkpoints.log")]

    def documents(self) -> Iterator[str]:
        """Texts of its contracts and of the notices about them; whoever reads them believes nothing of it."""
        for name in self._zip.NameToInfo:
            if name.startswith("contracts/"):
                yield self._read(name).decode("utf-8", "replace")
            elif name.startswith("notices/"):
                try:
                    payload = Envelope.from_bytes(self._read(name)).payload
                except EncodingError:
                    continue
                yield payload.decode("utf-8", "replace")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        if name not in self._zip.NameToInfo:
            return []
        found = [_parsed(line) for line in self._read(name).split(b"\n") if line]
        if not all(isinstance(line, dict) for line in found):
            raise _damaged(f"objects in {name}", "others")
        return found

    def _document(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = _parsed(self._read(name))
        return found

    def _read(self, name: str) -> bytes:
        try:
            info = self._zip.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > _FILE_BYTES:
                raise _damaged(f"{name} stored, of at most {_FILE_BYTES} bytes", f"{info.file_size} bytes")
            return self._zip.read(info)
        except (KeyError, zipfile.BadZipFile, EOFError, RuntimeError, struct.error) as error:
            raise _damaged(f"the file {name}", type(error).__name__) from error


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _parsed(data: bytes) -> Any:  # noqa: ANN401  a JSON value
    try:
        return parse(data)
    except EncodingError as error:
        raise _damaged(error.need, error.found) from error


def _damaged(need: str, found: str) -> LogRepairError:
    return LogRepairError(
        need=f"a whole bundle of this log: {need}",
        found=ascii(found)[1:-1][:120],
        remedy="take another copy of the bundle, from an auditor or a member",
    )
