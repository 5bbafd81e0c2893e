# SPDX-License-Identifier: Apache-2.0
"""Random lives against a model that only counts: who halted, who resumed, who left, what still may run."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import evaluate
from policies.contract.errors import NoticeOrderError
from policies.contract.lifecycle import absorb, begin, contract_state, follow, standing
from policies.contract.notices import Notice, seal_notice
from policies.identity import SigningKey, key_text
from tests.contractsim import CONTRIBUTORS, contract, train_round
from tests.contractsim import key_of as private

CONTRACT = contract()
FINAL, AT, NOW = "2026-11-29T12:00:00Z", "2027-03-01T08:00:00Z", "2027-03-02T08:00:00Z"
K = CONTRACT.aggregation.min_parties
PARTIES = (*CONTRIBUTORS, "broker", "audit")

says = st.lists(
    st.tuples(
        st.sampled_from(("halt", "resume", "resume", "resume", "exit", "attest", "rotate")),
        st.sampled_from(PARTIES),
        st.integers(0, 3),  # which halt a resume names, newest first
        st.sampled_from((0, 0, 0, 0, -1, 1)),  # the next number; a used one; a gap
    ),
    max_size=24,
)


class Model:
    """What a person would keep on a sheet of paper."""

    def __init__(self) -> None:
        self.halts: dict[str, set[str]] = {}
        self.by: dict[str, str] = {}
        self.gone: set[str] = set()
        self.ended = False

    @property
    def left(self) -> set[str]:
        return set(CONTRIBUTORS) - self.gone

    def lift(self) -> None:
        self.halts = {name: said for name, said in self.halts.items() if not self.left <= said}

    def hear(self, one: Notice) -> None:
        """The rules in the contract's own words."""
        if self.ended or one.party in self.gone:
            return
        contributor = one.party in CONTRIBUTORS
        if one.kind == "halt" and one.party not in {self.by[name] for name in self.halts}:
            self.halts[one.digest], self.by[one.digest] = set(), one.party
        elif one.kind == "resume" and contributor and one.refers in self.halts:
            self.halts[str(one.refers)].add(one.party)
            self.lift()
        elif one.kind == "exit" and contributor:
            self.gone.add(one.party)
            self.ended = len(self.left) < K
            if not self.ended:
                self.lift()


@settings(max_examples=150, deadline=None)
@given(says)
def test_a_life_is_what_the_model_says(script: list[tuple[str, str, int, int]]) -> None:
    model, life, history, keys = Model(), begin(CONTRACT, finalized_at=FINAL), [], dict[str, SigningKey]()
    halts: list[str] = []
    for number, (kind, party, which, off) in enumerate(script):
        seq = life.next_seq(party) + off
        if seq < 1:
            continue
        fresh = SigningKey.from_seed(f"{party} {number}".encode().ljust(32, b"."))
        terms: dict[str, Any] = {
            "resume": {"refers": halts[-1 - which] if which < len(halts) else CONTRACT.digest},
            "exit": {"choice": "retrain"},
            "attest": {"subject": "use:inspection;country:JP"},
            "rotate": {"subject": key_text(fresh.public)},
        }.get(kind, {})
        said = Notice(
            kind=kind, contract=CONTRACT.digest, party=party, seq=seq, at=AT, code="reason", **terms
        )
        own = keys.get(party, private(party))
        envelope = seal_notice(said, own, fresh) if kind == "rotate" else seal_notice(said, own)
        try:
            after, _, _ = absorb(CONTRACT, life, envelope)
        except NoticeOrderError:
            assert off != 0
            continue
        assert off == 0
        assert after.seqs == {**life.seqs, party: seq}
        if after.rotated.get(party) == key_text(fresh.public):
            keys[party] = fresh
        life = after
        history.append(envelope)
        model.hear(said)
        if said.digest in model.halts:
            halts.append(said.digest)
        check(model, life)
    assert follow(CONTRACT, history, finalized_at=FINAL) == life


def check(model: Model, life: Any) -> None:
    assert set(life.exited) == model.gone
    assert (life.terminated is not None) == model.ended
    if model.ended:
        assert standing(CONTRACT, life, NOW) == "TERMINATED"
    else:
        assert {one.digest: set(life.resumed_by[one.digest]) for one in life.halts} == model.halts
        assert standing(CONTRACT, life, NOW) == ("HALTED" if model.halts else "ACTIVE")
    state = contract_state(CONTRACT, life, NOW)
    cohort = tuple(sorted(model.left))
    for party in CONTRIBUTORS:
        key = life.rotated.get(party, key_text(private(party).public))
        may = evaluate(CONTRACT, state, train_round(party, key=key, cohort=cohort)).allow
        assert may == (not model.halts and not model.ended and party in model.left)
