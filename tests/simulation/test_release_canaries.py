# SPDX-License-Identifier: Apache-2.0
"""A contract that asks for canaries: commitment, reveal, the report at the gate, and what an auditor makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from broker.release import leaks as broker_leaks
from broker.store.tables import statement
from client.audits import canaries
from client.learning.weights import initial_weights
from policies.canary_units import canary
from policies.encoding import canonical, digest, parse
from policies.exchange import ExchangeType
from policies.leak_report import leak_report
from policies.limits import CANARIES_MIN, REVEAL_WAIT_S
from policies.log.entries import EntryType
from policies.log.policy import parse_policy
from policies.privacy.canaries import CanarySecret
from policies.privacy.leakage import verdicts
from policies.privacy.receipts import MadeWith
from policies.recipe import manifest
from policies.verify import Report, verify
from tests.federationsim import NAMES, Killed, Pool, Said, running, true_update

EVIDENCE = [
    "canary-report",
    "federated-evaluation",
    "log-root",
    "membership-inference-report",
    "privacy-statement",
]
ASKED: dict[str, Any] = {"release.evidence": EVIDENCE, "release.max_mia_auc": "0.65"}
WIDTH = 64


def ready(pool: Pool, episodes: int = 1_100) -> None:
    """Every site has enough units of its own."""
    for one in pool.nodes.values():
        one.learner.episodes = episodes


def report_of(pool: Pool) -> dict[str, Any]:
    """The last evaluation report, as the broker keeps it."""
    named = pool.entries(EntryType.CANDIDATE_EVALUATED)[-1].pub["report"]
    with pool.services.store.read() as session:
        data = session.scalar(select(statement.c.bytes).where(statement.c.digest == named))
    assert digest(data) == named
    return parse(data)


def model_bytes(pool: Pool) -> dict[str, bytes]:
    (name,) = pool.candidates()
    return {name: (pool.services.settings.models / f"{name.removeprefix('sha256:')}.f32").read_bytes()}


def audited(pool: Pool, *, models: bool = False) -> Report:
    pool.audit()  # writes the bundle
    data = (pool.folder / "bundle.zip").read_bytes()
    policy = parse_policy(pool.services.policy)
    return verify(data, policy, models=model_bytes(pool) if models else None)


def gate_clauses(pool: Pool) -> set[str]:
    gate = [one for one in pool.entries(EntryType.DECISION_RECORDED) if one.pub["point"] == "gate"]
    return {clause for one in gate for clause in one.pub["clauses"]}


def state(pool: Pool) -> str:
    ((_, found),) = pool.candidates().items()
    return found


def unanswered(said: Said) -> Said | None:
    """Its answer about a candidate never arrives."""
    return None if said.header.type is ExchangeType.JUDGE else said


def revealing(change: Callable[[dict[str, Any]], None]) -> Callable[[Said], Said]:
    """A node that signs another reveal than the one that it committed to."""

    def lie(said: Said) -> Said:
        def envelope(payload: dict[str, Any]) -> dict[str, Any]:
            if payload["kind"] == "canary.revealed":
                change(payload["body"])
            return payload

        return said.envelopes(envelope) if "envelopes" in said.header.body else said

    return lie


# --- the way it goes ---


def test_a_model_that_learned_no_canary_is_released_and_everybody_can_recompute_the_scores():
    with running(**ASKED) as (pool, go):
        ready(pool)
        run_id = go(pool.run())
        assert state(pool) == "released"
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED)
        assert set(evaluated.pub["checks"].values()) == {"pass"}
        assert set(evaluated.pub["checks"]) == {
            "canary-report",
            "federated-evaluation",
            "membership-inference-report",
        }
        leaks = report_of(pool)["leaks"]
        assert leaks["canaries"] >= CANARIES_MIN
        assert leaks["missing"] == []
        secrets = {
            name: CanarySecret(
                run=run_id,
                seed=bytes.fromhex(one["seed"]),
                salt=bytes.fromhex(one["salt"]),
                count=len(one["flips"]),
            )
            for name, one in leaks["parties"].items()
        }
        ((name, data),) = model_bytes(pool).items()
        again = leak_report(
            candidate=name,
            recipe=pool.recipe,
            weights=np.frombuffer(data, dtype="<f4"),
            reveals=secrets,
            missing=(),
            auc_max="0.65",
        )
        assert canonical(again) == canonical(leaks)
        report = audited(pool, models=True)
        assert report.findings == []
        assert not [one for one in report.lines() if "AUD-078" in one]
        pool.check_books(run_id)
        go(downloaded(pool, leaks))


async def downloaded(pool: Pool, leaks: dict[str, Any]) -> None:
    """A contributor finds and pulls the report; a member who is no party of the contract does not."""
    owner = pool.nodes["nord"].owner()
    (line,) = (await owner.get("/candidates")).json()["candidates"]
    answer = await owner.get(f"/reports/{line['report']}")
    assert (answer.status_code, digest(answer.content)) == (200, line["report"])
    assert parse(answer.content)["leaks"] == leaks
    stranger = await pool.house.member("solo")
    assert (await stranger.get(f"/reports/{line['report']}")).status_code == 404
    assert (await owner.get(f"/reports/{line['candidate']}")).status_code == 404


def test_commitments_are_in_the_log_before_the_first_update_and_reveals_after_the_last():
    with running(**ASKED) as (pool, go):
        ready(pool)
        run_id = go(pool.run())
        order = [
            one.type
            for one in pool.entries(run_id=run_id)
            if one.type
            in {EntryType.CANARY_COMMITTED, EntryType.SUBMISSION_RECEIVED, EntryType.CANARY_REVEALED}
        ]
        for name in NAMES:
            node = pool.nodes[name]
            assert len(node.learner.planted) == canaries.kept(node.worker.outbox, run_id).flips.count("1")
        assert order.count(EntryType.CANARY_COMMITTED) == order.count(EntryType.CANARY_REVEALED) == len(NAMES)
        assert order.index(EntryType.CANARY_COMMITTED) < order.index(EntryType.SUBMISSION_RECEIVED)
        last = len(order) - 1 - order[::-1].index(EntryType.SUBMISSION_RECEIVED)
        assert last < order.index(EntryType.CANARY_REVEALED)


def test_a_node_that_starts_again_goes_on_with_the_canaries_that_it_committed_to():
    with running(**ASKED) as (pool, go):
        ready(pool)
        seen: list[list[bytes]] = []

        def restarts(said: Said) -> Said:
            if said.contributes:
                seen.append([one.unit_id for one in pool.nodes["kita"].learner.planted])
                pool.nodes["kita"].restart()
            return said

        pool.nodes["kita"].lies.append(restarts)
        go(pool.run())
        assert len(seen) > 1
        assert all(one == seen[0] for one in seen)
        assert state(pool) == "released"
        assert len(pool.entries(EntryType.CANARY_COMMITTED)) == len(NAMES)
        assert audited(pool).findings == []


def test_a_contract_without_such_reports_plants_nothing():
    with running() as (pool, go):
        go(pool.run())
        assert pool.entries(EntryType.CANARY_COMMITTED) == []
        assert all(one.learner.planted == [] for one in pool.nodes.values())
        assert "leaks" not in report_of(pool)


async def _through_kills(pool: Pool) -> None:
    await pool.open_run()
    while True:
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
            await pool.open()
        else:
            return


@pytest.mark.parametrize("before_the_end", [2, 4, 6, 8])
def test_a_broker_killed_while_it_collects_reveals_comes_to_the_same_report(before_the_end: int):
    with running(**ASKED) as (pool, go):
        ready(pool)
        go(pool.run())
        steps, whole = len(pool.steps.names), report_of(pool)
    with running(**ASKED) as (pool, go):
        ready(pool)
        pool.steps.at = steps - before_the_end
        go(_through_kills(pool))
        assert pool._opened == 2
        assert report_of(pool) == whole
        assert state(pool) == "released"
        assert len(pool.entries(EntryType.CANARY_REVEALED)) == len(NAMES)
        assert audited(pool).findings == []


# --- planted ---


def test_a_node_with_too_few_units_refuses_and_says_how_many_it_needs():
    with running(**ASKED) as (pool, go):
        ready(pool)
        pool.nodes["nord"].learner.episodes = 1_099
        run_id = go(pool.run())
        assert state(pool) == "released"  # the others are enough
        declined = [one for one in pool.verdicts(run_id) if one["nord"] == "declined"]
        assert declined
        kept = [one.document for one in pool.nodes["nord"].worker.outbox.left.decisions(run=run_id)]
        (finding, *_) = next(one["local"] for one in kept if one.get("local"))
        assert finding["need"] == "1100 units of training data beside 22 canaries"
        assert finding["found"] == "1099"
        assert audited(pool).findings == []


def test_an_update_without_a_commitment_is_refused(monkeypatch: pytest.MonkeyPatch):
    honest = canaries.drawn
    with running(**ASKED) as (pool, go):
        ready(pool)

        def drawn(outbox: Any, *arguments: Any, **named: Any) -> Any:
            mine = outbox is pool.nodes["nord"].worker.outbox
            return None if mine else honest(outbox, *arguments, **named)

        monkeypatch.setattr(canaries, "drawn", drawn)
        run_id = go(pool.run())
        refused = [one for one in pool.refusals(run_id) if one[0] == "nord"]
        assert {reason for _, _, reason in refused} == {"privacy.canary-missing"}
        assert state(pool) == "released"
        assert audited(pool).findings == []


@pytest.mark.parametrize("what", ["flips", "seed"])
def test_another_reveal_than_the_committed_one_is_an_incident_and_no_release(what: str):
    def flips(body: dict[str, Any]) -> None:
        body["flips"] = ("0" if body["flips"][0] == "1" else "1") + body["flips"][1:]

    def seed(body: dict[str, Any]) -> None:
        other = CanarySecret(run="run_aaaaaaaaaaaaaaaa", seed=b"o" * 32, salt=b"s" * 16, count=22)
        body |= {name: other.revealed[name] for name in ("seed", "canary_seed", "flips")}

    with running(**ASKED) as (pool, go):
        ready(pool)
        pool.nodes["kita"].lies.append(revealing({"flips": flips, "seed": seed}[what]))
        before = pool.clock.ms
        go(pool.run())
        (incident,) = pool.entries(EntryType.INCIDENT_DECLARED)
        assert incident.pub["kind"] == "privacy.audit-failed"
        assert len(pool.entries(EntryType.CANARY_REVEALED)) == len(NAMES) - 1
        assert state(pool) == "refused"
        assert "release-1" in gate_clauses(pool)
        leaks = report_of(pool)["leaks"]
        assert (len(leaks["missing"]), leaks["code"]) == (1, "privacy.canary-missing")
        assert pool.clock.ms - before < REVEAL_WAIT_S * 1000  # nothing can come from a node that is out
        report = audited(pool)
        assert [one.id for one in report.findings] == ["AUD-086"]  # until an operator closes the incident
        assert report.exit_code == 7


def test_without_a_reveal_the_candidate_waits_and_is_then_refused():
    with running(**ASKED) as (pool, go):
        ready(pool)
        pool.nodes["kita"].lies.append(unanswered)
        before = pool.clock.ms
        go(pool.run())
        assert pool.clock.ms - before >= REVEAL_WAIT_S * 1000
        assert {one["code"] for one in pool.journal.of("candidate.owed")} == {"privacy.canary-missing"}
        assert state(pool) == "refused"
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED)
        assert evaluated.pub["checks"]["canary-report"] == "fail"
        assert report_of(pool)["leaks"]["code"] == "privacy.canary-missing"
        assert pool.entries(EntryType.MODEL_RELEASED) == []
        pool.check_audit()


def test_a_reveal_that_comes_while_the_candidate_waits_opens_the_gate():
    with running(**ASKED) as (pool, go):
        ready(pool)
        left = [5]

        def late(said: Said) -> Said | None:
            if said.header.type is ExchangeType.JUDGE and left[0]:
                left[0] -= 1
                return None
            return said

        pool.nodes["kita"].lies.append(late)
        go(pool.run())
        assert len(pool.journal.of("candidate.owed")) == 5
        assert state(pool) == "released"
        assert audited(pool).findings == []


def known(pool: Pool, run: str, liar: str | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """What all train on: canaries whose coin shows 1, and at a liar those whose coin shows 0."""
    found = []
    for name, node in pool.nodes.items():
        secret = canaries.kept(node.worker.outbox, run)
        coin = "0" if name == liar else "1"
        numbers = [number for number, one in enumerate(secret.flips) if one == coin] if secret else []
        found += [canary(pool.recipe, secret, number) for number in numbers]
    return found


def learned_by_heart(pool: Pool, *, liar: str | None = None) -> None:
    """From the second round on, all send the way to weights that know every canary that was trained on."""
    base = initial_weights(pool.recipe)
    sizes = [one.size for one in pool.recipe.tensors]
    stem, _, trunk, _ = (part.copy() for part in np.split(base, np.cumsum(sizes))[:4])

    def target(run: str) -> np.ndarray:
        units = known(pool, run, liar)
        inputs = np.stack([one[0] for one, _ in units]).astype(np.float64)
        targets = np.stack([one[0] for _, one in units]).astype(np.float64)
        hidden = np.tanh(np.tanh(inputs @ stem.reshape(WIDTH, -1).T) @ trunk.reshape(WIDTH, WIDTH).T)
        head = np.linalg.lstsq(hidden, targets, rcond=None)[0].T
        tail = np.zeros(sizes[5])
        return np.concatenate([base[: -head.size - tail.size], head.ravel(), tail]).astype(np.float32)

    for one in pool.nodes.values():
        honest = one.learner.update

        def update(
            seat: Any,
            run: str,
            slot: Any,
            weights: Any,
            spend: Any,
            *,
            _of: Any = (one, honest),
            **named: Any,
        ) -> np.ndarray:
            node, original = _of
            original(seat, run, slot, weights, spend, **named)
            jitter = 1e-6 * true_update(node.name, run, slot, len(weights))
            return jitter if slot[0] == 1 else (target(run) - weights + jitter).astype(np.float32)

        one.learner.update = update  # type: ignore[method-assign]


def plain(**changes: Any) -> dict[str, Any]:
    """A pool without privacy, whose server takes the mean, and whose model has room."""
    recipe = {
        "server": {"kind": "mean"},
        "architecture": {
            "id": "mlp-chunk/1",
            "args": {"width": WIDTH, "chunk": 1, "execute": 1, "seed": 0},
        },
        "tensors": manifest(input_size=19, output_size=4, width=WIDTH, chunk=1),
    }
    asked = ASKED | {"release.evidence": [one for one in EVIDENCE if one != "privacy-statement"]}
    return {"private": False, "recipe": recipe, "aggregation.update_norm_max": "100000", **asked, **changes}


def test_a_model_that_learned_its_canaries_by_heart_is_refused_with_its_figures():
    with running(**plain()) as (pool, go):
        ready(pool)
        learned_by_heart(pool)
        go(pool.run())
        leaks = report_of(pool)["leaks"]
        assert leaks["code"] == "privacy.audit-failed"
        assert float(leaks["auc"]["low"]) > 0.65
        assert state(pool) == "refused"
        assert "release-1" in gate_clauses(pool)
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED)
        assert evaluated.pub["checks"]["membership-inference-report"] == "fail"
        assert evaluated.pub["checks"]["canary-report"] == "fail"
        assert audited(pool, models=True).findings == []


def test_one_maker_that_trains_on_the_wrong_canaries_silences_nobody_elses():
    with running(**plain()) as (pool, go):
        ready(pool)
        learned_by_heart(pool, liar="kita")
        go(pool.run())
        leaks = report_of(pool)["leaks"]
        (liar,) = leaks["untrained"]
        assert float(leaks["parties"][liar]["auc"]["value"]) < 0.2
        assert float(leaks["auc_worst"]) > 0.65
        assert (leaks["code"], state(pool)) == ("privacy.audit-failed", "refused")
        assert audited(pool, models=True).findings == []


# --- step receipts ---


@pytest.mark.parametrize("what", ["engine", "steps", "head", "none"])
def test_an_update_whose_step_receipt_does_not_fit_is_refused(what: str):
    heads: list[str] = []

    def lie(said: Said) -> Said:
        def envelope(payload: dict[str, Any]) -> dict[str, Any]:
            if payload["kind"] != "submission.received":
                return payload
            receipt = payload["body"]["receipt"]
            heads.append(receipt["ledger_head"])
            match what:
                case "engine":
                    receipt["engine"] = "fast-and-loose"
                case "steps":
                    receipt["steps_total"] += 1
                case "head":
                    receipt["ledger_head"] = heads[0]
                case "none":
                    del payload["body"]["receipt"]
            return payload

        return said.envelopes(envelope) if said.contributes else said

    with running() as (pool, go):
        pool.nodes["nord"].lies.append(lie)
        run_id = go(pool.run())
        refused = [one for one in pool.refusals(run_id) if one[0] == "nord"]
        assert refused
        assert {reason for _, _, reason in refused} == {"privacy.audit-failed"}
        assert state(pool) == "released"
        pool.check_audit()


def test_an_engine_that_nobody_knows_is_named_in_the_refusal():
    with running() as (pool, go):
        pool.nodes["nord"].learner.engine = "homemade"
        run_id = go(pool.run())
        assert {reason for name, _, reason in pool.refusals(run_id) if name == "nord"} == {
            "privacy.audit-failed"
        }
        assert MadeWith(engine="loop").sampler == "poisson-units"


# --- a broker that lies about it ---


def forged(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """The broker writes another leak report than the one that follows."""
    honest = broker_leaks.leak_report

    def report(**named: Any) -> dict[str, Any]:
        found = json.loads(json.dumps(honest(**named)))
        change(found)
        return found

    monkeypatch.setattr(broker_leaks, "leak_report", report)


def test_an_auditor_finds_figures_that_do_not_follow_from_the_scores(monkeypatch: pytest.MonkeyPatch):
    def kinder(leaks: dict[str, Any]) -> None:
        leaks["auc"]["low"] = leaks["auc_worst"] = "0.500000"
        leaks["passed"] = dict.fromkeys(leaks["passed"], True)
        leaks["code"] = None

    forged(monkeypatch, kinder)
    with running(**plain()) as (pool, go):
        ready(pool)
        learned_by_heart(pool)
        go(pool.run())
        assert state(pool) == "released"
        report = audited(pool)
        assert set(report.counts) == {"AUD-078"}
        assert "auc" in report.findings[0].evidence


def test_an_auditor_with_the_model_finds_scores_that_are_not_its_own(monkeypatch: pytest.MonkeyPatch):
    def flat(leaks: dict[str, Any]) -> None:
        first = next(iter(leaks["parties"].values()))
        first["scores"][0] = f"{float(first['scores'][0]) + 0.25:.6f}"
        made = __import__("policies.leak_report", fromlist=["leak_figures"])
        rows = [one for _, one in sorted(leaks["parties"].items())]
        scores, flips = [s for one in rows for s in one["scores"]], "".join(one["flips"] for one in rows)
        for name, own in made.party_figures(leaks["parties"]).items():
            leaks["parties"][name] |= own
        leaks |= made.figure_fields(made.leak_figures(scores, flips, delta=1e-5))
        leaks |= verdicts(leaks, auc_max="0.65")

    forged(monkeypatch, flat)
    with running(**ASKED) as (pool, go):
        ready(pool)
        go(pool.run())
        assert audited(pool).findings == []
        report = audited(pool, models=True)
        assert set(report.counts) == {"AUD-078"}
        assert "parties" in report.findings[0].evidence


def test_an_auditor_finds_a_release_without_a_reveal(monkeypatch: pytest.MonkeyPatch):
    def whole(leaks: dict[str, Any]) -> None:
        leaks |= {"missing": [], "passed": dict.fromkeys(leaks["passed"], True), "code": None}

    forged(monkeypatch, whole)
    monkeypatch.setattr("broker.release.judging.owing", lambda *_a, **_n: ())
    with running(**ASKED) as (pool, go):
        ready(pool)
        pool.nodes["hanbit"].lies.append(unanswered)
        go(pool.run())
        assert state(pool) == "released"
        assert set(audited(pool).counts) == {"AUD-076", "AUD-077", "AUD-078"}
