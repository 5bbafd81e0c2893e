# SPDX-License-Identifier: Apache-2.0
"""Which models of a run stand, verdict after verdict."""

from types import SimpleNamespace
from typing import Any

from broker.runs.course import Course


def contract(most: int) -> Any:
    return SimpleNamespace(validation=SimpleNamespace(max_rejected_rounds=most))


def test_a_rejection_takes_back_every_model_since_the_accepted_one() -> None:
    course = Course().after(2, accepted=True).after(5, accepted=False)
    assert (course.stands, course.rejections) == (2, 1)
    assert course.back == {3, 4, 5}
    assert course.judged == {2, 5}


def test_a_model_after_a_rejection_counts_from_the_same_accepted_one() -> None:
    course = Course().after(1, accepted=False).after(3, accepted=False)
    assert (course.stands, course.back, course.rejections) == (0, {1, 2, 3}, 2)
    course = course.after(4, accepted=True)
    assert (course.stands, course.back, course.rejections) == (4, {1, 2, 3}, 0)


def test_a_run_pauses_at_as_many_rejections_in_a_row_as_its_contract_says() -> None:
    course = Course().after(1, accepted=False).after(2, accepted=False)
    assert course.paused(contract(2))
    assert not course.paused(contract(3))
    assert not course.paused(SimpleNamespace(validation=None))  # type: ignore[arg-type]


def test_a_wrong_sum_takes_its_model_back_even_if_it_was_accepted() -> None:
    course = Course().after(1, accepted=True).after(3, accepted=True).without(3)
    assert (course.stands, course.back, course.wrong, course.rejections) == (1, {3}, (3,), 0)
    course = course.after(4, accepted=False).without(6)
    assert (course.stands, course.back, course.wrong) == (1, {2, 3, 4, 6}, (3, 6))
