# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file, walked by their lengths: where its chunks lie, and what is in them.

- An index is never needed and never believed: an indexed file, one without an index and one that was cut are
  walked alike. A chunk gives its first log time in its head, so that it is opened only when its turn comes.
- A chunk is bounded before it is opened, and while it is: what it says of its size is not believed. Its CRC
  is checked, and that of the data section where the writer made one.
- A file that ends before its end is cut. The complete records of its last chunk are given too; the CRC of
  that chunk cannot be checked any more.
- Source: the MCAP specification, version 0 (https://mcap.dev/spec).

    walked = Walked(file, name, size)
    for opcode, body in walked.records(walked.parts[0]): ...
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from client.data.errors import FileInvalidError, TooLargeError
from policies.limits import BAG_CHUNK_BYTES, BAG_DEFINITION_BYTES, BAG_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MESSAGE", "MESSAGE_HEAD", "TIME_END", "Part", "Walked", "invalid"]

MESSAGE: Final = 5
MESSAGE_HEAD: Final = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
TIME_END: Final = 2**63
_MAGIC: Final = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _CHUNK, _STATISTICS, _DATA_END = 2, 3, 4, 6, 11, 15
_HEAD: Final = struct.Struct("<BQ")  # opcode, length
_CHUNK_HEAD: Final = struct.Struct(
    "<QQQII"
)  # first and last time, size, CRC, length of the compression's name
_CRC: Final = struct.Struct("<I")
_COUNT: Final = struct.Struct("<Q")
_NAME_BYTES: Final = 32
_RUN_BYTES: Final = 1024**2  # messages outside chunks are taken together up to this
_READ_BYTES: Final = 4 * 1024**2


class Part(NamedTuple):
    """A chunk, or a run of messages outside chunks: where its records are in the file.

    ``compression`` is None for a run; ``size`` and ``crc`` are what a chunk says of its content.
    """

    first_ns: int
    at: int
    length: int
    compression: str | None
    size: int
    crc: int
    cut: bool


class Walked:
    """What walking a file found.

    Attributes:
        parts: Chunks and runs, in the order of the file.
        schemas: Id to name, encoding, text.
        channels: Id to schema, topic, encoding of its messages.
        cut: The file ends before its end.
        rows: Messages, where the summary counts them.
    """

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self.parts: list[Part] = []
        self.schemas: dict[int, tuple[str, str, str]] = {}
        self.channels: dict[int, tuple[int, str, str]] = {}
        self.cut = True
        self.rows: int | None = None
        self._file, self._name, self._size = file, name, size
        self._data_end = self._data_crc = self._defined = 0
        self._walk()
        if not self.cut and self._data_crc:
            self._check_data()
        named = {schema for schema, _, _ in self.channels.values()} - {0}
        if self.cut or not named or not named <= set(self.schemas):
            self._define_from_chunks()

    def records(self, part: Part) -> Iterator[tuple[int, memoryview]]:
        """Opcode and body of each record of a part; of a cut one those that are complete.

        Raises:
            FileInvalidError: Size or CRC are not what the chunk says, or it cannot be decompressed.
        """
        self._file.seek(part.at)
        data = memoryview(self._unpacked(part, self._file.read(part.length)))
        at, end = 0, len(data)
        while at + _HEAD.size <= end:
            opcode, length = _HEAD.unpack_from(data, at)
            if at + _HEAD.size + length > end:
                break
            at += _HEAD.size
            yield opcode, data[at : at + length]
            at += length
        if at != end and not part.cut:
            raise invalid(self._name, "a record that goes beyond its chunk")

    def _unpacked(self, part: Part, packed: bytes) -> bytes:
        if len(packed) != part.length:
            raise invalid(self._name, "fewer bytes than when it was opened")
        if part.compression is None:
            return packed
        data = packed if not part.compression else self._decompressed(part, packed)
        if part.cut:
            return data
        if len(data) != part.size or (part.crc and zlib.crc32(data) != part.crc):
            raise invalid(self._name, "a chunk whose size or CRC is wrong")
        return data

    def _decompressed(self, part: Part, packed: bytes) -> bytes:
        """At most one byte more than the chunk says, so that more shows."""
        unpack = {"zstd": _zstd, "lz4": _lz4}.get(part.compression or "")
        if unpack is None:
            raise invalid(self._name, f"the compression {ascii(part.compression)[:20]}")
        try:
            return unpack(packed, part.size + 1)
        except _codec_errors() as error:
            if part.cut:
                return b""
            raise invalid(self._name, "a chunk that cannot be decompressed") from error

    def _walk(self) -> None:
        """Goes from record to record; the file is whole if it comes to the footer and the magic after it."""
        self._file.seek(0)
        at = len(_MAGIC)
        if self._file.read(at) != _MAGIC[: self._size] or not self._size:
            raise invalid(self._name, "no MCAP")
        while True:
            self._file.seek(at)
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            opcode, length = _HEAD.unpack(head)
            end = at + _HEAD.size + length
            if opcode == 0:
                raise invalid(self._name, "a record of no kind")
            if opcode == _CHUNK:
                self._chunk(at + _HEAD.size, min(end, self._size), cut=end > self._size)
            elif end <= self._size:
                self._other(opcode, at, length)
            if end > self._size:
                return
            if opcode == _FOOTER:
                self._file.seek(end)
                self.cut = self._file.read(len(_MAGIC)) != _MAGIC
                return
            at = end

    def _chunk(self, body: int, end: int, *, cut: bool) -> None:
        head = self._file.read(_CHUNK_HEAD.size + _NAME_BYTES)
        if len(head) < _CHUNK_HEAD.size:
            return
        first_ns, _, size, crc, name_bytes = _CHUNK_HEAD.unpack_from(head)
        start = body + _CHUNK_HEAD.size + name_bytes + _COUNT.size
        if name_bytes > _NAME_BYTES or (start > end and not cut) or first_ns >= TIME_END:
            raise invalid(self._name, "a chunk with a wrong head")
        if start >= end:
            return
        if max(size, end - start) > BAG_CHUNK_BYTES:
            raise TooLargeError(
                need=f"chunks of at most {BAG_CHUNK_BYTES} bytes",
                found=f"{self._name}: a larger one",
                remedy="record with smaller chunks, or write them again with mcap",
            )
        compression = head[_CHUNK_HEAD.size : _CHUNK_HEAD.size + name_bytes].decode("ascii", "replace")
        self.parts.append(Part(first_ns, start, end - start, compression, size, crc, cut))

    def _other(self, opcode: int, at: int, length: int) -> None:
        if opcode == MESSAGE:
            self._run(at, length)
        elif opcode in (_SCHEMA, _CHANNEL):
            if length > BAG_DEFINITION_BYTES:
                raise TooLargeError(
                    need=f"definitions of at most {BAG_DEFINITION_BYTES} bytes",
                    found=f"{self._name}: a larger one",
                    remedy="check the file",
                )
            self._definition(opcode, self._file.read(length))
        elif opcode == _DATA_END and length >= _CRC.size:
            (self._data_crc,) = _CRC.unpack(self._file.read(_CRC.size))
            self._data_end = at
        elif opcode == _STATISTICS and length >= _COUNT.size:
            (self.rows,) = _COUNT.unpack(self._file.read(_COUNT.size))

    def _run(self, at: int, length: int) -> None:
        """A message outside chunks: part of the run before it, where that ends here and is not large."""
        head = self._file.read(min(length, MESSAGE_HEAD.size))
        if len(head) < MESSAGE_HEAD.size:
            raise invalid(self._name, "a message without its head")
        log_ns = MESSAGE_HEAD.unpack(head)[2]
        whole = _HEAD.size + length
        last = self.parts[-1] if self.parts else None
        joins = last is not None and last.compression is None and last.at + last.length == at
        if last is not None and joins and last.length < _RUN_BYTES:
            self.parts[-1] = last._replace(first_ns=min(last.first_ns, log_ns), length=last.length + whole)
        else:
            self.parts.append(Part(log_ns, at, whole, None, whole, 0, cut=False))

    def _define_from_chunks(self) -> None:
        """Without a summary, channels stand in the chunks alone."""
        for part in self.parts:
            for opcode, body in self.records(part):
                if opcode in (_SCHEMA, _CHANNEL):
                    self._definition(opcode, bytes(body))

    def _definition(self, opcode: int, body: bytes) -> None:
        """A schema or a channel; one that changes its meaning within a file is refused."""
        from mcap.data_stream import ReadDataStream
        from mcap.exceptions import McapError
        from mcap.records import Channel, Schema

        stream = ReadDataStream(io.BytesIO(body))
        try:
            if opcode == _SCHEMA:
                schema = Schema.read(stream)
                known: dict[int, Any] = self.schemas
                key, new = schema.id, (schema.name, schema.encoding, schema.data.decode("utf-8"))
            else:
                channel = Channel.read(stream)
                known = self.channels
                key, new = channel.id, (channel.schema_id, channel.topic, channel.message_encoding)
        except (McapError, struct.error, UnicodeDecodeError) as error:
            raise invalid(self._name, "a schema or channel that cannot be read") from error
        if key not in known:
            self._defined += len(body)
        if known.setdefault(key, new) != new or len(known) > BAG_TOPICS or self._defined > BAG_CHUNK_BYTES:
            raise invalid(self._name, "a channel or schema with two meanings, or too many of them")

    def _check_data(self) -> None:
        self._file.seek(0)
        left, crc = self._data_end, 0
        while left and (block := self._file.read(min(left, _READ_BYTES))):
            left, crc = left - len(block), zlib.crc32(block, crc)
        if crc != self._data_crc:
            raise invalid(self._name, "a data section whose CRC is wrong")


def invalid(name: str, found: str) -> FileInvalidError:
    """The refusal of a file that contradicts its format."""
    return FileInvalidError(
        need="an MCAP file", found=f"{name}: {found}", remedy="copy the file again, or mcap recover"
    )


def _zstd(packed: bytes, limit: int) -> bytes:
    import zstandard

    found = bytearray()
    with zstandard.ZstdDecompressor(max_window_size=BAG_CHUNK_BYTES).stream_reader(packed) as stream:
        while len(found) < limit and (block := stream.read(min(limit - len(found), _READ_BYTES))):
            found += block
    return bytes(found)


def _lz4(packed: bytes, limit: int) -> bytes:
    import lz4.frame

    found: bytes = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=limit)
    return found


def _codec_errors() -> tuple[type[Exception], ...]:
    import zstandard

    return zstandard.ZstdError, RuntimeError, EOFError  # lz4 raises the latter two
