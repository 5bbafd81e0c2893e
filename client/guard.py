# SPDX-License-Identifier: Apache-2.0
"""The node's own gate: the signed contract, evaluated here, before one byte of a request's payload is pulled.

- **From local files only.** Contract, signatures and recipe are this node's copies; every signature is
  checked under the keys pinned in the contract. What a request says about itself decides nothing.
- **Before anything happens.** `Guard.judge_round` answers for a training round before data are read,
  `Guard.judge_candidate` before held-out data are.
- **Local rules only tighten** (`client.site_rules`). They are added to the contract's findings; none can turn
  a refusal into a permission. They are this site's affair: what they refuse is refused to the broker without
  a decision record.
- **What is done, not what is promised.** Whether an update leaves masked, and whether sums carry the members'
  tag, follows from the type of the request: ``train.sa_contribute`` masks, ``train.contribute`` does not. So
  a plain round is refused under a contract that requires secure aggregation, and the reverse too.
- **Explained.** Record, request, state and salt are kept, so that `iriai-node guard explain` and an auditor
  replay them.
- **Halts, exits and ends** are this node's own copies of the parties' notices
  (`client.contract.notices`), an own halt
  from the moment it was signed. Where they are lost, nothing is known, and everything is refused. Where the
  broker's were taken over longer ago than `HALT_ASK_S`, they are asked for first; longer ago than
  `HALT_FRESH_S`, nobody knows whether a halt is in force, and everything is refused as well: so it ends
  where a broker asks for rounds and shows no notices, and where this node's own hearing is broken.
- **Good enough data.** Where the recipe says what a data set's quality certificate must grant (``quality``),
  a round begins only with a certificate that this node signed, that is still true of the data, and grants it
  (``data.quality-refused``, `client.data.quality.admitting`). A guard that nobody told how to look refuses.
- **No new round** begins under a contract that demands witnesses of the log while too few vouch for it
  (``log.unwitnessed``, `client.witnessing`): what would be entered could be taken back unseen.
- Budget is looked at here (`Budgets`), and no ledger is opened; it is reserved and spent by the worker,
  durably, before the first gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from client.contract.notices import Notices
from client.data.errors import QualityRefusedError
from client.errors import LocalRefusedError
from client.judged import Judged
from client.seat import Seat, seat_of
from client.secagg.agreed import REQUIRED, check_shares
from client.site_rules import SiteRules
from policies.contract import (
    ContractState,
    PlanFacts,
    TrainRound,
    decision_bytes,
    evaluate,
)
from policies.contract.checks.document import SUPERSEDED
from policies.contract.errors import (
    ExpiredError,
    HaltedError,
    NotBegunError,
    NotExecutedError,
    RefusedError,
)
from policies.contract.lifecycle import IN_FORCE
from policies.exchange import ExchangeType
from policies.identity import key_text
from policies.limits import HALT_ASK_S, HALT_FRESH_S
from policies.ports import iso_s
from policies.privacy.accounting import epsilon_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.budgets import Budgets
    from client.contract.shelf import ContractShelf, Held
    from client.outbox import Outbox
    from client.settings import LocalRules
    from policies.exchange import RequestHeader
    from policies.ports import Clock, Entropy
    from policies.recipe import Recipe

__all__ = ["Guard"]

_SALT_BYTES = 16
_RESUME = "iriai-node contract status shows who halted it; every contributor has to resume"
_OTHER = "stop, or go on under a new contract"


class Guard:
    """Judges what a broker asks, by the contract that this node signed."""

    def __init__(
        self,
        *,
        shelf: ContractShelf,
        own_key: bytes,
        budgets: Budgets,
        outbox: Outbox,
        rules: Callable[[], LocalRules],
        lineage: Callable[[str], str],
        clock: Clock,
        entropy: Entropy,
        ask: Callable[[Held], None] = lambda _held: None,
        vouched: Callable[[Held], None] = lambda _held: None,
        certified: Callable[[Seat], None] | None = None,
        site: Callable[[Recipe, str], Recipe] = lambda recipe, _dataset: recipe,
        is_stopped: Callable[[str], bool] = lambda _run: False,
    ) -> None:
        """Sets the gate up.

        Args:
            shelf: Contracts of this node.
            own_key: Its raw public key.
            budgets: Ledgers of its data.
            outbox: Knows the rounds of earlier runs.
            rules: Gives the local rules as they are now.
            lineage: Lineage of a data set; raises if there is none.
            clock: Time of the decision.
            entropy: Salts.
            ask: Takes over what the broker shows of a contract's notices, if it can; never raises.
            vouched: Raises `UnwitnessedError` where a contract demands witnesses and too few vouch for the
                log just now.
            certified: Raises `DataError` where a data set is not as good as its recipe requires.
            site: The recipe as a data set of this site reads it.
            is_stopped: Whether the owner stopped a run.
        """
        self._shelf = shelf
        self._notices = Notices(shelf)
        self._key = key_text(own_key)
        self._site_rules = SiteRules(budgets=budgets, outbox=outbox, rules=rules, is_stopped=is_stopped)
        self._outbox = outbox
        self._rules = rules
        self._lineage = lineage
        self._clock = clock
        self._entropy = entropy
        self._ask = ask
        self._vouched = vouched
        self._site = site
        self._is_stopped = is_stopped
        self._certified = _never_certified if certified is None else certified
        self._asked: dict[str, int] = {}

    def seat(self, contract: str, recipe: str, run: str = "") -> Seat:
        """This node's place under a contract and recipe, from local files.

        Raises:
            NoSuchThingError: Contract, recipe or data set is not here.
            RefusedError: The contract names no data set of this party for the recipe.
        """
        return seat_of(
            self._shelf,
            contract,
            recipe,
            rules=self._rules(),
            lineage=self._lineage,
            site=self._site,
            run=run,
        )

    def judge_round(self, header: RequestHeader) -> Judged:
        """The decision about a training round; a refusal is an answer, not an exception.

        Raises:
            NoSuchThingError: Contract, recipe or data set is not here.
            RefusedError: This party is none of the recipe's.
            BudgetUnknownError: The ledger is missing or does not verify.
            SharesUnfitError: The plan shares its noise, and that protects nothing here.
            ThresholdError: So, and the contract's numbers carry no safe threshold.
            UnwitnessedError: The contract demands witnesses, and too few vouch for the log just now.
            QualityRefusedError: The recipe requires a better certificate than the data set's.
            CertificateVoidError: So, and it has none that is true of the data.
        """
        seat = self.seat(header.contract, header.recipe, header.run)
        self._vouched(seat.held)
        masked, tagged = _sending(header, seat)
        state = self._state(seat.held)
        release, total = self._epsilon_after(seat, header.run)
        before = self._outbox.left.rounds_elsewhere(seat.versions, header.recipe, header.run)
        request = TrainRound(
            party=seat.party,
            key=self._key,
            recipe_digest=seat.recipe.digest,
            purpose=_purpose(header, seat),
            dataset=seat.dataset,
            fields=seat.recipe.fields,
            round=before + header.round,
            local_steps=seat.recipe.local_steps,
            cohort=_cohort(header, seat, state),
            privacy=PlanFacts.of(seat.recipe.plan_document),
            epsilon_after_release=release,
            epsilon_after_total=total,
            secure_aggregation=masked,
            group_mac=tagged,
            reply_slot_ms=seat.held.contract.privacy.reply_slot_ms or 0,  # kept by the desk
            seed_set=seat.start.seed_set,
            seed_consents=seat.start.consents,
        )
        decision = evaluate(seat.held.contract, state, request)
        if decision.allow:
            check_shares(seat, header.run, masked)
            self._certified(seat)
        salt = self._entropy.token_bytes(_SALT_BYTES)
        record = decision_bytes(
            decision,
            contract_digest=seat.held.contract.digest,
            point="node",
            request=request,
            state=state,
            salt16=salt,
        )
        return Judged(
            seat=seat,
            decision=decision,
            local=self._site_rules.broken(seat) + self._site_rules.own_cap(seat, header.run),
            request=request,
            state=state,
            salt=salt,
            record=record,
        )

    def judge_candidate(self, header: RequestHeader) -> Seat:
        """The seat, once a candidate may be judged on held-out data here.

        Raises:
            NotExecutedError: Somebody has not signed.
            NotBegunError, ExpiredError: Outside the term.
            HaltedError: A halt is in force, or nobody knows.
            RefusedError: This party has left, or the contract has ended.
            LocalRefusedError: A rule of this site.
        """
        seat = self.seat(header.contract, header.recipe, header.run)
        state, term = self._state(seat.held), seat.held.contract.term
        if not state.executed:
            raise NotExecutedError(need="all signatures", found="some are missing", remedy="wait for them")
        if state.now is not None and state.now < term.effective:
            raise NotBegunError(
                need=f"{term.effective} to {term.expires}",
                found=state.now,
                remedy="wait until the term begins",
                clause=term.clause,
            )
        if state.now is None or state.now >= term.expires:
            raise ExpiredError(
                need=f"{term.effective} to {term.expires}",
                found=str(state.now),
                remedy="go on under a new contract",
                clause=term.clause,
            )
        _check_life(seat.held, state)
        for one in self._site_rules.broken(seat):
            raise LocalRefusedError(need=one.need, found=one.found, remedy=one.remedy, clause=one.clause)
        return seat

    def judge_message(self, header: RequestHeader) -> Seat:
        """The seat, once this node may take part in sums under the contract.

        A successor that took effect meanwhile stops nothing, as in `stopped`. Rules of the site are not
        asked: no data are touched.

        Raises:
            RefusedError: The contract does not ask for secure aggregation; or this party has left, or the
                contract has ended.
            HaltedError: A halt is in force, or nobody knows.
        """
        seat = self.seat(header.contract, header.recipe, header.run)
        clause = seat.held.contract.aggregation
        if clause.secure_aggregation != REQUIRED:
            raise RefusedError(
                need="a contract that requires secure aggregation",
                found=f"secure_aggregation: {clause.secure_aggregation}",
                remedy="ask for plain rounds, or amend the contract",
                clause=clause.clause,
            )
        _check_life(seat.held, self._state(seat.held), may_be=(IN_FORCE, SUPERSEDED))
        return seat

    def stopped_here(self, run: str) -> str | None:
        """Code of the refusal if this node's owner stopped a run since a decision; then nothing leaves."""
        return LocalRefusedError.code if self._is_stopped(run) else None

    def stopped(self, contract: str) -> str | None:
        """Code of what was said since a decision that stops the work, or None: then nothing more leaves.

        A successor that took effect meanwhile stops nothing: a round ends under the contract that it was
        opened with.
        """
        held = self._shelf.get(contract)
        try:
            _check_life(held, self._state(held), may_be=(IN_FORCE, SUPERSEDED))
        except RefusedError as error:
            return error.code
        return None

    def hear(self, held: Held) -> None:
        """Asks for the notices of a contract if what is known is not new, and nobody asked just now."""
        recent = (self._notices.heard(held), self._asked.get(held.contract.digest))
        if held.is_executed and not any(self._within(one, HALT_ASK_S) for one in recent):
            self._asked[held.contract.digest] = self._clock.now_ms()
            self._ask(held)

    def _within(self, at_ms: int | None, seconds: int) -> bool:
        """Whether a time is past, and no longer ago than this; after a clock was set back nothing is."""
        return at_ms is not None and 0 <= self._clock.now_ms() - at_ms <= seconds * 1000

    def _state(self, held: Held) -> ContractState:
        """The facts of the contract's life; whether a halt is in force is unknown where nothing was heard."""
        self.hear(held)
        state = self._notices.state(held, iso_s(self._clock.now_ms()))
        if state.halted is False and not self._within(self._notices.heard(held), HALT_FRESH_S):
            return replace(state, halted=None)
        return state

    def _epsilon_after(self, seat: Seat, run: str) -> tuple[str | None, str | None]:
        """Epsilon of this party's release and total if the run goes on; None without plan or cap."""
        plan = seat.recipe.plan
        if plan is None or seat.cap is None:
            return None, None
        return epsilon_text(plan.epsilon_rdp), self._site_rules.total_after(seat, plan, seat.cap, run)


def _never_certified(seat: Seat) -> None:
    """Where nobody looks at certificates, a recipe that requires one is refused."""
    if seat.recipe.quality is not None:
        raise QualityRefusedError(
            need="a certificate of the data set",
            found="a process that looks at none",
            remedy="run it by the node's worker",
            clause=seat.clause.clause,
        )


def _check_life(held: Held, state: ContractState, may_be: tuple[str, ...] = (IN_FORCE,)) -> None:
    """Whether work under the contract may go on, by what its parties said.

    Raises:
        HaltedError: A halt is in force, or nobody knows.
        RefusedError: This party has left, or the contract has ended.
    """
    contract, party = held.contract, held.party
    if state.halted is not False:
        found = "halted" if state.halted else "unknown"
        raise HaltedError(need="no halt in force", found=found, remedy=_RESUME, clause=contract.halt.clause)
    if state.exited_parties is None or party.party in state.exited_parties:
        raise RefusedError(
            need="a party", found=f"{party.party} has left", remedy=_OTHER, clause=party.clause
        )
    if state.standing not in may_be:
        raise RefusedError(
            need="a contract in force", found=str(state.standing), remedy=_OTHER, clause=contract.term.clause
        )


def _sending(header: RequestHeader, seat: Seat) -> tuple[str, str]:
    """How an update leaves that is asked for in this way: secure aggregation, and the members' tag."""
    if header.type is not ExchangeType.SA_CONTRIBUTE:
        return "off", "off"
    return REQUIRED, seat.held.contract.aggregation.group_mac


def _purpose(header: RequestHeader, seat: Seat) -> str:
    """What the broker says that the run is for; the recipe's own purpose if it says nothing."""
    named = header.body.get("purpose", seat.clause.purpose)
    return named if isinstance(named, str) else "unnamed"


def _cohort(header: RequestHeader, seat: Seat, state: ContractState) -> tuple[str, ...]:
    """Parties of the round: as the broker names them, else everybody of the recipe that has not left.

    Who left is asked for no round any more. Where nobody knows who left, everybody is judged, and refused.
    """
    named = header.body.get("cohort")
    if isinstance(named, list) and all(isinstance(one, str) for one in named):
        return tuple(sorted(named))
    left = state.exited_parties or ()
    return tuple(one for one in seat.clause.participants if one not in left)
