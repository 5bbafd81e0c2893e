# SPDX-License-Identifier: Apache-2.0
"""Probe rounds: the sums of teams that nobody chose are opened apart, and what spoils the model is left out."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.federation import probing
from broker.federation.secure.rounds import SecureRounds
from broker.federation.secure.teams import Sums
from broker.federation.secure.vectors import export
from policies.exchange import ExchangeType
from policies.log.entries import EntryType
from policies.robustness.votes import nano
from policies.secagg.attempts import Attempt
from policies.secagg.contexts import Teams
from policies.secagg.record import Record
from tests.federationsim import NAMES, SECURE, Killed, Pool, running

NINE = tuple(sorted((*NAMES, "ada", "bix", "cor", "dan", "eva")))
BAD = ("cor", "kita")
CLIP = 0.05
VALIDATION = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 2,
    "judge_episodes": 1000,
    "gain_clip": str(CLIP),
    "max_judgings": 8,
    "epsilon": "0.5",
}
STEP = 0.2  # norm of an honest update; every second unit of way along it is worth one of loss
BOUND = 10.0  # the contract's
NEAR = 0.15  # of the way that the released model, an average over rounds, comes along in a clean run: 0.174


def way(size: int) -> np.ndarray:
    """Where the data of every honest silo would have the model go."""
    found = np.random.default_rng(7).standard_normal(size)
    return found / np.linalg.norm(found)


def flat(size: int) -> np.ndarray:
    """Much the same way, no coordinate of which is beyond the bound."""
    return np.sign(way(size)) / size**0.5


def gain(model: np.ndarray, against: np.ndarray) -> int:
    step = float((model.astype(np.float64) - against.astype(np.float64)) @ way(len(model)))
    return nano(min(max(step / 2, -CLIP), CLIP))


def honest(update: np.ndarray) -> np.ndarray:
    return (STEP * way(len(update)) + update * 0.01).astype(np.float32)


def against_it(update: np.ndarray) -> np.ndarray:
    """Five times its update, the other way: within the bound, as a node clips it."""
    return (-5 * honest(update)).astype(np.float32)


def unclipped(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """A node that does not clip: values on the ring's own grid are not cut, so its norm is 50."""
    return lambda update: np.rint(-5 * BOUND * flat(len(update)) * scale).astype(np.int64)


def options(rounds: int = 2, share: str = "1.00", **more: Any) -> dict[str, Any]:
    return {
        "private": False,
        "names": NINE,
        "validation": VALIDATION,
        "recipe": {"rounds": rounds},
        "incentives.probe_share": share,
        "aggregation.group_mac": "on",
        **SECURE,
        **more,
    }


@contextmanager
def pool_of(
    rounds: int = 2, *, bad: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None, **more: Any
) -> Iterator[tuple[Pool, Callable[..., Any]]]:
    """Nine silos whose data agrees, and some whose updates do not."""
    with running(**options(rounds, **more)) as (pool, go):
        for name, node in pool.nodes.items():
            node.learner.spoil = (bad or {}).get(name, honest)
            node.learner.weigh = gain
        yield pool, go


def chosen(pool: Pool, run: str) -> list[dict[str, Any]]:
    return [one.pub for one in pool.entries(EntryType.ROUND_CHOSEN, run)]


def record(pool: Pool, one: Mapping[str, Any]) -> Record:
    name = one["transcript"].removeprefix("sha256:")
    return Record.from_bytes((pool.folder / "broker" / "transcripts" / name).read_bytes())


def members(pool: Pool, one: Mapping[str, Any], numbers: list[int]) -> set[str]:
    """Members of teams of a probe."""
    return {name for number in numbers for name in record(pool, one).teams[number]}


def vectors(pool: Pool, run: str, out: Path) -> dict[str, bytes]:
    names = export(pool.folder / "broker", run, out, pool.clock.now_ms())
    return {f"sha256:{name}": (out / name).read_bytes() for name in names}


def went(pool: Pool, run: str) -> float:
    """How far the model of a run came along the way."""
    name = pool.row(run).model_digest.removeprefix("sha256:")
    model = (pool.services.settings.models / f"{name}.f32").read_bytes()
    step = np.frombuffer(model, "<f4").astype(np.float64) - pool.first
    return float(step @ way(len(step)))


async def stopped(pool: Pool, *, after: int) -> str:
    """A run that an operator ends after so many attempts."""
    run = await pool.open_run()
    while len(pool.rounds(run)) < after:  # noqa: ASYNC110  in virtual time
        await asyncio.sleep(1)
    await pool.house.alice.post(f"/operator/runs/{run}/stop", {})  # if it is not over already
    await pool.idle()
    return run


def errors(pool: Pool, given: Mapping[str, bytes] | None = None) -> set[str]:
    return {one.id for one in pool.audit(given).findings if one.severity == "error"}


def test_a_clean_run_takes_every_team_in_and_refuses_nobody(tmp_path: Path) -> None:
    with pool_of() as (pool, go):
        run = go(pool.run())
        found = chosen(pool, run)
        assert [one["chosen"] for one in found] == [[0, 1, 2]] * 2
        assert [(one["failed"], one["judges"], one["rejected_rounds"]) for one in found] == [([], 9, 0)] * 2
        assert pool.verdicts(run) == [dict.fromkeys(NINE, "accepted")] * 2
        assert not pool.entries(EntryType.ROUND_JUDGED, run)  # a probe is the judging of its round
        teams = [record(pool, one).teams for one in found]
        assert teams[0] != teams[1]
        assert [sorted(map(len, one)) for one in teams] == [[3, 3, 3]] * 2
        assert went(pool, run) > NEAR
        given = vectors(pool, run, tmp_path / "vectors")
        assert pool.audit(given).facts["sums"] == {"opened": 2, "redone": 2}
        assert errors(pool, given) == set()
        pool.check_audit()


def test_two_of_nine_that_send_five_times_their_update_the_other_way_are_left_out_with_their_teams() -> None:
    with pool_of(bad=dict.fromkeys(BAD, against_it)) as (pool, go):
        run = go(pool.run())
        for one in chosen(pool, run):
            assert not members(pool, one, one["chosen"]) & set(BAD)
            assert one["chosen"]
        for verdicts in pool.verdicts(run):
            assert {verdicts[name] for name in BAD} == {"refused"}
        reasons = {reason for _, _, reason in pool.refusals(run)}
        assert reasons == {"team-left-out"}
        assert went(pool, run) > NEAR
        pool.check_audit()


def test_a_team_beyond_the_bound_is_left_out_before_anybody_judges_it(tmp_path: Path) -> None:
    with pool_of() as (pool, go):
        run = go(pool.open_run())
        pool.nodes["kita"].learner.spoil = unclipped(pool.terms(run).scale)
        go(pool.idle())
        one = chosen(pool, run)[0]
        assert len(one["failed"]) == 1
        assert "kita" in members(pool, one, one["failed"])
        assert sorted(one["chosen"] + one["failed"]) == [0, 1, 2]
        judged = pool.entries(EntryType.ROUND_SCORED, run)
        assert {len(each.pub["sums"]) for each in judged} == {2}
        assert went(pool, run) > NEAR
        assert errors(pool, vectors(pool, run, tmp_path / "vectors")) == set()


def test_if_judges_want_no_team_the_run_goes_back_to_the_accepted_model_and_is_paused_in_the_end() -> None:
    with pool_of() as (pool, go):
        for node in pool.nodes.values():
            node.learner.weigh = lambda model, against: min(0, gain(model, against)) - nano(CLIP)

        async def paused() -> str:
            run_id = await pool.open_run()
            await asyncio.sleep(3600)
            return run_id

        run = go(paused())
        assert [(one["chosen"], one["rejected_rounds"]) for one in chosen(pool, run)] == [([], 1), ([], 2)]
        bases = [one.pub["base_model"] for one in pool.entries(EntryType.ROUND_OPENED, run)]
        assert len(set(bases)) == 1
        assert pool.row(run).model_digest is None
        shown = go(pool.house.alice.get(f"/operator/runs/{run}")).json()
        assert (shown["state"], shown["rejected"]["rounds"]) == ("suspended", 2)
        pool.check_audit()


def test_the_team_of_a_silo_that_is_away_stays_closed_and_the_others_are_opened() -> None:
    with pool_of() as (pool, go):
        pool.nodes["kita"].deaf = lambda kind, _slot: kind == ExchangeType.SA_CONTRIBUTE
        run = go(pool.run())
        one = chosen(pool, run)[0]
        assert len(one["opened"]) == 2
        assert one["chosen"] == one["opened"]
        assert "kita" not in members(pool, one, one["opened"])
        assert sorted(pool.verdicts(run)[0].values()) == ["accepted"] * 6 + ["refused"] * 2 + ["silent"]
        assert {reason for _, _, reason in pool.refusals(run)} == {"attempt-abandoned"}
        pool.check_audit()


def test_too_few_judges_are_no_consent() -> None:
    with pool_of() as (pool, go):
        for name in NINE[2:]:
            pool.nodes[name].mute = lambda kind, _slot: kind == ExchangeType.SA_JUDGE
        run = go(stopped(pool, after=1))
        one = chosen(pool, run)[0]
        assert (one["judges"], one["chosen"], one["rejected_rounds"]) == (2, [], 1)


@functools.cache
def undisturbed() -> tuple[str, tuple[str, ...]]:
    with pool_of() as (pool, go):
        run = go(pool.run())
        return pool.row(run).model_digest, tuple(pool.steps.names)


@pytest.mark.parametrize(
    ("step", "later"),
    [
        ("after ada query.sa_unmask", 0),
        ("before cor evaluate.sa_judge", 0),
        ("after nord evaluate.sa_judge", 3),
    ],
)
def test_a_broker_that_is_killed_in_a_probe_chooses_the_same_when_it_is_started_again(
    step: str, later: int
) -> None:
    model, names = undisturbed()
    at = names.index(step) + later

    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        while True:
            try:
                await pool.idle()
            except Killed:
                await pool.kill()
                await pool.open()
            else:
                return run

    with pool_of() as (pool, go):
        pool.steps.at = at
        run = go(story(pool))
        assert pool.row(run).model_digest == model
        assert len(chosen(pool, run)) == 2
        assert len(pool.entries(EntryType.ROUND_SCORED, run)) == 18
        pool.check_audit()


# --- a broker that lies ---


def test_teams_that_the_broker_chose_are_refused_by_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    true = SecureRounds.teams

    def other(self: SecureRounds, setup: Any, number: int) -> Teams | None:
        teams = true(self, setup, number)
        assert teams is not None
        first, second, *rest = teams
        swapped = (tuple(sorted((second[0], *first[1:]))), tuple(sorted((first[0], *second[1:]))))
        return tuple(sorted((*swapped, *rest)))  # in its form, so that only what the nonces give is wrong

    monkeypatch.setattr(SecureRounds, "teams", other)
    with pool_of() as (pool, go):
        run = go(stopped(pool, after=1))
        assert not pool.entries(EntryType.AGGREGATE_RELEASED, run)
        reasons = json.loads(pool.rounds(run)[0].reasons)
        assert set(reasons.values()) == {"secagg.partition-bad"}
        assert not any(node.spends(run) for node in pool.nodes.values())


def test_a_team_with_too_few_is_not_opened_by_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attempt, "_large_enough", lambda self, _online: tuple(range(len(self.context.teams))))
    with pool_of() as (pool, go):
        pool.nodes["kita"].mute = lambda kind, _slot: kind == ExchangeType.SA_CONTRIBUTE
        run = go(stopped(pool, after=1))
        assert pool.rounds(run)[0].model is None
        declined = {(str(one["type"]), one["code"]) for one in pool.journal.of("secagg.declined")}
        assert declined == {("query.sa_confirm", "secagg.cohort-too-small")}


def test_another_choice_than_the_judges_made_is_found_by_the_auditor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "choice", lambda *_of, **_more: frozenset({0}))
    with pool_of() as (pool, go):
        run = go(stopped(pool, after=1))
        assert chosen(pool, run)[0]["chosen"] == [0]
        assert errors(pool) == {"AUD-094"}


def test_a_judgement_that_is_left_out_is_found_by_the_auditor(monkeypatch: pytest.MonkeyPatch) -> None:
    true = probing.Probing._answers
    monkeypatch.setattr(probing.Probing, "_answers", lambda *of: dict(list(true(*of).items())[1:]))
    with pool_of() as (pool, go):
        go(stopped(pool, after=1))
        assert errors(pool) == {"AUD-094"}


def test_a_team_that_is_called_beyond_the_bound_and_is_not_is_found_with_the_vectors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Sums, "failed", lambda _self: (1,))
    with pool_of() as (pool, go):
        run = go(stopped(pool, after=1))
        assert chosen(pool, run)[0]["failed"] == [1]
        assert errors(pool) == set()
        assert errors(pool, vectors(pool, run, tmp_path / "vectors")) == {"AUD-096"}


def test_another_model_than_one_of_the_judged_unions_is_refused_by_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = Sums.joined

    def joined(self: Sums, numbers: Any) -> Any:
        from dataclasses import replace

        found = true(self, numbers)
        return replace(found, mean=found.mean * 2)

    monkeypatch.setattr(Sums, "joined", joined)
    with pool_of() as (pool, go):
        run = go(stopped(pool, after=2))
        reasons = [json.loads(one.reasons) for one in pool.rounds(run)]
        assert reasons[0] == {}
        assert set(reasons[1].values()) == {"secagg.context-mismatch"}


def test_who_spoils_every_team_is_named_to_the_operator_after_enough_probes() -> None:
    with pool_of(6) as (pool, go):
        run = go(pool.open_run())
        pool.nodes["kita"].learner.spoil = unclipped(pool.terms(run).scale)
        go(pool.idle())
        assert len(chosen(pool, run)) == 6
        told = pool.journal.of("probe.suspects")
        assert "kita" in told[-1]["parties"]
        shown = go(pool.house.alice.get(f"/operator/runs/{run}")).json()
        assert "kita" in shown["suspects"]
        assert pool.verdicts(run)[-1]["kita"] == "refused"  # and is asked in every round all the same
