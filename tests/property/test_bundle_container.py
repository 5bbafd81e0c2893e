# SPDX-License-Identifier: Apache-2.0
"""The container of a bundle: whatever the files, one form; whatever the bytes, that form or a refusal."""

from __future__ import annotations

import io
import zipfile

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.log.bundle import pack, unpack
from policies.log.container import Container
from policies.log.errors import BundleError

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBER = st.integers(0, 999).map(lambda number: f"{number:03d}")
NAMES = st.one_of(
    st.sampled_from(["MANIFEST", "checkpoint", "checkpoints.log", "policy", "keys/aliases.json"]),
    HEX.map("statements/{}.json".format),
    HEX.map("contracts/{}.dsse".format),
    NUMBER.map("tile/entries/{}".format),
    NUMBER.map("tile/0/x001/{}.p/9".format),
    NUMBER.map("envelopes/x001/x002/{}.jsonl".format),
    st.integers(0, 10**6).map("receipts/{}.tlog-proof".format),
)
HEADS = st.sampled_from([b'{"format":"iriai-bundle/1"}', b'{"format":"iriai-bundle/2"}'])
FILES = st.tuples(st.dictionaries(NAMES, st.binary(max_size=60), max_size=40), HEADS).map(
    lambda made: made[0] | {"BUNDLE": made[1], "MANIFEST": made[0].get("MANIFEST", b"")}
)


@given(FILES)
def test_what_was_packed_is_what_everybody_unpacks(files: dict[str, bytes]) -> None:
    data = pack(files)
    assert unpack(data) == files
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    container = Container(len(data), lambda start, length: data[start : start + length])
    order = [one.name for one in container.files()]
    assert [one.name for one in container.numbered(range(len(files)))] == order
    for name in files:
        prefix = name[: max(1, len(name) // 2)]
        assert list(container.names(prefix)) == [one for one in order if one.startswith(prefix)]


@settings(max_examples=300)
@given(FILES, st.data())
def test_other_bytes_are_refused(files: dict[str, bytes], draw: st.DataObject) -> None:
    data = pack(files)
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, min(len(data), start + 80)))
    with_what = draw.draw(
        st.one_of(st.binary(max_size=80), st.sampled_from([data[:60], data[-60:], data[start:end] * 2]))
    )
    changed = data[:start] + with_what + data[end:]
    try:
        found = unpack(changed)
    except BundleError:
        assert changed != data
    else:
        assert pack(found) == changed  # another bundle in its one form, or the same


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    for made in (data, b"PK\x03\x04" + data, data + b"PK\x05\x06" + bytes(18)):
        try:
            unpack(made)
        except BundleError:
            continue
        assert pack(unpack(made)) == made
