# SPDX-License-Identifier: Apache-2.0
"""Rules about votes on rounds: see `policies.contract.lint` for rules, `policies.robustness` for votes.

A validation clause whose votes nobody casts looks like protection and is none; one whose votes nobody can pay
for ends every run in a pause. Votes and evaluations of candidates that do not fit into a site's budget
together are refused at an offer, where the recipes are at hand: `policies.robustness.held_out`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from policies.contract.lint.rows import error, warning
from policies.privacy.accounting import calibrate
from policies.privacy.errors import PrivacyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import Contract

__all__ = ["VOTES"]

_NUMBERS: Final = ("judge_episodes", "gain_clip", "max_judgings", "epsilon")
_NOISES_IN_MARGIN: Final = 2
_MARGIN: Final = 0.2  # of the gain clip, in `policies.robustness.votes`


def _none(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.validation
    if clause is None:
        return
    missing = [name for name in _NUMBERS if getattr(clause, name) is None]
    if missing:
        yield clause.clause, "no " + " ".join(missing)


def _unaffordable(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.validation
    if clause is None or clause.epsilon is None:
        return
    for one in contract.contributors:
        caps = contract.caps(one.party)
        if caps is not None and Decimal(clause.epsilon) > Decimal(caps.epsilon_per_release):
            yield clause.clause, f"epsilon {clause.epsilon}; {one.party} allows {caps.epsilon_per_release}"
            return


def _by_noise(contract: Contract) -> Iterator[tuple[str, str]]:
    clause, delta = contract.validation, contract.privacy.delta
    if clause is None or clause.epsilon is None or delta is None:
        return
    if clause.judge_episodes is None or clause.max_judgings is None:
        return
    try:
        noise = float(calibrate(float(clause.epsilon), float(delta), 1.0, clause.max_judgings))
    except PrivacyError:
        noise = float("inf")
    if _NOISES_IN_MARGIN * noise / clause.judge_episodes > _MARGIN:
        yield clause.clause, f"judge_episodes {clause.judge_episodes}, noise {noise:.1f}"


VOTES: Final = (
    error(
        "votes-unaffordable",
        _unaffordable,
        (
            "an epsilon of votes within every party's cap per release",
            "投票のイプシロンは各当事者の公開ごとの上限以内",
        ),
        (
            "lower epsilon or max_judgings of the validation clause: no site could pay for its votes",
            "検証条項の epsilon または max_judgings を下げる。さもなければどの拠点も投票の費用を払えない",
        ),
    ),
    warning(
        "votes-none",
        _none,
        (
            "judge_episodes, gain_clip, max_judgings and epsilon, so that sites vote on rounds",
            "投票のため judge_episodes、gain_clip、max_judgings、epsilon を定めること",
        ),
        (
            "write all four: without them only candidates are judged, and no round is taken back",
            "四つとも定める。なければ候補だけが判定され、ラウンドは取り消されない",
        ),
    ),
    warning(
        "votes-by-noise",
        _by_noise,
        (
            "a margin of at least two standard deviations of a vote's noise",
            "投票の余裕は雑音の標準偏差の二倍以上",
        ),
        (
            "more judge_episodes, fewer max_judgings or a larger epsilon: else noise alone rejects rounds",
            "judge_episodes か epsilon を増やすか、max_judgings を減らす。さもなければ雑音で否決される",
        ),
    ),
)
