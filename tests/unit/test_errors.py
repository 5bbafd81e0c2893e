# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from policies.errors import IdentityError, InvariantError, invariant


def refuse(clause):
    raise IdentityError(need="a key", found="none", remedy="make one", clause=clause)


def test_a_refusal_in_a_worker_process_reaches_its_caller_whole():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool,
        pytest.raises(IdentityError) as caught,
    ):
        pool.submit(refuse, "party-kita").result()
    assert caught.value.as_dict() == {
        "code": "identity.invalid",
        "clause": "party-kita",
        "need": "a key",
        "found": "none",
        "remedy": "make one",
    }
    assert "[party-kita]" in str(caught.value)


def test_an_invariant_is_checked_also_without_assertions():
    invariant(condition=True, what="truth")
    with pytest.raises(InvariantError) as caught:
        invariant(condition=False, what="truth")
    assert caught.value.need == "truth"
