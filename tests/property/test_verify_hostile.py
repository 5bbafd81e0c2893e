# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a bundle of format 2, the verifier answers with a report, and never that it is complete."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.identity import SigningKey
from policies.log.bundle import files_of
from policies.log.checkpoint import VerifierKey
from policies.verify import verify
from tests.auditsim import ORIGIN, PoolSim, repacked, seeded

SIM = PoolSim(eventful=True).build()
FILES = files_of(SIM.contents(version=2))
OF_ENTRIES = [
    name for name in FILES if name.startswith(("tile/", "envelopes/", "decisions/", "disclosures/"))
]
LINES = st.sampled_from(
    [
        b"",
        b"\n",
        b"\xff\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"index":0}\n',
        b'{"index":true}\n',
        b'{"index":-1}\n',
        b'{"index":1e3}\n',
        b'{"index":99999999999999999999}\n',
        b'{"envelope":{"payload":"","payloadType":"","signatures":[]},"index":0}\n',
        b'{"decision":"x","index":0,"request":[],"salt":"","state":null}\n',
        b'{"field":"at","index":0,"salt":"00112233445566778899aabbccddeeff","value":[[[[]]]]}\n',
        b"{" * 200,
        b"[" * 100_000,
    ]
)


def refused(files: dict[str, bytes]) -> None:
    report = verify(repacked(files), SIM.policy)
    assert report.exit_code in (3, 6)
    assert not report.to_json()["complete"]
    assert all(line.isprintable() for line in report.lines())


def test_the_story_itself_is_complete() -> None:
    assert verify(repacked(FILES), SIM.policy).exit_code == 0


@settings(max_examples=70, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_file_that_is_changed(name: str, draw: st.DataObject) -> None:
    data = FILES[name]
    at = draw.draw(st.integers(0, len(data)))
    changed = draw.draw(
        st.one_of(
            LINES,
            LINES.map(lambda line: data[:at] + line + data[at:]),
            st.binary(max_size=40).map(lambda some: data[:at] + some + data[at + len(some) :]),
            st.just(data[:at]),
            st.just(data[at:]),
            st.just(data * 2),
        )
    )
    if name in ("MANIFEST", "BUNDLE") or changed == data:
        return
    refused(FILES | {name: changed})


@settings(max_examples=35, deadline=None)
@given(st.sampled_from(OF_ENTRIES), st.sampled_from(sorted(FILES)))
def test_two_files_that_are_swapped(first: str, second: str) -> None:
    if FILES[first] != FILES[second] and "MANIFEST" not in (first, second):
        refused(FILES | {first: FILES[second], second: FILES[first]})


@settings(max_examples=35, deadline=None)
@given(st.sampled_from(sorted(set(FILES) - {"MANIFEST"})))
def test_a_file_that_is_missing(name: str) -> None:
    if name.startswith(("receipts/", "statements/", "notices/")) or name == "keys/aliases.json":
        return  # a receipt may well be missing; the others have their planted cases
    refused({one: data for one, data in FILES.items() if one != name})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.sampled_from(["tile/entries/000.p/{}", "tile/0/000.p/{}", "tile/1/000.p/{}"]))
def test_a_tile_of_a_wrong_width(width: int, name: str) -> None:
    own = name.format(len(SIM.bodies))
    data = FILES.get(own, b"")
    if width != len(SIM.bodies):
        refused({one: kept for one, kept in FILES.items() if one != own} | {name.format(width): data})


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=10, deadline=None)
def test_foreign_keys(seed: bytes) -> None:
    key = VerifierKey(ORIGIN, SigningKey.from_seed(seeded(seed.hex())).public)
    assert verify(repacked(FILES), replace(SIM.policy, logs=(key,))).exit_code == 6
    broker = SigningKey.from_seed(seeded(seed.hex() + "broker")).public
    assert verify(repacked(FILES), replace(SIM.policy, broker=broker)).exit_code == 3
