# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from client.contract.comparing import contract_diff
from client.contract.reading import contract_list, fetch, latest, resolve
from client.contract.showing import contract_show
from client.contract.words import WORDS, terms
from client.errors import (
    BrokerKeyError,
    DigestMismatchError,
    NoSuchThingError,
    NotConfirmedError,
    NotJoinedError,
    NotSignedError,
    PeerUnreachableError,
    ProseMismatchError,
    RemoteRefusalError,
    StaleOfferError,
)
from policies.contract.errors import ContractInvalidError, NotCanonicalError
from policies.contract.registry import RECIPIENTS
from policies.identity import SigningKey, key_text
from tests.nodesim import BrokerSim, HandClock
from tests.nodeworld import BEFORE_MS, IN_TERM_MS, PROSE, World, ready_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_signing_sends_the_signature_and_the_envelope_once(world: World):
    first = world.sign()
    assert (first.data["executed"], first.data["lane"]) == (False, "VERIFIED")
    again = world.sign()
    assert again.data["contract"] == first.data["contract"]
    assert len(world.outbox().envelopes(kind="contract.signed")) == 1
    assert world.outbox().pending() == ()  # its receipt was fetched and checked
    world.finalize()
    assert world.sign().data["executed"] is True


def show(world: World, digest: str | None = None, **options):
    return contract_show(world.home, world.member, world.shelf(), world.outbox(), digest, **options)


def test_own_duties_come_first_and_each_sentence_names_its_clause(world: World):
    shown = show(world)
    assert shown.data["party"] == "kita"
    assert all(line.startswith("[") for line in shown.data["clauses"])
    assert any("dp-1" in line for line in shown.data["clauses"])
    topics = [one["topic"] for one in shown.data["duties"]]
    assert topics == sorted(
        topics, key=["trains", "fields", "budget", "left", "receives", "exit", "halt"].index
    )
    duties = "\n".join(shown.text)
    for words in ("kita/pick", "gripper_width", "8.5 per release", "20 in all", "consortium", "30 days"):
        assert words in duties.split("Kept by software")[0], words
    assert all(held.contract.clause(one["clause"]) for one in shown.data["duties"] for held in [_held(world)])
    listed = contract_list(world.member, world.shelf())
    assert listed.text[-2:] == (
        "waits for your signature:",
        f"  {world.contract.digest}  {world.contract.title}",
    )
    rows = listed.data["contracts"]
    assert (rows[0]["state"], rows[0]["lane"]["state"], rows[0]["waiting_for"]) == (
        "offered",
        "OFFERED",
        ["kita"],
    )


def _held(world: World):
    return world.shelf().get(world.contract.digest)


def test_what_only_courts_keep_is_listed_apart(world: World):
    shown = show(world)
    law = {line.split("]")[0].strip("[") for line in shown.data["law_only"]}
    assert {"prose-1", "liab-1", "law-1"} <= law
    assert "dp-1" not in law
    text = list(shown.text)
    assert text.index("Kept by people and courts only (law only)") > text.index(
        "Kept by software (it refuses)"
    )


def test_a_contract_is_shown_while_the_broker_is_away(world: World):
    here = show(world)
    world.broker.down = True
    away = show(world)
    assert away.data == here.data
    listed = contract_list(world.member, world.shelf())
    assert (listed.data["broker_away"], listed.data["contracts"][0]["expires"]) == (
        True,
        "2028-12-01T00:00:00Z",
    )
    assert latest(world.member, world.shelf()) == world.contract.digest
    with pytest.raises(PeerUnreachableError):
        world.sign()


def test_what_is_left_of_the_budget_is_a_share_of_what_adds_up(tmp_path: Path):
    world = ready_world(tmp_path)
    assert any(one["topic"] == "left" and "Nothing" in one["words"] for one in show(world).data["duties"])
    world.ask()
    (left,) = [one for one in show(world).data["duties"] if one["topic"] == "left"]
    assert (left["clause"], "of 20" in left["words"], " % is left" in left["words"]) == ("dp-1", True, True)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_lost_ledger_is_no_unspent_budget_in_the_duties(tmp_path: Path, lang: str):
    world = ready_world(tmp_path)
    world.ask()
    world.worker.close()
    for file in world.home.budget.glob("*.db"):
        file.unlink()
    shown = show(world, lang=lang)
    (left,) = [one for one in shown.data["duties"] if one["topic"] == "left"]
    assert "budget.unknown" in left["words"]
    assert shown.data["budget_unknown"]["code"] == "budget.unknown"
    assert shown.data["clauses"]  # the rest of the contract is shown all the same


def test_the_same_contract_is_shown_in_japanese(world: World):
    shown = show(world, lang="ja")
    assert "貴社にとっての意味" in shown.text
    assert [one["clause"] for one in shown.data["duties"]] == [
        one["clause"] for one in show(world).data["duties"]
    ]
    assert all(len(one) == 2 and all(one) for one in WORDS.values())


def test_every_term_that_a_duty_can_name_has_words_in_both_languages():
    choices = ("retrain", "discard", "leaver-chooses", "any-contributor", "auditor", "broker")
    for name in (*RECIPIENTS.values(), *choices):
        assert terms("en", [name]) != terms("ja", [name]), name


def test_twelve_digits_name_a_contract_and_fewer_name_none(world: World):
    whole = world.contract.digest
    for name in (whole, whole.removeprefix("sha256:"), whole[7:19], whole[:19]):
        assert resolve(world.member, world.shelf(), name) == whole
    for name in (whole[7:18], "f" * 12, "sha256:", "../../x", ""):
        with pytest.raises(NoSuchThingError):
            resolve(world.member, world.shelf(), name)


def test_a_diff_names_what_touches_this_party_first(world: World):
    show(world)
    old = world.contract
    privacy = old.document["privacy"] | {"epsilon_total": "30"}
    recipes = old.document["recipes"]
    recipes[0]["datasets"] = [one for one in recipes[0]["datasets"] if one["party"] != "nord"]
    recipes[0]["datasets"].append({"party": "nord", "dataset": "nord/other"})
    world.offer(privacy=privacy, recipes=recipes, title="Another title")
    shown = contract_diff(world.member, world.shelf(), None, None)
    assert (shown.data["before"], shown.data["after"]) == (old.digest, world.contract.digest)
    assert shown.data["no_looser"] is False
    looser = [one for one in shown.data["changes"] if one["direction"] == "looser"]
    assert {one["clause"] for one in looser} >= {"dp-1"}
    assert shown.text[1] == "These touch you"
    assert any("LOOSER" in line and "dp-1" in line for line in shown.text)
    assert "dp-1" in {one["clause"] for one in shown.data["witnesses"]}
    assert any("for example" in line and "dp-1" in line for line in shown.text)
    same = contract_diff(world.member, world.shelf(), old.digest, old.digest)
    assert (same.data["changes"], same.data["no_looser"]) == ([], True)


def test_a_field_that_is_looser_taken_alone_is_told_so_once_it_is_proven_that_nothing_is_won(world: World):
    pytest.importorskip("z3", reason="the extra prove is not installed")
    aggregation = world.contract.document["aggregation"]
    world.offer(aggregation=aggregation | {"max_share": "0.95"})  # with equal weights no share is so large
    show(world)
    world.offer(aggregation=aggregation | {"max_share": "0.96"})
    shown = contract_diff(world.member, world.shelf(), None, None)
    assert (shown.data["no_looser"], shown.data["witnesses"]) == (True, [])
    assert any("k-1 LOOSER max_share" in line for line in shown.text)
    assert shown.text[-1] == (
        "Proven: k-1 max_share reads looser taken alone, but there is no request that only the new text allows."
    )


def test_the_first_text_of_a_contract_has_nothing_to_be_compared_with(world: World):
    with pytest.raises(NoSuchThingError, match="another text"):
        contract_diff(world.member, world.shelf(), None, None)


def test_other_bytes_than_the_digest_names_are_refused(world: World):
    digest = world.contract.digest
    world.broker.contracts[digest] = world.broker.contracts[digest].replace(b'"version":1', b'"version":2')
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert world.broker.signatures == {}
    assert not world.home.contracts.exists()


def test_another_recipe_than_the_contract_names_is_refused(world: World):
    world.broker.annexes[world.recipe.digest] = world.recipe.canonical.replace(
        b'"rounds":190', b'"rounds":191'
    )
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert world.broker.signatures == {}


def test_a_recipe_that_is_not_sent_is_not_signed(world: World):
    world.broker.annexes.clear()
    with pytest.raises(RemoteRefusalError):
        world.sign()


def test_a_contract_of_another_broker_is_not_signed(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["role"] == "broker":
            one["key"] = key_text(SigningKey.from_seed(b"Z" * 32).public)
    world.offer(parties=parties)
    with pytest.raises(BrokerKeyError):
        world.sign()


def test_a_contract_that_pins_this_key_for_another_organisation_is_not_signed(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["org"] = "org_aaaaaaaaaaaaaaaa"
    world.offer(parties=parties)
    with pytest.raises(NotSignedError, match="pinned for contributor"):
        world.sign()


def test_a_contract_without_this_node_is_not_kept(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["key"] = key_text(SigningKey.from_seed(b"Q" * 32).public)
    world.offer(parties=parties)
    with pytest.raises(NoSuchThingError):
        world.sign()


def test_a_contract_whose_fields_do_not_cover_the_recipe_is_not_signed(world: World):
    fields = world.contract.document["fields"] | {"allow": ["tcp_pos"]}
    world.offer(fields=fields)
    with pytest.raises(NotSignedError, match="goal_pos"):
        world.sign()


def test_after_the_deadline_nothing_is_signed(world: World):
    world.clock.ms = BEFORE_MS + 365 * 86_400_000
    with pytest.raises(NotSignedError, match="before"):
        world.sign()


def test_a_person_who_says_no_signs_nothing(world: World):
    with pytest.raises(NotConfirmedError):
        world.sign(confirm=lambda _text: False)
    assert world.broker.signatures == {}
    assert world.outbox().envelopes() == ()


def test_before_the_approval_nothing_is_signed(tmp_path: Path):
    world = World(tmp_path)
    (world.home.keys / "alias.key").unlink()
    world.broker.member().pop("alias_key")
    world.broker.member()["state"] = "waiting-approval"
    with pytest.raises(NotJoinedError):
        world.sign()


def test_bytes_that_are_no_contract_are_refused(world: World):
    from policies.encoding import canonical, digest

    for data in (b"{}", canonical({"schema": "iriai-contract/1", "x": 1}), b"\xff"):
        world.broker.contracts[digest(data)] = data
        with pytest.raises((ContractInvalidError, NotCanonicalError)):
            fetch(world.member, world.shelf(), digest(data))


def test_another_text_for_people_than_the_bound_one_is_not_signed(world: World):
    with pytest.raises(ProseMismatchError, match="prose-1"):
        world.sign(prose=PROSE + b" and one more line")
    with pytest.raises(NotConfirmedError, match="prose"):
        world.sign(prose=None)
    world.broker.prose[world.contract.digest] = b"another text"
    world.home.contracts.joinpath("shown.json").unlink(missing_ok=True)
    shutil.rmtree(world.home.contracts)
    with pytest.raises(ProseMismatchError):
        world.sign()
    assert not world.home.contracts.exists()  # nothing of a contract with a planted text is kept
    assert world.broker.lanes.posted == []


def test_a_text_that_binds_no_prose_is_not_signed_with_a_file(world: World):
    world.offer(prose=None)
    with pytest.raises(ProseMismatchError, match="binds none"):
        world.sign()
    assert world.sign(prose=None).data["lane"] == "VERIFIED"


def test_an_older_version_than_the_one_that_rules_is_not_signed(world: World):
    world.sign()
    world.finalize()
    world.sign()
    ruling, world.clock.ms = world.contract, IN_TERM_MS
    for version, supersedes in ((1, None), (3, ruling.digest), (2, "sha256:" + "0" * 64)):
        world.contract = ruling
        world.succeed(title="Another", version=version, supersedes=supersedes)
        with pytest.raises(StaleOfferError):
            world.sign()
    world.contract = ruling
    world.succeed(title="Another")
    assert world.sign().data["lane"] == "VERIFIED"


@pytest.mark.parametrize("name", ["", "sha256:../../x", "sha256:" + "g" * 64, "../etc"])
def test_a_digest_that_is_none_is_refused_before_any_path_is_made(world: World, name: str):
    with pytest.raises(NoSuchThingError):
        fetch(world.member, world.shelf(), name)


def test_the_simulated_broker_stands_still():
    assert BrokerSim(clock=HandClock(5)).clock.now_ms() == 5
