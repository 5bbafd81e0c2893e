# SPDX-License-Identifier: Apache-2.0
"""What each kind of notice does to a life: one function per kind, each for a notice that was verified.

A function gives the life after the notice, without its number, or raises and nothing has changed. Who may say
what, and when everybody has agreed, stands here and nowhere else.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from policies.contract.errors import LifecycleError, NoticeEntitlementError
from policies.contract.lifecycle.life import Departure, Ending, contract_state, exit_request, remaining
from policies.identity import key_id, parse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from policies.contract.clauses import Contract
    from policies.contract.lifecycle.life import Life
    from policies.contract.notices import Notice

__all__ = ["EFFECTS", "TOO_FEW_GROUPS", "void"]

TOO_FEW_GROUPS: Final = "exit.too-few-groups"
_OTHERS: Final = 2


def _halt(contract: Contract, life: Life, notice: Notice) -> Life:
    role = _role(contract, notice)
    who = {"contributor": "any-contributor"}.get(role, role)
    if who not in contract.halt.who:
        raise _not_entitled(contract.halt.clause, "a halt by " + " ".join(contract.halt.who), who)
    _require_present(life, notice, contract.halt.clause)
    if notice.party in {one.party for one in life.halts}:
        raise void(
            "one open halt of each party", f"a second one of {notice.party}", "the first one is in force"
        )
    return replace(
        life,
        halts=(*life.halts, notice),
        resumed_by={**life.resumed_by, notice.digest: ()},
        changed_at=life.changed_at if life.halts else notice.at,
    )


def _resume(contract: Contract, life: Life, notice: Notice) -> Life:
    _require_contributor(contract, life, notice, contract.halt.clause)
    named = str(notice.refers)
    if named not in life.resumed_by:
        raise void("the digest of a halt that is open", named, "contract status shows the open halts")
    said = life.resumed_by[named]
    if notice.party in said:
        raise void("one resume of each party", f"a second one of {notice.party}", "wait for the others")
    resumed = {**life.resumed_by, named: tuple(sorted((*said, notice.party)))}
    count = {**life.resumes, notice.party: life.resumes.get(notice.party, 0) + 1}
    return _lift(contract, replace(life, resumed_by=resumed, resumes=count), notice.at)


def _exit(contract: Contract, life: Life, notice: Notice) -> Life:
    """The evaluator judges the notice; then the leaver is out, and perhaps the contract ends.

    An exit that names somebody else is one voice: it has its effect when every other contributor said so.
    """
    from policies.contract.decision import evaluate

    leaver, choice = notice.subject or notice.party, str(notice.choice)
    if notice.subject is not None:
        _require_contributor(contract, life, notice, contract.exit.clause)
    if leaver in life.exited:
        raise void("a party that has not left", leaver, "it has left already")
    said = life.asked_out.get((leaver, choice), ())
    if notice.subject is not None and notice.party in said:
        raise void("one word of each party", f"a second one of {notice.party}", "wait for the others")
    evaluate(
        contract, contract_state(contract, life, notice.at), exit_request(contract, life, notice)
    ).require()
    if notice.subject is None:
        return _depart(contract, life, leaver, choice, notice.at)
    voices = {**life.asked_out, (leaver, choice): tuple(sorted((*said, notice.party)))}
    return _settle(contract, replace(life, asked_out=voices), notice.at)


def _depart(contract: Contract, life: Life, party: str, choice: str, at: str) -> Life:
    """The life without a contributor: its word is not waited for any more, and perhaps too few are left."""
    gone = replace(
        life,
        exited={**life.exited, party: Departure(at, choice)},
        asked_out={key: voices for key, voices in life.asked_out.items() if key[0] != party},
    )
    left = contract.groups(remaining(contract, gone))
    if len(left) < contract.aggregation.min_parties:
        ending = Ending(TOO_FEW_GROUPS, contract.aggregation.clause)
        return replace(gone, terminated=ending, changed_at=at)
    return _settle(contract, _lift(contract, gone, at), at)


def _settle(contract: Contract, life: Life, at: str) -> Life:
    """Lets go whom all the others asked out, two at least: who is alone with somebody decides for itself."""
    here = set(remaining(contract, life))
    for (party, choice), voices in sorted(life.asked_out.items()):
        others = here - {party}
        if len(others) >= _OTHERS and others <= set(voices):
            return _depart(contract, life, party, choice, at)
    return life


def _rotate(contract: Contract, life: Life, notice: Notice) -> Life:
    new = str(notice.subject)
    if new in {one.key for one in contract.parties} or new in life.former_keys:
        raise LifecycleError(
            need="a key that no party of the contract has or had",
            found=key_id(parse_key(new)),
            remedy="make a new key pair",
            clause=contract.amendment.clause,
        )
    return replace(
        life,
        rotated={**life.rotated, notice.party: new},
        former_keys=(*life.former_keys, new),
    )


def _attest(contract: Contract, life: Life, notice: Notice) -> Life:
    if _role(contract, notice) != "contributor":
        raise _not_entitled(_party_clause(contract, notice), "an attestation by a contributor", notice.party)
    said = notice.attestation
    return life if said is None else replace(life, attested={**life.attested, notice.party: said})


def _admit(contract: Contract, life: Life, notice: Notice) -> Life:
    if _role(contract, notice) == "auditor":
        raise _not_entitled(
            contract.amendment.clause, "an admission by a contributor or the broker", "auditor"
        )
    _require_present(life, notice, contract.amendment.clause)
    org = str(notice.subject)
    vouching = tuple(sorted({*life.admitted.get(org, ()), notice.party}))
    return replace(life, admitted={**life.admitted, org: vouching})


EFFECTS: Mapping[str, Callable[[Contract, Life, Notice], Life]] = MappingProxyType(
    {"halt": _halt, "resume": _resume, "exit": _exit, "rotate": _rotate, "attest": _attest, "admit": _admit}
)


def _lift(contract: Contract, life: Life, at: str) -> Life:
    """Ends every halt that all the remaining contributors resumed."""
    needed = set(remaining(contract, life))
    still = tuple(one for one in life.halts if not needed <= set(life.resumed_by[one.digest]))
    if len(still) == len(life.halts):
        return life
    return replace(
        life,
        halts=still,
        resumed_by={one.digest: life.resumed_by[one.digest] for one in still},
        changed_at=life.changed_at if still else at,
    )


# --- refusals ---


def _role(contract: Contract, notice: Notice) -> str:
    party = contract.party(notice.party)
    return "stranger" if party is None else party.role


def _party_clause(contract: Contract, notice: Notice) -> str:
    party = contract.party(notice.party)
    return "@parties" if party is None else party.clause


def _require_present(life: Life, notice: Notice, clause: str) -> None:
    if notice.party in life.exited:
        raise _not_entitled(clause, "a party that has not left", f"{notice.party}, which has left")


def _require_contributor(contract: Contract, life: Life, notice: Notice, clause: str) -> None:
    role = _role(contract, notice)
    if role != "contributor":
        raise _not_entitled(clause, "a contributor", role)
    _require_present(life, notice, clause)


def _not_entitled(clause: str, need: str, found: str) -> NoticeEntitlementError:
    return NoticeEntitlementError(
        need=need, found=found, remedy="let a party say it that the clause names", clause=clause
    )


def void(need: str, found: str, remedy: str) -> LifecycleError:
    """The refusal of a notice that would change nothing, to raise."""
    return LifecycleError(need=need, found=found, remedy=remedy)
