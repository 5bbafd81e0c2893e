# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from client.budgets.showing import budget_show
from client.errors import DigestMismatchError, NoSuchThingError, PersonaliseError, RemoteRefusalError
from client.models import (
    STATEMENT_TYPE,
    Tuning,
    keep_individual,
    model_folder,
    models_list,
    personalise,
    pull,
    read_model,
)
from client.releases import release_list, vote
from client.statements import statement_show
from policies.contract.errors import RefusedError
from policies.encoding import canonical, digest
from policies.errors import SignatureInvalidError
from policies.exchange import ExchangeType
from policies.identity import SigningKey
from policies.log.entries import alias
from policies.log.envelope import open_envelope
from policies.privacy.errors import BudgetDivergedError, BudgetUnknownError, StatementError
from policies.privacy.statement import Subject, Terms, build_statement, claim
from policies.signing import Envelope
from tests.learnsim import small_recipe
from tests.nodesim import RefusedBySimError
from tests.nodeworld import IN_TERM_MS, RUN, World, ready_world, sha


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = ready_world(tmp_path)
    world.ask(ExchangeType.PING)  # the signatures are here now
    return world


def _release(
    world: World, *, tier: str = "consortium", key: SigningKey | None = None, told: Any = None, **changes
) -> str:
    """A released model at the simulated broker; ``changes`` are of the statement's subject, ``told`` of the list."""
    told = told or {}
    data = np.linspace(-1, 1, world.recipe.parameters, dtype="<f4").tobytes()
    model = digest(data)
    given = {"model": model, "contract": world.contract.digest, "run": RUN, "recipe": world.recipe.digest}
    given |= {"plan": world.recipe.plan.document, "evaluation": world.recipe.evaluation.document} | changes
    plan, forged = given.pop("plan"), given.pop("forged", {})
    asked = {"evaluation": given.pop("evaluation"), "votes": given.pop("votes", None)}
    claims = [claim(given.pop("mine", "A1b2"), plan), claim("C3d4", plan)]
    document = build_statement(subject=Subject(**given), claims=claims, terms=Terms(), **asked) | forged
    statement = Envelope.seal(canonical(document), STATEMENT_TYPE, key or world.broker.key).to_bytes()
    row = {
        "model": model,
        "tier": tier,
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "recipe_id": "pick",
        "run": RUN,
        "statement": digest(statement),
        "at_ms": IN_TERM_MS - 60_000,
        "made_ms": IN_TERM_MS - 120_000,
    }
    row |= told
    world.broker.routes["/releases"] = lambda _request, _body: {"releases": [row]}
    world.broker.routes["/statements/"] = lambda _request, _body: statement
    world.broker.routes["/models/"] = lambda _request, _body: data
    return model


def test_a_released_model_is_fetched_checked_and_kept(world: World):
    model = _release(world)
    shown = pull(world.member, world.shelf(), model).data
    assert (shown["tier"], shown["verdict"]) == ("consortium", "PRIVATE")
    facts, weights = read_model(world.home, model)
    assert (facts["model"], len(weights)) == (model, world.recipe.parameters)
    assert Path(shown["file"]).stat().st_size == world.recipe.parameters * 4
    assert models_list(world.member).data["models"][0]["here"] is True
    (world.home.models / "individual-x").mkdir()
    (world.home.models / "individual-x" / "model.json").write_text("{}")
    world.broker.down = True
    away = models_list(world.member)
    assert [(one["model"], one["here"]) for one in away.data["models"]] == [(model, True)]
    assert (away.error.code, away.error.exit_code) == ("peer.unreachable", 5)
    assert away.text[-1] == "the broker is away: this is what is held here"


def test_other_bytes_are_not_kept(world: World):
    model = _release(world)
    for data in (b"\0" * world.recipe.parameters * 4, b"\0" * 8):
        world.broker.routes["/models/"] = lambda _request, _body, data=data: data
        with pytest.raises(DigestMismatchError):
            pull(world.member, world.shelf(), model)
    world.broker.routes["/models/"] = lambda _request, _body: b"\0" * (world.recipe.parameters * 4 + 1)
    with pytest.raises(Exception, match="at most"):
        pull(world.member, world.shelf(), model)
    assert not world.home.models.exists()


def test_a_model_that_no_release_names_is_not_asked_for(world: World):
    _release(world)
    before = len(world.broker.seen_requests)
    with pytest.raises(NoSuchThingError):
        pull(world.member, world.shelf(), sha("a vetoed candidate"))
    assert [path for _, path, _ in world.broker.seen_requests[before:]] == ["/releases"]


def test_a_tier_that_the_contract_does_not_give_is_refused_here_too(world: World):
    model = _release(world, tier="open")
    with pytest.raises(RefusedError):
        pull(world.member, world.shelf(), model)
    assert not world.home.models.exists()


@pytest.mark.parametrize("told", [{"at_ms": None}, {"made_ms": "yesterday"}, {"made_ms": 2**53 - 1}])
def test_a_release_without_its_times_is_not_taken(world: World, told: dict):
    model = _release(world, told=told)
    with pytest.raises(RefusedError) as refused:
        pull(world.member, world.shelf(), model)
    assert "unknown" in refused.value.found
    assert not world.home.models.exists()


def test_a_model_that_the_delay_still_holds_back_is_refused_by_this_nodes_own_clock(tmp_path: Path):
    world = World(tmp_path, changes={"aggregation.delay_hours": 24}).ready()
    world.ask(ExchangeType.PING)
    model = _release(world)
    with pytest.raises(RefusedError) as refused:
        pull(world.member, world.shelf(), model)
    assert refused.value.clause == "k-1"
    world.clock.ms += 24 * 3_600_000
    assert pull(world.member, world.shelf(), model).data["tier"] == "consortium"


def test_a_recipient_under_embargo_takes_nothing(tmp_path: Path):
    embargo = {"clause": "export-1", "classification": "none", "embargoed": ["JP"]}
    world = World(tmp_path, changes={"export_control": embargo | {"check": "recipient-country"}}).ready()
    world.ask(ExchangeType.PING)
    with pytest.raises(RefusedError) as refused:
        pull(world.member, world.shelf(), _release(world))
    assert refused.value.clause == "export-1"


def test_a_statement_by_another_key_or_about_another_model_is_refused(world: World):
    model = _release(world, key=SigningKey.from_seed(b"X" * 32))
    with pytest.raises(SignatureInvalidError):
        pull(world.member, world.shelf(), model)
    other = small_recipe(noise_multiplier="4").plan.document
    for changes in (
        {"model": sha("another")},
        {"contract": sha("another")},
        {"recipe": sha("another")},
        {"run": "run_bbbbbbbbbbbbbbbb"},
        {"evaluation": world.recipe.evaluation.document | {"noise_multiplier": "7"}},
        {"votes": world.recipe.evaluation.document},
        {"plan": other},
        {"plan": None},
    ):
        model = _release(world, **changes)
        with pytest.raises(DigestMismatchError):
            pull(world.member, world.shelf(), model)
    assert not world.home.models.exists()


def test_a_statement_whose_verdict_or_figures_do_not_follow_is_refused(world: World):
    for forged in ({"verdict": "NOT PRIVATE"}, {"contributors": []}, {"note": "no plan at all"}):
        model = _release(world, forged=forged)
        with pytest.raises(StatementError):
            pull(world.member, world.shelf(), model)
    assert not world.home.models.exists()


def test_the_brokers_refusal_names_its_clause(world: World):
    model = _release(world)

    def refuse(_request: httpx.Request, _body: object) -> bytes:
        raise RefusedBySimError(need="a release", found="a veto", remedy="train another", clause="release-1")

    world.broker.routes["/models/"] = refuse
    with pytest.raises(RemoteRefusalError) as raised:
        pull(world.member, world.shelf(), model)
    assert (raised.value.exit_code, raised.value.clause) == (4, "release-1")


def test_a_changed_model_file_is_refused(world: World):
    model = _release(world)
    shown = pull(world.member, world.shelf(), model).data
    data = bytearray(Path(shown["file"]).read_bytes())
    data[5] ^= 1
    Path(shown["file"]).write_bytes(data)
    with pytest.raises(DigestMismatchError):
        read_model(world.home, model)


def test_an_individual_model_lies_beside_the_common_one(world: World):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    pulled, weights = read_model(world.home, model)
    tuning = Tuning(
        mode="full", improved=True, selection_units=1, selection=(3.0, 2.0), report_units=1, report=(2.0, 1.0)
    )
    own = keep_individual(world.home, pulled, weights + 1, tuning)
    assert own["kept"] == "individual"
    assert np.array_equal(read_model(world.home, model, individual=True)[1], weights + 1)
    assert np.array_equal(read_model(world.home, model)[1], weights)
    assert Path(own["file"]).stat().st_mode & 0o777 == 0o600


def test_a_model_that_was_not_pulled_cannot_be_trained_on(world: World):
    with pytest.raises(NoSuchThingError):
        personalise(world.home, sha("nothing"))


@pytest.mark.slow
def test_a_pulled_model_is_trained_on_at_home_by_the_worker(world: World):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    shown = personalise(world.home, model).data
    assert shown["kept"] == "individual"
    assert float(shown["held_out_loss"]) < float(shown["held_out_loss_common"])
    assert len(read_model(world.home, model, individual=True)[1]) == world.recipe.parameters


def test_a_worker_that_ends_badly_is_told(world: World):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    world.home.settings.write_text("nonsense = 1\n")
    with pytest.raises(PersonaliseError):
        personalise(world.home, model)


def _candidate(world: World, state: str = "waiting") -> str:
    row = {
        "candidate": sha("candidate"),
        "run": RUN,
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "state": state,
        "own_vote": None,
        "voted": 0,
    }
    taken = []

    def take(_request: httpx.Request, body: dict) -> dict:
        envelope = Envelope.from_json(body["envelope"])
        world.broker.take(envelope)
        taken.append(open_envelope(envelope, world.member.identity.key.public))
        return {"candidate": row["candidate"], "vote": taken[-1]["body"]["vote"]}

    world.broker.routes["/candidates/"] = take
    world.broker.routes["/candidates"] = lambda _request, _body: {"candidates": [row]}
    world.votes = taken
    return row["candidate"]


def test_an_owner_vetoes_by_a_clause_and_has_the_receipt(world: World):
    candidate = _candidate(world)
    assert release_list(world.member).data["candidates"][0]["state"] == "waiting"
    shown = vote(
        world.member, world.shelf(), world.worker.outbox, candidate, verdict="veto", clause="party-kita"
    )
    assert (shown.data["vote"], shown.data["receipted"]) == ("veto", 1)
    assert world.votes[0]["body"] == {"subject": candidate, "vote": "veto", "clause": "party-kita"}
    assert (world.votes[0]["scope"], world.votes[0]["run"]) == (world.contract.digest, RUN)
    assert json.loads(world.worker.outbox.envelopes(kind="vote.cast")[0].receipt)["entry"]


def test_a_clause_that_the_contract_does_not_have_vetoes_nothing(world: World):
    candidate = _candidate(world)
    with pytest.raises(NoSuchThingError):
        vote(world.member, world.shelf(), world.worker.outbox, candidate, verdict="veto", clause="dp-9")
    with pytest.raises(NoSuchThingError):
        vote(world.member, world.shelf(), world.worker.outbox, sha("other"), verdict="approve")
    assert world.worker.outbox.envelopes(kind="vote.cast") == ()


def stated(world: World, model: str | None, **options: Any) -> Any:
    outbox = world.outbox()
    try:
        return statement_show(world.member, world.shelf(), outbox, model, **options)
    finally:
        outbox.close()


def test_a_pulled_models_statement_is_shown_in_words_as_a_page_and_as_what_was_signed(
    world: World, tmp_path: Path
):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    page, signed = tmp_path / "s.html", tmp_path / "s.json"
    shown = stated(world, None, html=page, out=signed)
    assert shown.data["statement"]["subject"]["model"] == model
    assert any("e^" in line for line in shown.text)
    assert "does NOT protect" in page.read_text()
    assert "<script" not in page.read_text()
    assert Envelope.from_bytes(signed.read_bytes()).signed_by(world.broker.key.public)
    japanese = stated(world, model, lang="ja")
    assert any("保護されない" in line for line in japanese.text)


def test_a_statement_that_was_changed_on_disk_is_not_shown(world: World):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    file = model_folder(world.home, model) / "statement.dsse"
    file.write_bytes(file.read_bytes().replace(b"payload", b"Payload"))
    with pytest.raises(NoSuchThingError, match="another file"):
        stated(world, model)


def test_a_node_states_its_own_part_with_the_figures_of_its_ledger(world: World):
    world.ask()
    model = _release(world)
    pull(world.member, world.shelf(), model)
    row = stated(world, model, own=True).data["statement"]["contributors"][0]
    assert row["party"] == "kita"
    assert row["lifetime"]["rho_spent_nano"] > 0
    assert float(row["lifetime"]["epsilon_filter"]) > 0
    assert row["lifetime"]["ledger_head"].startswith("sha256:")
    text = "\n".join(stated(world, model, own=True).text)
    spent, most = row["lifetime"]["rho_spent_nano"], row["lifetime"]["rho_max_nano"]
    assert f"{100 * spent / most:.1f} % of the life budget of these data is spent: {spent} of {most}" in text
    assert "PRIVATE: kita trained under a plan" in text
    assert "every contributor" not in text
    assert "kita (this node, kita)" in text


def test_the_filters_first_step_is_cut_alike_in_the_statement_and_in_the_budget(world: World):
    world.ask()
    model = _release(world)
    pull(world.member, world.shelf(), model)
    outbox = world.outbox()
    shown = "\n".join(budget_show(world.home, world.member, world.shelf(), outbox).text)
    outbox.close()
    (start,) = re.findall(r"it starts above ([0-9.]+) with", shown)
    assert f"starts above {start} with" in "\n".join(stated(world, model, own=True).text)


def test_the_statement_marks_this_node_and_says_what_was_asked_of_held_out_data(world: World):
    own = b"a" * 32
    (world.home.keys / "alias.key").write_bytes(own)
    (world.home.keys / "alias.key").chmod(0o600)
    model = _release(world, mine=alias(own, world.contract.digest, RUN, None))
    pull(world.member, world.shelf(), model)
    text = "\n".join(stated(world, model).text)
    assert f"What is promised to {alias(own, world.contract.digest, RUN, None)} (this node, kita)" in text
    assert text.count("this node") == 1
    plan = world.recipe.evaluation
    assert f"at most {plan.steps} noisy queries" in text
    assert f"epsilon {plan.epsilon_rdp:.4f}"[:14] in text
    assert "every contributor" in text


@pytest.mark.parametrize("kept", ["an old copy", "nothing"])
def test_a_node_signs_no_figures_from_a_ledger_that_lacks_what_was_told(world: World, kept: str):
    world.ask()
    old = {path: path.read_bytes() for path in world.home.budget.glob("*.db")}
    world.ask(round=2)
    model = _release(world)
    pull(world.member, world.shelf(), model)
    world.worker.close()
    shutil.rmtree(world.home.budget)
    if kept == "an old copy":
        world.home.budget.mkdir()
        for path, data in old.items():
            path.write_bytes(data)
    wanted = BudgetDivergedError if kept == "an old copy" else BudgetUnknownError
    with pytest.raises(wanted):
        stated(world, model, own=True, out=world.home.root / "own.dsse")
    assert not (world.home.root / "own.dsse").exists()
    assert stated(world, model).data["signed_by"] == "broker"


@pytest.mark.parametrize("name", ["html", "out"])
def test_a_page_makes_no_folders(world: World, tmp_path: Path, name: str):
    model = _release(world)
    pull(world.member, world.shelf(), model)
    with pytest.raises(NoSuchThingError, match="a folder that is there"):
        stated(world, model, **{name: tmp_path / "nowhere" / "s.html"})
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", ["off", "required"])
def test_a_node_claims_a_secure_sum_where_its_gate_lets_nothing_else_leave(tmp_path: Path, mode: str):
    world = World(tmp_path, changes={"aggregation.secure_aggregation": mode})
    world.sign()
    data = np.zeros(world.recipe.parameters, dtype="<f4").tobytes()
    model = digest(data)
    folder = model_folder(world.home, model)
    folder.mkdir(parents=True)
    facts = {"model": model, "contract": world.contract.digest, "recipe": world.recipe.digest, "run": RUN}
    (folder / "weights.f32").write_bytes(data)
    (folder / "model.json").write_bytes(canonical(facts))
    shown = stated(world, model, own=True).data["statement"]
    assert shown["terms"]["secure_aggregation"] == mode
