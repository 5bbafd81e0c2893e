# SPDX-License-Identifier: Apache-2.0
"""The report of a data set: findings about the set are for a person, nothing depends on the order of files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.errors import DataError, PersonalDataError, SealedError, StoreDamagedError
from client.data.quality import accept, answers_of, check_dataset, check_personal
from client.data.quality.sets import check_duplicates, check_lengths
from client.data.store import Store
from policies.quality_certificate import CHECKS
from tests.datasim import KEY, RIGHTS, Recording, SimClock, write_v3
from tests.learnsim import small_recipe
from tests.qualitysim import MAP, arm, changed, imported, planted

NAME = "kita/pick"
SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
COBOTOPS = """
table   = {delimiter = ";", decimal = ",", strip_names = true, drop_empty_columns = true}
clock   = {column = "Timestamp", unit = "rfc3339", kind = "host"}
segment = {by = "column", column = "cycle", max_gap_s = 5.0, min_frames = 10}
signal  = [{field = "joint_current", columns = ["Current_J{0..5}"], unit = "A", role = "observation"},
           {field = "joint_temp", columns = ["Temperature_T0", "Temperature_J{1..5}"], unit = "degC", role = "observation"},
           {field = "joint_vel", columns = ["Speed_J{0..5}"], unit = "rad/s", role = "observation"},
           {field = "tool_current", columns = ["Tool_current"], unit = "A", role = "observation"}]
label   = [{field = "grip_lost", column = "grip_lost", values = {"True" = true, "False" = false}}]
"""


def twin(seed: int, shift: float = 1e-4):
    frames = arm(seed)
    return changed(frames, "observation.joint_pos", frames.columns["observation.joint_pos"] + shift)


def test_a_clean_data_set_is_admitted(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i) for i in range(9)])
    report = check_dataset(root, NAME)
    assert (report.verdict, report.reasons, report.excluded_word) == ("admitted", (), "none")
    assert set(report.states) == set(CHECKS)
    assert set(report.states.values()) == {"PASS", "NOT_APPLICABLE"}  # 4: no torque; 6: no bound
    assert json.loads(report.to_bytes())["verdict"] == "admitted"


def test_bad_episodes_are_excluded_named_and_leave_the_others_as_they_were(tmp_path: Path) -> None:
    good = [arm(i) for i in range(9)]
    root, _ = imported(tmp_path, good)
    before = check_dataset(root, NAME)
    (tmp_path / "b").mkdir()
    root, _ = imported(tmp_path / "b", [*good, planted("jumps", arm(20))])
    after = check_dataset(root, NAME)
    assert after.verdict == "admitted"
    assert list(after.excluded.values()) == ["jumps"]
    assert after.counts["jumps"] == {"FAIL": 1, "PASS": 9}
    assert {**after.states} == {**before.states}
    (found,) = after.findings
    assert found.episodes == tuple(after.excluded)
    assert found.episodes[0] not in {one.meta.episode_id for one in Store(tmp_path / "store").episodes(NAME)}


def test_one_more_episode_changes_the_verdict_of_no_other(tmp_path: Path) -> None:
    episodes = [*(arm(i) for i in range(6)), planted("lag", arm(11)), planted("idle", arm(12))]
    root, _ = imported(tmp_path, episodes)
    before, report = verdicts(root), check_dataset(root, NAME)
    (tmp_path / "more").mkdir()
    for number, extra in enumerate((planted("time", arm(60)), twin(2), arm(61, frames=900))):
        imported(tmp_path / "more", [extra], root=root, name=f"x{number}", first=100 + number)
    after, later = verdicts(root), check_dataset(root, NAME)
    assert len(after) == len(before) + 3
    assert {key: after[key] for key in before} == before
    of_episodes = [one for one in report.findings if one.check not in ("duplicates", "lengths")]
    assert [one for one in later.findings if set(one.episodes) <= set(before)] == of_episodes


def verdicts(root: Path) -> dict[str, str]:
    return {one.meta.episode_id: one.meta.excluded for one in Store(root).episodes(NAME)}


def test_near_and_unusual_episodes_wait_for_a_person_who_answers_by_name(tmp_path: Path) -> None:
    episodes = [*(arm(i) for i in range(9)), twin(1), arm(30, frames=1200)]
    root, _ = imported(tmp_path, episodes)
    report = check_dataset(root, NAME)
    assert report.reasons == ("duplicates-open", "lengths-open")
    assert report.excluded == {}
    near, unusual = report.findings
    assert (near.check, len(near.episodes), unusual.check, len(unusual.episodes)) == (
        "duplicates",
        2,
        "lengths",
        1,
    )
    clock = SimClock()
    answer = accept(root, NAME, report.findings, 10, by="A. Sato", clock=clock, sealed=False)
    assert (answer.by, answer.at, answer.check) == ("A. Sato", "2026-11-18T11:06:40Z", "lengths")
    assert check_dataset(root, NAME).reasons == ("duplicates-open",)
    accept(root, NAME, report.findings, "duplicates", by="A. Sato", clock=clock, sealed=False)
    done = check_dataset(root, NAME)
    assert done.verdict == "admitted"
    assert done.states["lengths"] == "FAIL"  # an answer admits; it makes no measurement better
    assert len(answers_of(root, NAME)) == 2


def test_an_answer_is_about_these_episodes_and_not_about_the_next_ones(tmp_path: Path) -> None:
    episodes = [*(arm(i) for i in range(9)), arm(30, frames=1200)]
    root, _ = imported(tmp_path, episodes)
    accept(root, NAME, check_dataset(root, NAME).findings, 10, by="A. Sato", clock=SimClock(), sealed=False)
    imported(tmp_path, [*episodes, arm(31, frames=1250)], root=root, dataset="kita/more")
    later = check_dataset(root, "kita/more")
    assert later.reasons == ("lengths-open",)


@pytest.mark.parametrize(
    ("check", "by"), [(1, "A. Sato"), (9, "A. Sato"), (10, " "), ("time", "A. Sato"), (99, "A. Sato")]
)
def test_what_is_no_open_question_for_a_person_cannot_be_accepted(
    tmp_path: Path, check: int | str, by: str
) -> None:
    root, _ = imported(tmp_path, [*(arm(i) for i in range(9)), arm(30, frames=1200)])
    with pytest.raises(DataError):
        accept(root, NAME, check_dataset(root, NAME).findings, check, by=by, clock=SimClock(), sealed=False)


def test_after_the_first_budget_nobody_accepts_anything_any_more(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [*(arm(i) for i in range(9)), arm(30, frames=1200)])
    findings = check_dataset(root, NAME).findings
    with pytest.raises(SealedError):
        accept(root, NAME, findings, 10, by="A. Sato", clock=SimClock(), sealed=True)
    assert answers_of(root, NAME) == ()


def test_damaged_answers_are_no_answers(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(1)])
    (root / "quality/kita+pick").mkdir(parents=True)
    (root / "quality/kita+pick/accepted.json").write_text("[{}]")
    with pytest.raises(StoreDamagedError):
        check_dataset(root, NAME)


def test_the_report_is_the_same_twice_and_in_any_order_of_episodes(tmp_path: Path) -> None:
    episodes = [*(arm(i) for i in range(6)), planted("lag", arm(11)), planted("idle", arm(12)), twin(2)]
    root, _ = imported(tmp_path, episodes)
    (tmp_path / "b").mkdir()
    other, _ = imported(tmp_path / "b", list(reversed(episodes)))
    first = check_dataset(root, NAME)
    assert first.to_bytes() == check_dataset(root, NAME).to_bytes() == check_dataset(other, NAME).to_bytes()


def test_one_changed_value_in_a_file_is_found(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i) for i in range(3)])
    (path,) = root.glob("datasets/kita+pick/*/data/*/*.parquet")
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError):
        check_dataset(root, NAME)


def test_episodes_that_were_imported_under_fewer_checks_are_not_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.data.intake.failed_checks", lambda *_: ())
    root, _ = imported(tmp_path, [*(arm(i) for i in range(3)), planted("jumps", arm(20))])
    report = check_dataset(root, NAME)
    assert "not-excluded" in report.reasons


def test_one_episode_alone_cannot_be_compared(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(1)])
    report = check_dataset(root, NAME)
    assert report.states["duplicates"] == report.states["lengths"] == "UNDETERMINED"
    assert report.verdict == "admitted"  # what cannot be told is said; a recipe decides whether it is enough


def test_a_data_set_whose_episodes_all_fail_is_refused(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [planted("jumps", arm(i)) for i in range(3)])
    report = check_dataset(root, NAME)
    assert (report.reasons, report.excluded_word) == (("no-episodes",), "many")


def test_paths_of_nothing_and_of_few_lengths_are_not_judged() -> None:
    assert check_duplicates([], paths=0).state == "NOT_APPLICABLE"
    assert check_lengths({f"ep_{i}": 10 for i in range(7)}).state == "UNDETERMINED"
    assert check_lengths({f"ep_{i}": 10 for i in range(8)}).state == "PASS"


@pytest.mark.parametrize(
    ("column", "word", "why"),
    [
        ("note", "ask k.sato@example.jp", "e-mail"),
        ("note", "Operator 00417", "badge"),
        ("note", "社員番号 12345", "badge"),
        ("note", "checked by Mr. Tanaka", "name"),
        ("note", "担当は田中さん", "name"),
        ("operator_name", "x", "people-column"),
        ("作業者", "x", "people-column"),
    ],
)
def test_words_that_name_a_person_are_found_and_never_repeated(column: str, word: str, why: str) -> None:
    found = check_personal({column: ["", word]})
    assert (found.state, found.why) == ("FAIL", why)
    assert word not in str(found)


@pytest.mark.parametrize(
    "word", ["True", "cycle-000417", "pick-place", "WP-2026-000123", "Robot_ProtectiveStop", "r12"]
)
def test_words_of_a_log_are_no_persons(word: str) -> None:
    assert check_personal({"cycle": [word], "grip_lost": ["True", "False"]}).state == "PASS"


def test_an_import_with_a_person_in_it_is_refused_whole(tmp_path: Path) -> None:
    text = MAP.replace('column = "run"', 'column = "operator"')
    (tmp_path / "map.toml").write_text(text)
    from client.data import import_path
    from tests.qualitysim import ALLOW, write_csv

    source = write_csv(tmp_path / "log.csv", [arm(1)])
    source.write_text(source.read_text().replace(",run,", ",operator,", 1))
    with pytest.raises(PersonalDataError, match="operator"):
        import_path(
            tmp_path / "s",
            source,
            dataset=NAME,
            signal_map=tmp_path / "map.toml",
            allow=ALLOW,
            rights=RIGHTS,
            node_key=KEY,
            clock=SimClock(),
        )
    assert NAME not in Store(tmp_path / "s").catalogue().datasets


@pytest.mark.parametrize(
    ("consent", "rights", "admitted"),
    [(None, RIGHTS, False), ("cns-17", RIGHTS, True), (None, "cns-17", True)],
)
def test_video_needs_the_id_of_a_consent(
    tmp_path: Path, consent: str | None, rights: str, admitted: bool
) -> None:
    from client.data import import_path
    from tests.datasim import ALLOW

    folder = write_v3(tmp_path / "rec", Recording.random(20, 30))
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.images.top"] = {"dtype": "video", "shape": [480, 640, 3], "names": None}
    (folder / "meta/info.json").write_text(json.dumps(info))
    options = {"dataset": NAME, "allow": ALLOW, "rights": rights, "node_key": KEY, "clock": SimClock()}
    if admitted:
        assert import_path(tmp_path / "s", folder, consent=consent, **options).episodes_added == 2
    else:
        with pytest.raises(PersonalDataError, match=r"observation\.images\.top"):
            import_path(tmp_path / "s", folder, consent=consent, **options)


def test_scales_of_a_recipe_are_compared_with_the_own_spread(tmp_path: Path) -> None:
    from client.data import import_path
    from tests.datasim import ALLOW

    recording = Recording.random(40, 40, 40)
    recording.observations = [(one * np.float32(0.001)).astype(np.float32) for one in recording.observations]
    import_path(
        tmp_path / "s",
        write_v3(tmp_path / "rec", recording),
        dataset=NAME,
        allow=ALLOW,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    report = check_dataset(tmp_path / "s", NAME, recipe=small_recipe())
    wide = {one.feature for one in report.ratios if one.warns}
    assert "raw tcp_pos" in wide
    assert "output tcp_pose_delta" not in wide
    assert all(
        set(one.as_dict()) == {"feature", "part", "scale", "spread", "ratio", "warns"}
        for one in report.ratios
    )


def test_a_clock_that_the_format_made_stays_open(tmp_path: Path) -> None:
    text = MAP.replace('unit = "ns", kind = "host"', 'unit = "count", kind = "derived", rate_hz = 100.0')
    root, _ = imported(tmp_path, [replace(arm(i), clock="derived") for i in range(9)], text=text)
    report = check_dataset(root, NAME)
    assert report.states["time"] == "UNDETERMINED"
    assert [one.why for one in report.findings] == ["derived"]


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED")
def test_cobotops_gets_the_verdicts_that_its_traps_deserve(tmp_path: Path) -> None:
    from client.data import import_path
    from tests.datasim import KEY

    (tmp_path / "map.toml").write_text(COBOTOPS)
    fields = frozenset({"joint_current", "joint_temp", "joint_vel", "tool_current", "grip_lost"})
    found = import_path(
        tmp_path / "s",
        SHARED / "ur3-cobotops" / "dataset_02052023.csv",
        dataset="ur3",
        signal_map=tmp_path / "map.toml",
        allow=fields,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    codes = {one.code: one.count for one in found.findings}
    assert (found.episodes_added, codes["pieces-too-short"], codes["missing-rows"]) == (249, 2, 54)
    report = check_dataset(tmp_path / "s", "ur3")
    assert sorted(report.excluded.values()) == ["schema", "time"]
    (missing,) = [one for one in report.findings if one.check == "schema"]
    assert missing.figures["missing"] == "0.06897"
    assert {name for name, state in report.states.items() if state == "NOT_APPLICABLE"} == {
        *("saturation", "lag", "tracking", "jumps", "limits")
    }
    assert report.reasons == ("lengths-open",)
