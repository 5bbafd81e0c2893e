# SPDX-License-Identifier: Apache-2.0
"""Guards and the states of a service: what each catches, what is answered instead, and who may go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.deploy.guards import Flag, Guards
from client.deploy.ports import Channel
from client.deploy.refusals import FallbackUnfitError, NotServingError, RequestError
from client.deploy.serving import NoRecorder
from client.deploy.states import Phase, Question, Standing
from tests.servesim import START_NS, SaidModel, TimedServing, facts, question, tick_ns


def served(model: SaidModel | None = None, *, clock: str = "host") -> TimedServing:
    return TimedServing(model or SaidModel(), clock_kind=clock, recorder=NoRecorder())  # type: ignore[arg-type]


def asked(serving: TimedServing, tick: int = 0, **values: object):
    return serving.infer(question(tick, **values), now_ns=tick_ns(tick))  # type: ignore[arg-type]


def chunk(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def test_a_good_question_is_answered_by_the_model():
    serving = served()
    answer = asked(serving)
    assert answer.standing.phase is Phase.ACTIVE
    assert answer.flags == ()
    assert answer.rows == pytest.approx(np.full((1, 4), 0.01))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_ends_in_the_fallback_and_never_reaches_the_model(bad):
    model = SaidModel()
    answer = asked(served(model), values=[bad] + [0.1] * 9)
    assert answer.flags == (Flag.INPUT,)
    assert answer.standing.phase is Phase.FALLBACK
    assert not model.asked


def test_a_value_beyond_its_limit_ends_in_the_fallback():
    assert asked(served(), values=[2.001] + [0.1] * 9).flags == (Flag.RANGE,)


def test_a_number_that_repeats_ends_in_the_fallback():
    serving = served()
    asked(serving, 3)
    assert serving.infer(replace(question(4), seq=3), now_ns=tick_ns(4)).flags == (Flag.SEQUENCE,)


def test_a_stamp_that_stands_still_ends_in_the_fallback():
    serving = served()
    asked(serving, 3)
    again = serving.infer(question(4, at_ns=question(3).stamp_ns), now_ns=tick_ns(4))
    assert again.flags == (Flag.SEQUENCE,)


@pytest.mark.parametrize("off_ms", [-201, 201])
def test_a_stamp_older_than_the_watchdog_or_as_far_ahead_ends_in_the_fallback(off_ms):
    at_ns = tick_ns(0) + off_ms * 1_000_000
    answer = served().infer(question(0, at_ns=at_ns), now_ns=tick_ns(0))
    assert answer.flags == (Flag.AGE,)


def test_a_clock_of_the_controller_is_compared_with_its_own_start():
    serving = served(clock="controller")
    up_ns = 7_000_000_000  # since the controller was switched on
    assert serving.infer(question(0, at_ns=up_ns), now_ns=START_NS).flags == ()
    late = serving.infer(question(1, at_ns=up_ns + 12_500_000), now_ns=START_NS + 150_000_000)
    assert late.flags == ()  # 137 ms behind
    later = serving.infer(question(2, at_ns=up_ns + 25_000_000), now_ns=START_NS + 300_000_000)
    assert later.flags == (Flag.AGE,)


def test_a_simulated_clock_has_no_age_but_silence_is_still_found():
    serving = served(clock="simulation")
    assert serving.infer(question(0, at_ns=5), now_ns=START_NS).flags == ()
    assert serving.standing(now_ns=START_NS + 201_000_000).cause == (Flag.WATCHDOG,)


def test_ten_seconds_of_silence_end_in_the_fallback():
    serving = served()
    asked(serving)
    now_ns = tick_ns(0) + 10_000_000_000
    answer = serving.infer(question(800), now_ns=now_ns)
    assert answer.standing.cause == (Flag.WATCHDOG,)
    assert answer.rows == pytest.approx(np.array([[0, 0, 0, 0.01]]))
    assert serving.status(now_ns=now_ns)["counts"]["flags"] == {"watchdog": 1}


def test_a_robot_that_stands_between_episodes_is_silent_by_right():
    serving = served()
    asked(serving)
    serving.end_episode("unknown")
    assert serving.standing(now_ns=tick_ns(0) + 10**12).phase is Phase.READY


def test_more_clipped_inputs_than_the_package_allows_end_in_the_fallback():
    assert asked(served(SaidModel(clipped=0.2))).flags == ()
    assert asked(served(SaidModel(clipped=0.21))).flags == (Flag.OOD,)
    assert asked(served(SaidModel(clipped=float("nan")))).flags == (Flag.OOD,)


@pytest.mark.parametrize(
    "said",
    [
        chunk(np.nan, 0, 0, 0),
        chunk(0, 0, 0, np.inf),
        chunk(0, 0, 0),
        np.zeros((0, 4), np.float32),
        np.zeros(4, np.float32),
        np.array([["x"] * 4]),
        None,
    ],
)
def test_an_answer_that_is_no_action_ends_in_the_fallback(said):
    answer = asked(served(SaidModel(say=lambda _observation: said)))
    assert answer.flags == (Flag.OUTPUT,)
    assert answer.rows is None  # nothing was sent yet that the gripper could hold


def test_a_model_that_raises_ends_in_the_fallback():
    def broken(_observation: np.ndarray) -> np.ndarray:
        raise RuntimeError

    assert asked(served(SaidModel(say=broken))).flags == (Flag.MODEL,)


def test_an_action_beyond_its_limit_is_clamped_and_flagged_and_goes_on():
    answer = asked(served(SaidModel(say=lambda _observation: chunk(0.5, 0, 0, 0))))
    assert answer.flags == (Flag.CLAMPED,)
    assert answer.rows == pytest.approx(np.array([[0.012, 0, 0, 0]]))
    assert answer.standing.phase is Phase.ACTIVE


def jumping(limit: float) -> SaidModel:
    told = facts()
    model = SaidModel(
        facts=replace(told, safety=replace(told.safety, max_delta_per_tick=(limit, limit, limit, 2.0)))
    )
    model.say = lambda _observation: chunk(*([0.01, -0.01][len(model.asked) % 2],) * 3, 1)
    return model


def test_an_action_that_jumps_from_the_last_one_ends_in_the_fallback():
    serving = served(jumping(0.01))
    assert asked(serving, 0).flags == ()
    answer = asked(serving, 1)
    assert answer.flags == (Flag.DELTA,)
    assert answer.rows == pytest.approx(np.array([[0, 0, 0, 1]]))  # stands, and keeps the part in its grip
    wider = served(jumping(0.021))
    assert [asked(wider, tick).flags for tick in range(3)] == [()] * 3


def test_a_jump_is_measured_from_the_row_that_was_executed_last():
    rows = np.array([[0, 0, 0, 0], [0.01, 0, 0, 0], [0.02, 0, 0, 0]])
    standing = Standing(phase=Phase.ACTIVE, seq=10, rows=rows)
    assert standing.last_action(11) == pytest.approx(rows[0])
    assert standing.last_action(12) == pytest.approx(rows[1])
    assert standing.last_action(99) == pytest.approx(rows[2])


def test_a_fallback_stays_until_its_owner_resumes():
    model = SaidModel()
    serving = served(model)
    asked(serving, 0)
    asked(serving, 1, values=[9.0] * 10)
    for tick in (2, 3):
        answer = asked(serving, tick)
        assert answer.standing.phase is Phase.FALLBACK
        assert answer.flags == ()
        assert answer.rows == pytest.approx(np.array([[0, 0, 0, 0.01]]))
    serving.end_episode("fail")
    assert serving.standing(now_ns=tick_ns(3)).phase is Phase.FALLBACK
    assert len(model.asked) == 1
    assert serving.resume(now_ns=tick_ns(4)).phase is Phase.READY
    assert asked(serving, 5).standing.phase is Phase.ACTIVE


def test_stop_answers_no_action():
    serving = served(SaidModel(facts=facts(fallback="stop")))
    asked(serving, 0)
    assert asked(serving, 1, values=[9.0] * 10).rows is None


def test_a_fallback_that_the_outputs_cannot_say_is_refused_at_the_start():
    torque = replace(facts().outputs[0], name="joint_torque", field="joint_torque")
    position = replace(torque, name="joint_pos", field="joint_pos")
    forward = replace(facts().outputs[0], low=(0.001,) * 3)
    for fallback, output in (("hold", torque), ("zero-velocity", position), ("hold", forward)):
        with pytest.raises(FallbackUnfitError):
            Guards(facts(fallback=fallback, outputs=(output, facts().outputs[1])))
    Guards(facts(fallback="hold", outputs=(position, facts().outputs[1])))
    Guards(facts(fallback="stop", outputs=(torque, facts().outputs[1])))


def test_a_question_of_another_size_is_refused_and_changes_nothing():
    serving = served()
    with pytest.raises(RequestError):
        asked(serving, 0, values=[0.1] * 9)
    with pytest.raises(RequestError):
        serving.infer(replace(question(0), measured=np.zeros(3)), now_ns=tick_ns(0))
    assert serving.standing(now_ns=tick_ns(0)).phase is Phase.READY


def test_a_stopped_service_answers_nothing():
    serving = served()
    serving.stop()
    for act in (
        lambda: asked(serving),
        lambda: serving.end_episode("fail"),
        lambda: serving.resume(now_ns=0),
    ):
        with pytest.raises(NotServingError):
            act()


def test_an_answer_that_took_longer_than_the_watchdog_never_leaves():
    model = SaidModel()
    serving = served(model)

    def slow(_observation: np.ndarray) -> np.ndarray:
        serving.time.ns += 1_500_000_000
        return chunk(0.01, 0.01, 0.01, 0.01)

    model.say = slow
    answer = asked(serving)
    assert (answer.flags, answer.rows) == ((Flag.AGE,), None)
    for clock in ("controller", "simulation"):
        model = SaidModel()
        serving = served(model, clock=clock)
        model.say = slow
        assert asked(serving).standing.phase is Phase.FALLBACK


def test_a_wall_clock_that_is_set_back_hides_no_silence():
    serving = served()
    asked(serving)
    serving.time.set_back_ns = 3_600 * 10**9
    assert serving.standing(now_ns=tick_ns(0) + 201_000_000).cause == (Flag.WATCHDOG,)


def test_the_end_of_an_episode_does_not_hide_the_silence_before_it():
    serving = served()
    asked(serving)
    serving.time.ns += 600 * 10**9
    serving.end_episode("unknown")
    assert serving.standing().cause == (Flag.WATCHDOG,)
    within = served()
    asked(within)
    within.time.ns += 100_000_000
    within.end_episode("unknown")
    assert within.standing().phase is Phase.READY


def test_the_bound_of_the_change_goes_on_over_the_end_of_an_episode():
    model = jumping(0.001)
    model.say = lambda _observation: chunk(*([0.001, -0.001][len(model.asked) % 2] * 12,) * 3, 1)
    serving = served(model)
    seen = []
    for tick in range(4):
        seen.append(asked(serving, tick).standing.phase)
        serving.end_episode("unknown")
    assert seen == [Phase.FALLBACK] * 4  # nor does the first one begin at full speed
    calm = jumping(0.013)
    calm.say = lambda _observation: chunk(*([0.012, -0.012][len(calm.asked) % 2],) * 3, 1)
    serving = served(calm)
    for tick in range(4):  # a robot that stood may begin either way
        assert asked(serving, tick).flags == ()
        serving.end_episode("unknown")


def positions(*, seen: bool, rows: int = 1) -> SaidModel:
    told = facts()
    joints = Channel(name="joint_pos", field="joint_pos", unit="rad", low=(-3.0,) * 2, high=(3.0,) * 2)
    shown = replace(joints, low=(-3.0,) * 10, high=(3.0,) * 10)
    inputs = (joints, replace(shown, name="x", field="tcp_pos", low=(-3.0,) * 8, high=(3.0,) * 8))
    made = replace(
        told,
        inputs=inputs if seen else (replace(shown, field="tcp_pos"),),
        outputs=(joints,),
        horizon=rows,
        execute=rows,
        safety=replace(told.safety, max_delta_per_tick=(0.1, 0.1)),
    )
    return SaidModel(facts=made)


def test_the_first_position_is_near_what_was_measured_or_observed_or_is_refused():
    model = positions(seen=False)
    model.say = lambda _observation: chunk(0.15, 0.15)
    first = replace(question(0), measured=np.array([0.1, 0.2]))
    assert served(model).infer(first, now_ns=tick_ns(0)).flags == ()
    far = replace(first, measured=np.array([-3.0, -3.0]))
    assert served(model).infer(far, now_ns=tick_ns(0)).flags == (Flag.DELTA,)
    assert asked(served(model)).flags == (Flag.DELTA,)  # nobody says where the robot is
    seen = positions(seen=True)
    seen.say = model.say
    assert asked(served(seen)).flags == ()  # observed at 0.1
    seen.say = lambda _observation: chunk(3, 3)
    assert asked(served(seen)).flags == (Flag.DELTA,)


def test_a_door_that_hands_out_one_row_has_sent_no_other():
    model = positions(seen=True, rows=8)
    model.say = lambda _observation: np.array([[0.1 + 0.1 * i] * 2 for i in range(8)], np.float32)
    serving = served(model)
    assert len(serving.infer(question(0), rows=1, now_ns=tick_ns(0)).rows) == 1
    model.say = lambda _observation: np.array([[0.9] * 2] * 8, np.float32)
    answer = serving.infer(question(8), rows=1, now_ns=tick_ns(8))
    assert answer.flags == (Flag.DELTA,)
    assert answer.rows == pytest.approx(np.array([[0.1, 0.1]]))  # what was sent is held


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
chunks = st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), min_size=1, max_size=2)
ticks = st.tuples(
    st.lists(numbers, min_size=10, max_size=10),
    st.integers(0, 5),
    st.integers(0, 2**63 - 1),
    chunks,
    numbers,
    st.sampled_from(["ask", "end", "resume"]),
)


@given(
    st.lists(ticks, max_size=8),
    st.sampled_from(["hold", "zero-velocity", "stop"]),
    st.sampled_from(["host", "controller", "simulation"]),
)
def test_whatever_comes_what_goes_out_is_finite_and_within_limits(course, fallback, clock):
    model = SaidModel(facts=facts(fallback=fallback))
    serving = served(model, clock=clock)
    low, high = np.array([-0.012] * 3 + [-1]), np.array([0.012] * 3 + [1])
    now_ns = START_NS
    for values, seq, stamp_ns, said, clipped, act in course:
        now_ns += 10_000_000
        model.say, model.clipped = lambda _observation, said=said: np.array(said, np.float32), clipped
        one = Question(observation=np.array(values), stamp_ns=stamp_ns, seq=seq)
        answer = serving.infer(one, now_ns=now_ns)
        if answer.rows is not None:
            assert np.isfinite(answer.rows).all()
            assert ((answer.rows >= low) & (answer.rows <= high)).all()
        assert (answer.standing.phase is Phase.FALLBACK) == bool(answer.standing.cause)
        if act == "end":
            serving.end_episode("unknown")
        elif act == "resume":
            serving.resume(now_ns=now_ns)
    assert serving.status(now_ns=now_ns)["counts"]["questions"] == len(course)
