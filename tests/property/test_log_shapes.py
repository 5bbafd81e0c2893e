# SPDX-License-Identifier: Apache-2.0
"""Entries and disclosures that one expression reads are exactly what the steps, one by one, read."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.encoding import canonical, parse
from policies.errors import IriaiError
from policies.limits import INTEGER_MAX
from policies.log import entries, kinds
from policies.log.entries import EntryType, check_entry, known_entry
from policies.log.kinds import REFS_MAX, Kind
from policies.log.schema import SCHEMA
from policies.log.shapes import _SHAPES, Shape, read_shape
from policies.verify.packs import _parse_disclosure

WITHOUT = {EntryType.LOG_GENESIS, EntryType.ROUND_CLOSED, EntryType.CANDIDATE_EVALUATED}
SHAPED = [kind for kind in SCHEMA if kind not in WITHOUT]
DIGEST = "sha256:" + "0f" * 32
ACTION = {
    "actor": "broker",
    "env": None,
    "log": "broker.example/log/a",
    "pub": {"action": "org.approve", "operator": "op", "request": DIGEST, "result": "done", "subject": None},
    "refs": [3],
    "round": 4,
    "run": None,
    "scope": DIGEST,
    "sd": {"at": "0f" * 32},
    "ts": "2026-11-01T10:04:00Z",
    "type": "console.action",
    "v": 1,
}
BYTES = [*b'"\\{}[],:0 19aZ-_.\x00\x7f\x80\xff\n', *b"null"]


def by_steps(data: bytes) -> dict[str, Any] | None:
    try:
        found = entries._read(data)
    except IriaiError:
        return None
    return {name: value for name, value in found.items() if name != "v"}


def agrees(data: bytes) -> bool:
    """Whether a shape read it; then it read what the steps read, in their order."""
    found = read_shape(data)
    if found is None:
        return False
    same = by_steps(data)
    assert found == same
    assert json.dumps(found) == json.dumps(same)  # the order of fields, and True is not 1
    assert canonical(found | {"v": 1}) == data
    return True


def shape(kind: EntryType) -> Shape:
    found = _SHAPES[kind.value]
    assert found is not None
    return found


def test_all_types_but_those_with_objects_in_clear_have_a_shape() -> None:
    assert {kind for kind in SCHEMA if _SHAPES[kind.value] is None} == WITHOUT


@pytest.mark.parametrize("kind", SHAPED)
def test_whatever_fits_a_shape_is_an_entry_with_the_same_values(kind: EntryType) -> None:
    @settings(max_examples=4, deadline=None)
    @given(st.from_regex(shape(kind)._pattern, fullmatch=True, alphabet=string.printable))
    def one(text: str) -> None:
        data = text.encode("ascii")
        if not agrees(data):  # a day that does not exist, a reference twice, or too long
            assert by_steps(data) is None or len(data) > 4_000

    one()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_change_of_bytes_makes_a_shape_read_what_the_steps_refuse(data: st.DataObject) -> None:
    body = bytearray(canonical(ACTION))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(
            st.one_of(st.sampled_from(BYTES).map(lambda one: bytes([one])), st.binary(max_size=2))
        )
        body[at : at + data.draw(st.integers(0, 2))] = piece
    agrees(bytes(body))


def changed(**fields: Any) -> bytes:
    return json.dumps(ACTION | fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_entry_of_these_tests_is_read_by_its_shape() -> None:
    assert agrees(canonical(ACTION))
    assert known_entry(canonical(ACTION)) == check_entry(canonical(ACTION))


@pytest.mark.parametrize(
    "data",
    [
        changed(refs=[3, 3]),
        changed(refs=list(range(REFS_MAX + 1))),
        changed(refs=[-1]),
        changed(refs=[True]),
        changed(refs=[INTEGER_MAX + 1]),
        changed(round=1.0),
        changed(round="4"),
        changed(ts="2026-02-30T10:04:00Z"),
        changed(ts="2026-11-01T24:04:00Z"),
        changed(ts="2026-11-01T10:60:00Z"),
        changed(ts="2026-11-01T10:04:01Z"),
        changed(ts="२०२६-11-01T10:04:00Z"),
        changed(v=True),
        changed(v=2),
        changed(type="console.acted"),
        changed(sd={}),
        changed(sd={"at": "0F" * 32}),
        changed(sd={"at": "0f" * 32, "more": "0f" * 32}),
        changed(pub=ACTION["pub"] | {"result": "doné"}),  # type: ignore[operator]
        changed(pub=ACTION["pub"] | {"note": "done"}),  # type: ignore[operator]
        changed(more=None),
        changed() + b"\n",
        changed().replace(b'"refs":[3]', b'"refs":[3],"refs":[3]'),
        changed().replace(b'"refs":[3]', b'"refs":[03]'),
        changed().replace(b'"refs":[3]', b'"refs":[3,]'),
        changed().replace(b'"refs":[3]', b'"refs":[ 3]'),
        changed().replace(b'"done"', b'"\\u0064one"'),
        changed().replace(b'"actor":"broker","env":null', b'"env":null,"actor":"broker"'),
    ],
)
def test_what_is_no_entry_has_no_shape(data: bytes) -> None:
    assert by_steps(data) is None
    assert read_shape(data) is None


@pytest.mark.parametrize("round_", [0, 10**15 - 1, 10**15, INTEGER_MAX])
def test_large_integers_are_read_the_same_by_either_way(round_: int) -> None:
    data = changed(round=round_)
    assert check_entry(data).round == round_
    assert agrees(data) == (round_ < 10**15)


def named_kinds() -> dict[str, Kind]:
    found = {name: one for name, one in vars(kinds).items() if isinstance(one, Kind) and one.spelled}
    return found | {f"{kind} {name}": one for kind in SHAPED for name, one in SCHEMA[kind].pub.items()}


@pytest.mark.parametrize("kind", named_kinds().values(), ids=named_kinds())
def test_values_are_spelled_as_canonical_json_spells_them(kind: Kind) -> None:
    assert kind.spelled is not None
    spelled = kind.spelled

    @settings(max_examples=5, deadline=None)
    @given(st.from_regex(f"(?a:{spelled.whole})", fullmatch=True, alphabet=string.printable))
    def one(text: str) -> None:
        value = json.loads(text)
        if kind.holds(value):
            assert parse(text.encode("ascii")) == value
        else:
            assert not spelled.exact

    one()


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(["at", "key", "Ä", 'a"', ""]),
            "index": st.sampled_from([0, 7, 10**15, -1, 1.5, "7"]),
            "salt": st.sampled_from(["0f" * 16, "0F" * 16, "", 3]),
            "value": st.one_of(st.text(max_size=6), st.integers(), st.none(), st.just({"a": [1]})),
        },
        optional={"more": st.just(1)},
    ),
    st.integers(0, 200),
    st.sampled_from([*(bytes([one]) for one in BYTES), None]),
)
def test_a_disclosure_is_read_as_the_parser_reads_it(
    one: dict[str, Any], at: int, piece: bytes | None
) -> None:
    line = bytearray(json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    if piece is not None:
        line[at % len(line) : at % len(line) + 1] = piece
    data = bytes(line)

    def read(how: Any) -> Any:
        try:
            return how(data)
        except IriaiError as error:
            return str(error)

    assert read(_parse_disclosure) == read(parse)
