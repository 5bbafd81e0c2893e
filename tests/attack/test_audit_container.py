# SPDX-License-Identifier: Apache-2.0
"""Bundles of format 2 whose tiles, names or container are not those of the log that they claim to hold."""

from __future__ import annotations

from typing import Any

import pytest

from policies.log.bundle import TILE, files_of, pack
from policies.log.bundle_writer import BundleWriter
from policies.log.entries import EntryType, Event
from policies.log.zipform import MANIFEST
from policies.verify import verify
from tests.auditsim import PARTIES, MakerSim, PoolSim, digest_from, repacked
from tests.planting import Plants, Told

PLANTS = Plants()


def long_history() -> PoolSim:
    """More than two tiles: the shortest history with a contract, then what operators did."""
    sim = PoolSim(makers={name: MakerSim(name) for name in PARTIES})
    sim.begin()
    sim.found()
    while len(sim.bodies) < 2 * TILE + 40:
        request = digest_from(f"request {len(sim.bodies)}")
        told = {
            "operator": "anna",
            "action": "org.read",
            "subject": None,
            "result": "done",
            "request": request,
        }
        sim.append(Event(type=EntryType.CONSOLE_ACTION, pub=told))
    sim.names["submission kita 1"] = sim.names["signed kita"]
    sim.publish()
    return sim


LONG = long_history()
FILES = files_of(LONG.contents(version=2))


def told(files: dict[str, bytes]) -> Told:
    return Told(bundle=repacked(files), policy=LONG.policy)


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@PLANTS.planted("AUD-021")
def a_hash_in_a_full_tile_is_another() -> Told:
    return told(FILES | {"tile/0/001": flipped(FILES["tile/0/001"], 999)})


@PLANTS.planted("AUD-021")
def a_hash_in_the_last_tile_is_another() -> Told:
    return told(FILES | {"tile/0/002.p/40": flipped(FILES["tile/0/002.p/40"], 39 * 32)})


@PLANTS.planted("AUD-021")
def a_hash_above_the_leaves_is_another() -> Told:
    return told(FILES | {"tile/1/000.p/2": flipped(FILES["tile/1/000.p/2"])})


@PLANTS.planted("AUD-021")
def a_hash_tile_is_cut() -> Told:
    return told(FILES | {"tile/0/000": FILES["tile/0/000"][:-32]})


@PLANTS.planted("AUD-021")
def two_hash_tiles_are_swapped() -> Told:
    return told(FILES | {"tile/0/000": FILES["tile/0/001"], "tile/0/001": FILES["tile/0/000"]})


@PLANTS.planted("AUD-002")
def a_hash_tile_is_missing() -> Told:
    return told({name: data for name, data in FILES.items() if name != "tile/1/000.p/2"})


@PLANTS.planted("AUD-002")
def a_hash_tile_has_another_width() -> Told:
    made = dict(FILES)
    made["tile/0/002.p/41"] = made.pop("tile/0/002.p/40")
    return told(made)


@PLANTS.planted("AUD-002")
def there_is_a_tile_that_the_size_has_not() -> Told:
    return told(FILES | {"tile/2/000.p/1": bytes(32)})


@PLANTS.planted("AUD-002")
def there_is_an_older_partial_tile_beside_the_full_one() -> Told:
    return told(FILES | {"tile/0/000.p/9": FILES["tile/0/000"][: 9 * 32]})


@PLANTS.planted("AUD-002")
def an_old_format_has_hash_tiles() -> Told:
    return told(files_of(LONG.contents()) | {"tile/0/000": FILES["tile/0/000"]})


@PLANTS.planted("AUD-082")
def disclosures_are_of_a_tile_that_the_log_has_not() -> Told:
    return told(FILES | {"disclosures/007.jsonl": b'{"field":"at","index":1792,"salt":"","value":0}\n'})


@pytest.mark.parametrize("name", PLANTS.cases)
def test_a_planted_lie_fires_its_rule(name: str) -> None:
    PLANTS.check(name)


@pytest.mark.parametrize("version", [1, 2])
def test_both_formats_of_a_long_history_are_complete(version: int) -> None:
    report = verify(LONG.bundle(version=version), LONG.policy)
    assert (report.exit_code, report.findings, report.size) == (0, [], 2 * TILE + 40)


def test_a_bundle_in_the_layout_of_the_other_format_is_refused() -> None:
    for version in (1, 2):
        files = files_of(LONG.contents(version=version))
        data = other_layout(files, 3 - version)
        report = verify(data, LONG.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"})


def other_layout(files: dict[str, bytes], layout: int) -> bytes:
    import io

    made = io.BytesIO()
    writer = BundleWriter(made, layout=layout)
    for name in sorted(files, key=lambda one: (layout > 1 and one == MANIFEST, one)):
        writer.add(name, files[name])
    writer.finish()
    return made.getvalue()


@pytest.mark.parametrize("head", [b'"v":3', b'"v":true', b'"v":"2"', b'"v":1', b'"v":-2', b'"v":null'])
def test_a_version_that_is_not_known_is_refused(head: bytes) -> None:
    report = verify(pack(FILES | {"BUNDLE": FILES["BUNDLE"].replace(b'"v":2', head)}), LONG.policy)
    assert report.exit_code == 3
    assert "AUD-004" in report.counts


def test_every_byte_of_a_bundle_of_format_2_is_guarded() -> None:
    bundle: Any = LONG.bundle(version=2)
    for at in range(0, len(bundle), 997):
        report = verify(bundle[:at] + bytes([bundle[at] ^ 4]) + bundle[at + 1 :], LONG.policy)
        assert (report.exit_code, set(report.counts)) == (3, {"AUD-001"}), at
