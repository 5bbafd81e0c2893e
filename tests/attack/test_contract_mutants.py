# SPDX-License-Identifier: Apache-2.0
"""Generated mutants of a contract: each is refused, or means the same and has the same digest. None is quietly another contract."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from policies.contract import Contract, executed, from_tree, load, parse, seal
from policies.contract.errors import ContractError, ContractInvalidError, NotCanonicalError
from policies.contract.grammar import Nullable, Rows, Rule, Struct, omissions_of, rules_of
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
            others = [not value if isinstance(value, bool) else True, [value]]
            others += [1 if isinstance(value, str) else "text"]
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


def sections(name: str, **values: Any) -> list[tuple[Path, Any]]:
    return [((name, key), one) for key, many in values.items() for one in many]


EVIDENCE = DOCUMENT["release"]["evidence"]
WIDENED: list[tuple[Path, Any]] = [
    (("schema",), "iriai-contract/0"),
    (("contract_id",), "ctr_1"),
    (("version",), 0),
    (("version",), 2),
    (("supersedes",), "sha256:" + "0" * 64),
    (("sign_by",), "2026-12-02T00:00:00Z"),
    *sections("prose", sha256=["", "0" * 63], prevails=[False], media_type=["text/html"]),
    (("parties", 0, "group"), "kita"),  # the auditor of one maker
    (("parties", 1, "role"), "contributor"),  # nobody is the broker
    (("parties", 2, "role"), "broker"),  # two are
    (("parties", 1, "group"), "kita"),  # the broker of one maker
    (("parties", 2, "key"), DOCUMENT["parties"][3]["key"]),
    *sections(
        "term", effective=["2026-11-01T00:00:00Z"], expires=["9999-99-99T00:00:00Z", "2026-12-01T00:00:00Z"]
    ),
    (("forbidden", 0, "check"), "none"),
    (("forbidden", 0, "use"), DOCUMENT["forbidden"][1]["use"]),
    (("recipes", 0, "max_rounds"), 2**53),
    (("recipes", 0, "max_rounds"), -1),
    (("recipes", 0, "max_local_steps_per_round"), 0),
    (("recipes", 0, "recipe_digest"), "sha256:*"),
    (("recipes", 0, "purpose"), "*"),
    (("recipes", 1, "datasets"), DOCUMENT["recipes"][1]["datasets"][:2]),  # fewer groups than k
    (("seed_sets", 0, "recipe"), "paint"),
    (("seed_sets", 0, "seed_set"), "none"),
    (("seed_sets", 0, "donations"), []),
    (("seed_sets", 0, "donations", 0, "party"), "broker"),
    (("seed_sets", 0, "donations", 0, "consent"), "given"),
    *sections(
        "fields",
        allow=[["*"], [], sorted([*DOCUMENT["fields"]["allow"], "x_shift_id"])],
        personal_data=["allowed"],
    ),
    *sections(
        "privacy",
        mode=["none"],
        unit=["frame"],
        delta=["1", "0"],
        epsilon_per_release=["8.5", "Infinity"],
        epsilon_total=["1000000000000", "1"],
        filter=["sum-of-epsilons"],
        noise=["none", "shares"],
        honest_min=[3, 2],
        protected_properties=[["shift-pattern"]],
        reply_slot_ms=[0],
    ),
    (("privacy", "per_party", 0, "epsilon_total"), "9"),
    (("privacy", "per_party", 1, "epsilon_per_release"), "2.5"),
    (("privacy", "per_party", 0, "party"), "mallory"),
    *sections(
        "aggregation",
        min_parties=[0, 1, 4, 5],
        max_colluders=[2, 3, 62, -1],
        max_share=["2", "0"],
        weights=["samples", "fixed"],
        secure_aggregation=["some"],
        update_norm_max=["-1", "0"],
        delay_hours=[-1, 100_000],
        differencing_guard=["none"],
        group_mac=["maybe"],
    ),
    *sections("validation", quorum=["0", "1.01"], max_rejected_rounds=[0], gain_clip=["2"], epsilon=["0"]),
    *sections("queries", allow=[["*"], ["another-share"]], min_groups=[1, 5]),
    (("tiers", 0, "recipients"), ["contributors", "public"]),
    (("tiers", 0, "recipients"), ["public"]),
    (("tiers", 0, "requires"), []),
    (("tiers", 0, "requires"), ["dp-1"]),
    (("tiers", 0, "min_contribution"), "1.5"),
    (("tiers", 1, "embargo_days"), 0),
    (("tiers", 1, "min_contribution"), "0.02"),  # of a model for everybody
    *sections(
        "release",
        evidence=[["trust-me"], [], [one for one in EVIDENCE if one != "membership-inference-report"]],
        max_mia_auc=[None, "1.5"],
        max_property_skill=[None, "0"],
    ),
    (("release", "approvals", "min"), 0),
    (("release", "approvals", "min"), 5),
    (("release", "approvals", "of"), "anybody"),
    (("release", "approvals", "veto"), ["*"]),
    *sections("derivatives", fine_tune=["sold"], sublicense=["everybody"]),
    *sections("retention", updates_hours=[-1], logs_years=[0], evidence=["none"]),
    *sections(
        "exit",
        notice_days=[-1],
        released_models=["withdraw"],
        unreleased_models=["keep"],
        influence=["erased"],
    ),
    *sections(
        "incentives",
        method=["lottery"],
        formula=["cost-share/2"],
        floor=["0.6", "2"],
        cap=["0.01"],
        disclose=["everybody"],
    ),
    *sections("fees", eur_per_quarter=[-1], basis=["by-favour"], tied_services=["cloud"]),
    *sections(
        "audit",
        who=[[], ["everybody"]],
        access=["all"],
        log_origin=["", "two words"],
        witness_quorum=[-1, 65],
        ml_dsa=["maybe"],
        raw_data=["always"],
    ),
    *sections("liability", cap_eur=[-1], bears=["nobody"]),
    *sections("export_control", embargoed=[["Russia"]], check=["none"], classification=["secret"]),
    *sections("law", governing=["Germany"], language=["deu"]),
    *sections("amendment", change=["any-contributor"], tighten=["broker"], key_rotation=["by-broker"]),
    *sections("halt", who=[[], ["nobody"]], effect=["none"], resume=["broker"]),
    *sections("conflict", rule=["permit-wins"], unknown=["allow"]),
    *(
        (("fields", "enforced_by"), claim)
        for claim in ([], ["everywhere"], ["auditor", "broker", "node"], ["law"])
    ),
    *(((name, "enforced_by"), ["gate", "law"]) for name in ("prose", "retention", "fees", "law", "exit")),
    (("forbidden", 0, "enforced_by"), ["broker", "gate", "law"]),
    (("forbidden", 0, "enforced_by"), ["gate"]),
]


def widened() -> Iterator[tuple[str, Any]]:
    for path, value in WIDENED:
        yield f"widened {path} to {value!r:.40}", mutated(path, value)


KINDS = (removed, retyped, duplicated, reordered, renamed, widened)


def may_be_left_out(name: str) -> bool:
    """Whether a mutant only leaves out, or denies, what the language lets an author leave out.

    Such a text is another contract, with another digest, which nobody signed; it is no bad one.
    """
    if name == "retyped ('test_only',) to True":
        return True
    found = re.fullmatch(r"(removed|retyped) (\(.*\))( to None)?", name)
    if found is None or (found[1] == "retyped") != (found[3] is not None):
        return False
    path, kind = ast.literal_eval(found[2]), Contract
    for step in path[:-1]:
        if isinstance(step, str):
            kind = below(rules_of(kind)[step])
    if isinstance(path[-1], int):
        return True  # a recipe less; where a tier or a seed set needs it, the mutant is refused all the same
    return path[-1] in omissions_of(kind) or isinstance(rules_of(kind)[path[-1]], Nullable)


def below(rule: Rule) -> type:
    while isinstance(rule, Nullable):
        rule = rule.of
    assert isinstance(rule, Struct | Rows)
    return rule.of


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_no_mutant_is_accepted_as_another_contract(kind):
    counts, lines = Counter(), []
    for name, tree in kind():
        verdicts = []
        for door in (_signed, from_tree):  # the parser of signed bytes, and the authoring boundary
            try:
                other = door(tree)
            except IriaiError as error:
                verdicts.append(f"refused: {error.code} {error.clause or ''}".strip())
                continue
            if other.digest == CONTRACT.digest:
                assert door is from_tree, name  # signed bytes have one spelling only
                verdicts.append("the same digest")
                continue
            assert may_be_left_out(name), f"{door.__name__} accepted {name}"
            verdicts.append("an optional term less: another digest, which nobody signed")
        counts.update(one.split(":")[0] for one in verdicts)
        lines.append(f"{name:<70.70} signed: {verdicts[0]:<50} authored: {verdicts[1]}")
    print("\n" + "\n".join(lines))
    print(f"{kind.__name__}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    assert counts["refused"] > 0
    if kind is widened:
        assert set(counts) == {"refused"}


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
