# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker status`` says about witnesses."""

from __future__ import annotations

from broker.commands.witnesses import witness_lines

FOUND = {
    "k": 3,
    "n": 4,
    "tolerates": 1,
    "size": 17,
    "voters": ["org_a", "org_b", "org_c"],
    "age_s": 4,
    "witnesses": [
        {"name": "org_a/witness", "size": 17, "age_s": 4},
        {"name": "org_d/witness", "age_s": None},
    ],
}


def test_the_quorum_what_it_tolerates_and_who_was_never_heard() -> None:
    first, heard, never = witness_lines(FOUND)
    assert first == "witnesses    3 of 4 needed, tolerates 1; size 17 cosigned by 3, 4 s ago"
    assert heard.endswith("heard 4 s ago, on size 17")
    assert never.endswith("never heard")


def test_no_quorum_yet_and_no_witness_at_all() -> None:
    assert "no head has a quorum yet" in witness_lines(FOUND | {"size": None})[0]
    assert witness_lines(FOUND | {"n": 0}) == ("witnesses    none; every node registers one when it runs",)
    assert witness_lines(None) == ()


def test_an_old_quorum_is_an_alarm_that_names_who_is_missing() -> None:
    silent = {"name": "org_d/witness", "legal_name": "Nord GmbH", "size": 12, "age_s": 900, "missing": True}
    there = {"name": "org_a/witness", "legal_name": "Kita KK", "size": 17, "age_s": 4, "missing": False}
    lines = witness_lines(FOUND | {"alarm": True, "age_s": 900, "witnesses": [there, silent]})
    assert any("ALARM" in one for one in lines)
    assert "  missing    Nord GmbH (org_d/witness)" in lines
    assert any("Kita KK (org_a/witness)" in one for one in lines)
    assert not any("ALARM" in one for one in witness_lines(FOUND))
