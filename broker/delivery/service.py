# SPDX-License-Identifier: Apache-2.0
"""The release gate's doors: votes come in, released models go out, each download is judged again.

- A vote is a member's envelope ``vote.cast``; every valid one gets its entry. After the candidate was
  decided it changes nothing.
- A download is a `Deliver` decision for the asking party, made for this one download and logged whether it
  allows or refuses; only an allowed one is followed by ``model.exported``, which refers to it, and by bytes.
  What no ``model.released`` of this contract names is never allowed. What it is asked with is on record: the
  times of the log's entries, the country that the recipient is enrolled in, the digest of its latest signed
  attestation (``none`` without one). Nobody states shares in this version, so a share is not known. Whoever
  downloads is a party, also from the open tier: nobody gets a model without saying who and where it is.
- A candidate that waits says what for, from the gate's own decisions, and when the clock may open it.
- Candidates and models of contracts that the caller is no party to do not exist for the caller.
- The bytes are hashed again before the first one leaves.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select

from broker.contracts.decisions import Judgement, judge
from broker.contracts.errors import NotPartyError
from broker.contracts.lineage import made_ms, released_ms, run_of, versions
from broker.delivery.candidates import PRIVATE, is_closed, refused_by, report_of, waits_for
from broker.delivery.errors import VoteClosedError, VoteInvalidError
from broker.membership.directory import Member, Operator
from broker.store.tables import candidate, log_entry, model, release, run, statement, vote
from policies.contract import Deliver
from policies.contract.errors import RefusedError
from policies.errors import IriaiError, invariant
from policies.identity import key_text
from policies.limits import LIST_ROWS
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.store import Session, Store
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.ports import Clock, Entropy
    from policies.signing import Envelope

__all__ = ["Delivered", "Delivery", "Vote"]

NO_ATTESTATION: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A member's vote whose signature and content hold."""

    candidate: str
    party: str
    verdict: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """An answer of the gate: where the bytes lie, and why they stay, if they do."""

    path: Path
    tier: str
    refusal: IriaiError | None


class Delivery:
    """The service; see the module for its rules."""

    def __init__(self, *, clock: Clock, entropy: Entropy, contracts: Contracts, store: Store) -> None:
        self._clock = clock
        self._entropy = entropy
        self._contracts = contracts
        self._store = store

    # --- votes ---

    def candidate_rows(self, session: Session, caller: Member | Operator) -> list[Row[Any]]:
        """Rows of every candidate of the caller's contracts, oldest first, by time, run and digest."""
        rows = session.execute(
            select(
                candidate.c.digest,
                candidate.c.state,
                run.c.run_id,
                run.c.contract,
                run.c.recipe_digest,
                run.c.opened_ms,
            )
            .join(run, run.c.run_id == candidate.c.run_id)
            .order_by(run.c.opened_ms, run.c.run_id, candidate.c.digest)
        ).all()
        return self._of_caller(rows, caller)

    def _of_caller(self, rows: Sequence[Any], caller: Member | Operator) -> list[Row[Any]]:
        """Those rows whose contract is one of the caller's."""
        theirs = {name: self._visible(name, caller) is not None for name in {row.contract for row in rows}}
        return [row for row in rows if theirs[row.contract]]

    def candidates(
        self, session: Session, caller: Member | Operator, rows: Sequence[Row[Any]] | None = None
    ) -> list[dict[str, Json]]:
        """Candidates of the caller's contracts: these, or the newest.

        A member sees its own vote, an operator all.
        """
        if rows is None:
            rows = self.candidate_rows(session, caller)[-LIST_ROWS:]
        shown = []
        for row in rows:
            contract = self._visible(row.contract, caller)
            if contract is None:
                continue
            votes = {
                one.party: one.verdict
                for one in session.execute(select(vote).where(vote.c.candidate == row.digest))
            }
            mine = contract.party_of_key(key_text(caller.key))
            shown.append(
                {
                    "candidate": row.digest,
                    "run": row.run_id,
                    "contract": row.contract,
                    "recipe": row.recipe_digest,
                    "state": row.state,
                    "own_vote": votes.get(mine.party) if mine is not None else None,
                    "votes": votes if isinstance(caller, Operator) else None,
                    "voted": len(votes),
                    "report": report_of(session, row),
                    "refused_by": refused_by(session, row) if row.state in {"refused", "discarded"} else [],
                    **waits_for(session, contract, row),
                }
            )
        return shown

    def read_vote(self, candidate_digest: str, member: Member, envelope: Envelope) -> Vote:
        """A vote, once its envelope holds and is about this candidate; before any transaction.

        Raises:
            NotPartyError: No such candidate in the member's contracts.
            SignatureInvalidError, MemberEnvelopeError: The envelope.
            VoteInvalidError: It is about something else.
        """
        with self._store.read() as session:
            contract, run_id, _ = self._candidate(session, candidate_digest, member)
        payload = open_envelope(envelope, member.key)
        body = payload["body"]
        says = (payload["kind"], payload["scope"], payload["run"], body.get("subject"))
        if says != (EntryType.VOTE_CAST.value, contract.digest, run_id, candidate_digest):
            raise VoteInvalidError(
                need=f"vote.cast on {candidate_digest} in {run_id}",
                found="an envelope about something else",
                remedy="vote with iriai-node release approve or veto",
            )
        actor = alias(member.alias_key, payload["scope"], payload["run"], payload["round"])
        return Vote(
            candidate=candidate_digest,
            party=self._contracts.party_of(contract, member).party,
            verdict=body["vote"],
            event=from_envelope(envelope, payload, actor=actor),
        )

    def cast(
        self, session: Session, tx: LogTx, *, member: Member, ballot: Vote
    ) -> tuple[dict[str, Json], int, IriaiError | None]:
        """Stores a vote; the last one of a party counts until the candidate is decided.

        Returns:
            What was stored, the index of the entry, and `VoteClosedError` if the vote came too late to count.
        """
        contract, run_id, state = self._candidate(session, ballot.candidate, member)
        index = tx.add(ballot.event)
        answer = {"candidate": ballot.candidate, "party": ballot.party, "vote": ballot.verdict}
        if is_closed(session, contract, run_id, ballot.candidate, state):
            closed = VoteClosedError(
                need="a candidate that waits for votes",
                found=state,
                remedy="nothing: the vote is on record and changes nothing",
            )
            return answer, index, closed
        same = (vote.c.candidate == ballot.candidate) & (vote.c.party == ballot.party)
        session.execute(delete(vote).where(same))
        session.execute(
            insert(vote).values(
                candidate=ballot.candidate,
                party=ballot.party,
                verdict=ballot.verdict,
                at_ms=self._clock.now_ms(),
            )
        )
        return answer, index, None

    def _candidate(
        self, session: Session, candidate_digest: str, caller: Member | Operator
    ) -> tuple[Contract, str, str]:
        row = session.execute(
            select(candidate.c.state, run.c.run_id, run.c.contract)
            .join(run, run.c.run_id == candidate.c.run_id)
            .where(candidate.c.digest == candidate_digest)
        ).first()
        contract = self._visible(row.contract, caller) if row is not None else None
        if row is None or contract is None:
            raise _no_model(candidate_digest)
        return contract, row.run_id, row.state

    def _visible(self, contract: str, caller: Member | Operator) -> Contract | None:
        try:
            return self._contracts.for_caller(contract, caller)
        except NotPartyError:
            return None

    # --- releases ---

    def release_rows(self, session: Session, caller: Member | Operator) -> list[Row[Any]]:
        """Rows of every release of the caller's contracts, oldest first, by time, model and tier."""
        rows = session.execute(
            select(release, run.c.recipe_digest, run.c.recipe_id, run.c.run_id)
            .join(model, model.c.digest == release.c.model)
            .join(run, run.c.run_id == model.c.run_id)
            .order_by(release.c.at_ms, release.c.model, release.c.tier)
        ).all()
        return self._of_caller(rows, caller)

    def releases(
        self, session: Session, caller: Member | Operator, rows: Sequence[Row[Any]] | None = None
    ) -> list[dict[str, Json]]:
        """Releases of the caller's contracts, oldest first: these, or the newest."""
        if rows is None:
            rows = self.release_rows(session, caller)[-LIST_ROWS:]
        return [
            {
                "model": row.model,
                "tier": row.tier,
                "contract": row.contract,
                "recipe": row.recipe_digest,
                "recipe_id": row.recipe_id,
                "run": row.run_id,
                "statement": row.statement_digest,
                "at_ms": row.at_ms,
                "made_ms": made_ms(session, row.run_id),
            }
            for row in rows
        ]

    def statement(self, session: Session, name: str, caller: Member | Operator) -> bytes:
        """Bytes of a privacy statement that belongs to a release of the caller's contracts.

        Raises:
            NotPartyError: None.
        """
        contracts = session.scalars(
            select(release.c.contract).where(release.c.statement_digest == name)
        ).all()
        if not any(self._visible(one, caller) is not None for one in contracts):
            raise _no_model(name)
        data: bytes | None = session.scalar(select(statement.c.bytes).where(statement.c.digest == name))
        if data is None:
            raise _no_model(name)
        return data

    def report(self, session: Session, name: str, caller: Member | Operator) -> bytes:
        """Bytes of the evaluation report of a candidate of the caller's contracts, leak report included.

        Raises:
            NotPartyError: None.
        """
        of = log_entry.c.type == EntryType.CANDIDATE_EVALUATED.value
        scopes = {
            row.scope
            for row in session.execute(select(log_entry.c.scope, log_entry.c.body).where(of))
            if json.loads(row.body)["pub"]["report"] == name
        }
        if not any(self._visible(one, caller) is not None for one in scopes):
            raise _no_model(name)
        data: bytes | None = session.scalar(select(statement.c.bytes).where(statement.c.digest == name))
        if data is None:
            raise _no_model(name)
        return data

    def find_model(self, session: Session, name: str, member: Member) -> tuple[Contract, str, Path]:
        """Contract, recipe digest and file of a model of the member's contracts.

        Raises:
            NotPartyError: None.
        """
        row = session.execute(
            select(model.c.path, run.c.contract, run.c.recipe_digest)
            .join(run, run.c.run_id == model.c.run_id)
            .where(model.c.digest == name)
        ).first()
        contract = self._visible(row.contract, member) if row is not None else None
        if row is None or contract is None:
            raise _no_model(name)
        return contract, row.recipe_digest, Path(row.path)

    def checked(self, path: Path, name: str) -> Path:
        """The file, once its bytes still hash to the model's digest.

        Raises:
            InvariantError: They do not: nothing is sent.
        """
        with path.open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        invariant(found == name, "a model file that holds the model of its digest")
        return path

    def deliver(self, session: Session, tx: LogTx, *, name: str, member: Member, request: str) -> Delivered:
        """Judges one download and writes down what came out.

        The tiers of the model's recipe are tried in the contract's order, released ones first; the first
        that allows is taken. If none does, the refusal is the one of the first.

        Raises:
            NotPartyError: No such model in the member's contracts.
        """
        contract, recipe, path = self.find_model(session, name, member)
        released = released_ms(session, versions(session, contract.digest), name)
        state = self._contracts.state(contract, session)
        known = self._known(session, contract, member, name=name, recipe=recipe)
        judged: list[tuple[str, Judgement]] = []
        for tier in _tiers(contract, recipe, set(released)):
            at_ms = released.get(tier)
            asked = replace(
                known,
                tier=tier,
                released=at_ms is not None,
                released_at=None if at_ms is None else iso_s(at_ms),
            )
            found = judge(contract, point="gate", request=asked, state=state, entropy=self._entropy)
            judged.append((tier, found))
        tier, chosen = next((one for one in judged if one[1].allow), judged[0])
        ref = chosen.record(session, tx)
        try:
            chosen.decision.require()
        except RefusedError as error:
            return Delivered(path=path, tier=tier, refusal=error)
        tx.add(
            Event(
                type=EntryType.MODEL_EXPORTED,
                scope=contract.digest,
                refs=(ref,),
                pub={
                    "model": name,
                    "recipient": alias(member.alias_key, contract.digest, None, None),
                    "tier": tier,
                    "attestation": None if known.attestation == NO_ATTESTATION else known.attestation,
                    "request": request,
                },
            )
        )
        return Delivered(path=path, tier=tier, refusal=None)

    def _known(
        self, session: Session, contract: Contract, member: Member, *, name: str, recipe: str
    ) -> Deliver:
        """What is on record about a download, whatever the tier."""
        party = self._contracts.party_of(contract, member).party
        run_id = run_of(session, name)
        at_ms = made_ms(session, run_id) if run_id is not None else None
        said = self._contracts.life(contract, session).attested.get(party)
        return Deliver(
            party=party,
            key=key_text(member.key),
            model=name,
            recipe_digest=recipe,
            tier=None,
            released=None,
            released_at=None,
            made_at=None if at_ms is None else iso_s(at_ms),
            country=member.country,
            attestation=NO_ATTESTATION if said is None else said.notice,
            contribution_share=None,
        )


def _tiers(contract: Contract, recipe: str, released: set[str]) -> list[str]:
    """Tiers of a recipe, released ones first; never empty, so that there always is a decision."""
    clause = contract.recipe(recipe)
    names = [
        one.tier
        for one in contract.tiers
        if clause is not None and one.recipe == clause.id and one.tier != PRIVATE
    ]
    return sorted(names, key=lambda name: name not in released) or ["consortium"]


def _no_model(name: str) -> NotPartyError:
    return NotPartyError(
        need="a model of one of your contracts",
        found=ascii(name)[1:-1][:80],
        remedy="models list shows yours",
    )
