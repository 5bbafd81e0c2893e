# SPDX-License-Identifier: Apache-2.0
"""Generated mutants of a contract: each is refused, or means the same and has the same digest. None is quietly another contract."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from policies.contract import Contract, executed, from_tree, load, parse, seal
from policies.contract.errors import ContractError, ContractInvalidError, NotCanonicalError
from policies.encoding import canonical
from policies.errors import IriaiError
from policies.limits import CLAUSES
from tests.contractsim import CONTRIBUTORS, authored, contract, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRACT = contract()
DOCUMENT = CONTRACT.document
Path = tuple[str | int, ...]


def places(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value of the tree with its path."""
    yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, value in items:
        yield from places(value, (*path, step))


def at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def mutated(path: Path, value: Any) -> dict[str, Any]:
    tree = json.loads(CONTRACT.canonical)
    at(tree, path[:-1])[path[-1]] = copy.deepcopy(value)
    return tree


def removed() -> Iterator[tuple[str, Any]]:
    for path, value in places(DOCUMENT):
        if path and isinstance(path[-1], str):
            tree = copy.deepcopy(DOCUMENT)
            del at(tree, path[:-1])[path[-1]]
            yield f"removed {path}", tree
        elif isinstance(value, dict) and path and path[0] == "recipes" and len(path) == 2:
            tree = copy.deepcopy(DOCUMENT)
            del at(tree, path[:-1])[path[-1]]  # a recipe that a tier or a purpose needs
            yield f"removed {path}", tree


def retyped() -> Iterator[tuple[str, Any]]:
    for path, value in places(DOCUMENT):
        if not path:
            continue
        if isinstance(value, dict | list):
            others: list[Any] = ["text", None]
        else:
            others = [True, [value], 1 if isinstance(value, str) else "text"]
            others += [] if value is None else [None]
        for other in others:
            yield f"retyped {path} to {other!r:.20}", mutated(path, other)


def duplicated() -> Iterator[tuple[str, Any]]:
    for path, value in places(DOCUMENT):
        if isinstance(value, list) and value:
            for row in value:
                yield f"duplicated a row of {path}", mutated(path, [*value, row])


def reordered() -> Iterator[tuple[str, Any]]:
    for path, value in places(DOCUMENT):
        if isinstance(value, list) and len(value) > 1:
            yield f"reordered {path}", mutated(path, value[::-1])


def renamed() -> Iterator[tuple[str, Any]]:
    for path, value in places(DOCUMENT):
        if isinstance(value, dict):
            yield (
                f"one more key in {path}",
                (mutated(path, value | {"nuke": True}) if path else value | {"nuke": True}),
            )
            for name in list(value):
                other = {key + "s" if key == name else key: one for key, one in value.items()}
                yield f"renamed {path}.{name}", (mutated(path, other) if path else other)


WIDENED: list[tuple[Path, Any]] = [
    (("parties", 0, "role"), "contributor"),
    (("parties", 1, "role"), "broker"),
    (("term", "effective"), "2026-11-01T00:00:00Z"),
    (("term", "expires"), "9999-99-99T00:00:00Z"),
    (("recipes", 0, "max_rounds"), 2**53),
    (("recipes", 0, "max_rounds"), -1),
    (("recipes", 0, "max_local_steps_per_round"), 0),
    (("recipes", 0, "recipe_digest"), "sha256:*"),
    (("recipes", 0, "purpose"), "*"),
    (("fields", "allow"), ["*"]),
    (("fields", "allow"), sorted([*DOCUMENT["fields"]["allow"], "x_shift_id"])),
    (("fields", "personal_data"), "allowed"),
    (("privacy", "mode"), "none"),
    (("privacy", "unit"), "frame"),
    (("privacy", "delta"), "1"),
    (("privacy", "epsilon_per_release"), "8.5"),
    (("privacy", "epsilon_per_release"), "Infinity"),
    (("privacy", "epsilon_total"), "1000000000000"),
    (("privacy", "filter"), "sum-of-epsilons"),
    (("privacy", "noise"), "none"),
    (("privacy", "per_party", 0, "epsilon_total"), "9"),
    (("privacy", "per_party", 1, "epsilon_per_release"), "2.5"),
    (("privacy", "per_party", 0, "party"), "mallory"),
    (("aggregation", "min_parties"), 1),
    (("aggregation", "min_parties"), 0),
    (("aggregation", "max_share"), "2"),
    (("aggregation", "max_share"), "0"),
    (("aggregation", "weights"), "samples"),
    (("aggregation", "update_norm_max"), "-1"),
    (("aggregation", "update_norm_max"), "0"),
    (("tiers", 0, "recipients"), ["contributors", "public"]),
    (("tiers", 0, "recipients"), ["public"]),
    (("tiers", 0, "requires"), []),
    (("tiers", 0, "requires"), ["dp-1"]),
    (("release", "approvals", "min"), 0),
    (("release", "approvals", "of"), "anybody"),
    (("release", "approvals", "veto"), ["*"]),
    (("release", "evidence"), ["trust-me"]),
    (("conflict", "rule"), "permit-wins"),
    (("conflict", "unknown"), "allow"),
    (("version",), 0),
    (("version",), 2),
    (("schema",), "iriai-contract/0"),
    (("contract_id",), "ctr_1"),
    *(
        (("fields", "enforced_by"), claim)
        for claim in ([], ["everywhere"], ["auditor", "broker", "node"], ["law"])
    ),
]


def widened() -> Iterator[tuple[str, Any]]:
    for path, value in WIDENED:
        yield f"widened {path} to {value!r:.40}", mutated(path, value)


KINDS = (removed, retyped, duplicated, reordered, renamed, widened)
# A cap that a party may leave to the common one: without it this is another contract, which nobody signed.
OPTIONAL = tuple(
    f"{verb} ('privacy', 'per_party', 1, '{cap}'){rest}"
    for cap in ("epsilon_per_release", "epsilon_total")
    for verb, rest in (("removed", ""), ("retyped", " to None"))
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_no_mutant_is_accepted_as_another_contract(kind):
    counts = {"refused": 0, "same digest": 0}
    for name, tree in kind():
        for door in (_signed, from_tree):  # the parser of signed bytes, and the authoring boundary
            try:
                other = door(tree)
            except IriaiError:
                counts["refused"] += 1
                continue
            if name in OPTIONAL:
                assert other.digest != CONTRACT.digest
                continue
            assert other.digest == CONTRACT.digest, name
            assert door is from_tree, name  # signed bytes have one spelling only
            counts["same digest"] += 1
    print(
        f"\n{kind.__name__}: "
        + ", ".join(f"{count} {name}" for name, count in counts.items())
        + ", 0 accepted"
    )
    assert counts["refused"] > 0


def _signed(tree: Any) -> Contract:
    return parse(canonical(tree))


def test_there_are_at_least_two_hundred_mutants():
    counts = {kind.__name__: sum(1 for _ in kind()) for kind in KINDS}
    print(f"\nmutants: {sum(counts.values())} {counts}")
    assert sum(counts.values()) >= 200


def test_every_altered_byte_is_refused():
    envelope = seal(CONTRACT, *(key_of(name) for name in (*CONTRIBUTORS, "broker")))
    executed(CONTRACT, envelope)
    data = CONTRACT.canonical
    other_contracts = 0
    for position in range(0, len(data), 7):
        altered = data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]
        try:
            other = parse(altered)
        except IriaiError:
            continue
        other_contracts += 1  # a letter of a name, say: another digest, which nobody signed
        assert other.digest != CONTRACT.digest
        with pytest.raises(ContractError):
            executed(other, envelope)
        assert other.canonical != CONTRACT.canonical
    print(f"\naltered bytes that parse: {other_contracts} of {len(data) // 7}; signed by anybody: 0")


@pytest.mark.parametrize("noise", [b" ", b"\n", b"\x00", b"\xef\xbb\xbf", b"\xff"])
def test_added_bytes_are_refused(noise):
    for data in (noise + CONTRACT.canonical, CONTRACT.canonical + noise):
        with pytest.raises(NotCanonicalError):
            parse(data)


def test_a_key_twice_is_refused_whichever_value_comes_last():
    text = CONTRACT.canonical.decode()
    for section in ("aggregation", "privacy", "release"):
        double = text.replace(f'"{section}":', f'"{section}":null,"{section}":', 1)
        assert double != text
        with pytest.raises(NotCanonicalError):
            load(double)


def test_too_many_clauses_are_refused():
    tree = authored()
    tree["purposes"] += [
        {"clause": f"p-{number}", "id": f"p-{number}", "text": "Another."} for number in range(CLAUSES)
    ]
    with pytest.raises(ContractInvalidError):
        from_tree(tree)


def test_deep_and_long_texts_are_refused_without_harm():
    deep = '{"a":' * 100_000
    for text in (deep, "[" * 100_000, '{"a":"' + "x" * 300_000 + '"}', '{"a":' + "9" * 10_000 + "}"):
        with pytest.raises(IriaiError):
            load(text)


def test_exponents_of_decimals_are_bounded():
    for value in ("1e999999999", "9" * 1_000, "0." + "0" * 1_000 + "1", "1_0", " 1", "\u0661", "NaN", "-0"):
        tree = authored()
        tree["privacy"]["epsilon_total"] = value
        with pytest.raises(ContractInvalidError) as refused:
            from_tree(tree)
        assert refused.value.clause == "dp-1"


def test_the_document_is_plain_json():
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
