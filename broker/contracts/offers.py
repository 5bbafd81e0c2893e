# SPDX-License-Identifier: Apache-2.0
"""Texts on their way into a negotiation: read once, strictly; stored as their canonical bytes.

- An offer of the operators and a counter-offer of a contributor are read by the same rules.
- The recipes travel as annexes; their bytes hash to the digests in the contract, or nothing is stored. So
  does the text for people, where it is sent.
- So do the seed sets that recipes start from, the donors' consents and the start models
  (`policies.contract.starts`): all of them are there and say the same, or nobody is offered the text.
- Contributors are active members with exactly the pinned key, organisation, name, country and group; the
  broker's key is ours, and so is the log that an audit clause names.
- What is enrolled is told to operators only: who drafts guesses nobody's name or group by our refusals.
- A text with a lint error is not put to anybody; its warnings travel with it.

    proposal = offers.read(text, recipes=[...], prose=None)       # pure, before any transaction
    offers.keep(session, proposal, at_ms=tx.now_ms)               # the bytes; the same text again is fine
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from broker.contracts.errors import AnnexMismatchError, AnnexMissingError, LintError, PartyMismatchError
from broker.contracts.service import OFFERED, OPEN_DATA, PROSE
from broker.store.tables import contract_annex, contract_document
from broker.store.upserts import insert_or_ignore, insert_or_update
from policies.contract import Contract, load
from policies.contract.lint import LintFinding, lint
from policies.contract.negotiation.pool import Draft
from policies.contract.starts import check_said, check_starts, named_annexes
from policies.encoding import digest
from policies.errors import IriaiError
from policies.identity import SigningKey, key_text, parse_key
from policies.ports import to_ms
from policies.recipe import load as load_recipe
from policies.robustness.held_out import check_held_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.membership.directory import Directory
    from broker.store import Session
    from policies.contract.clauses import PartyClause

__all__ = ["Offers", "Proposal", "draft_of", "warnings_of"]

_NOTHING: Final[Mapping[str, bytes]] = MappingProxyType({})
_NO_KEYS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A text that may be put to its contributors.

    Attributes:
        contract: The text.
        recipes: Bytes of its recipes, by digest.
        prose: Bytes of the text for people, or None.
        opens: Bytes of seed sets, consents and start models, by digest.
    """

    contract: Contract
    recipes: Mapping[str, bytes]
    prose: bytes | None
    opens: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def draft(self) -> Draft:
        """What the negotiation needs to know about it."""
        return draft_of(self.contract)


def warnings_of(contract: Contract) -> tuple[LintFinding, ...]:
    """Findings of the linter that a signature must acknowledge."""
    return tuple(one for one in lint(contract) if one.severity != "error")


def draft_of(contract: Contract) -> Draft:
    """A text as the negotiation sees it."""
    return Draft(
        digest=contract.digest,
        sign_by_ms=to_ms(contract.sign_by),
        parties={one.party: one.key for one in contract.contributors},
        warnings=tuple(sorted({one.id for one in warnings_of(contract)})),
    )


class Offers:
    """The service; see the module."""

    def __init__(self, *, directory: Directory, broker_key: SigningKey, origin: str) -> None:
        self._directory = directory
        self._key = broker_key
        self._origin = origin

    def read(
        self,
        text: str,
        *,
        recipes: Iterable[bytes],
        prose: bytes | None,
        annexes: Iterable[bytes] = (),
        held: Mapping[str, bytes] = _NOTHING,
        present: Mapping[str, str] = _NO_KEYS,
        full: bool = False,
    ) -> Proposal:
        """The text as it would be stored.

        1. the language, strictly; 2. the broker's key and the log are ours; 3. each contributor is the member
           that it says; 4. each recipe is one of the contract, byte for byte, none is missing, and each
           starts from what the contract says, and what it asks of held-out episodes can be paid for by
           every site; 5. the prose is the one that the contract binds; 6. no lint
           error.

        Args:
            text: YAML or canonical JSON.
            recipes: Bytes that were sent along.
            prose: The text for people, or None.
            annexes: Seed sets, consents and start models that were sent along.
            held: Recipes and annexes that were sent before, by digest; they need not be sent again.
            present: Keys in force by the pinned ones that they replaced: a tightening pins what its
                predecessor does.
            full: Whether a refusal tells what is enrolled: to operators. A member is told the field only.

        Raises:
            ContractError: Step 1.
            PartyMismatchError: Steps 2 and 3, naming the clause.
            AnnexMismatchError, AnnexMissingError: Steps 4 and 5.
            ContractInvalidError, SeedError: Step 4, what a recipe starts from or asks of held-out episodes;
                the clause is named.
            IriaiError: Step 4, the recipe itself is not sound.
            LintError: Step 6.
        """
        # 1.
        contract = load(text)
        # 2.
        ours = key_text(self._key.public)
        if contract.broker.key != ours:
            raise _mismatch(contract.broker, f"this broker's key {ours}", contract.broker.key)
        self._check_log(contract)
        # 3.
        for party in contract.contributors:
            self._check_contributor(party, present.get(party.key, party.key), full=full)
        # 4.
        found = _recipes_of(contract, recipes, held)
        opens = _opens_of(contract, found, annexes, held)
        # 5.
        _check_prose(contract, prose)
        # 6.
        _check_lint(contract)
        return Proposal(contract=contract, recipes=found, prose=prose, opens=opens)

    def _check_log(self, contract: Contract) -> None:
        """A contract that names another log would refuse every average and release, once it is signed."""
        clause = contract.audit
        if clause is not None and clause.log_origin != self._origin:
            raise PartyMismatchError(
                need=f"this broker's log: log_origin {self._origin}",
                found=clause.log_origin,
                remedy="write log_origin as `iriai-broker status` shows it",
                clause=clause.clause,
            )

    def left(self, contract: Contract) -> PartyMismatchError | None:
        """Who is not the member any more that the contract pins."""
        for party in contract.contributors:
            try:
                self._check_contributor(party, party.key)
            except PartyMismatchError as error:
                return error
        return None

    def _check_contributor(self, party: PartyClause, key: str, *, full: bool = False) -> None:
        try:
            member = self._directory.active_by_key(parse_key(key))
        except IriaiError as error:
            need, found = "the key of an active member", "another key"
            if full:
                holder = self._directory.of_org(party.org)
                need += f"; {holder.org} has {key_text(holder.key)}" if holder and holder.active else ""
                found = party.key
            raise _mismatch(party, need, found) from error
        for name, pinned, enrolled in (
            ("org", party.org, member.org),
            ("group", party.group, member.group),
            ("legal_name", party.legal_name, member.legal_name),
            ("country", party.country, member.country),
        ):
            if pinned != enrolled:
                need = f"{name} {enrolled}, as enrolled" if full else f"{name} as enrolled"
                raise _mismatch(party, need, pinned)

    def keep(self, session: Session, proposal: Proposal, *, at_ms: int) -> None:
        """Stores the text and its annexes; a text that was here before is offered again."""
        contract = proposal.contract
        row = {
            "digest": contract.digest,
            "bytes": contract.canonical,
            "contract_id": contract.contract_id,
            "version": contract.version,
            "supersedes": contract.supersedes,
            "state": OFFERED,
            "at_ms": at_ms,
        }
        insert_or_update(session, contract_document, row)
        annexes = {**proposal.recipes, **({} if proposal.prose is None else {PROSE: proposal.prose})}
        annexes |= {OPEN_DATA + name: data for name, data in proposal.opens.items()}
        for name, data in sorted(annexes.items()):
            insert_or_ignore(
                session, contract_annex, {"contract": contract.digest, "sha256": name, "bytes": data}
            )


def _recipes_of(contract: Contract, sent: Iterable[bytes], held: Mapping[str, bytes]) -> dict[str, bytes]:
    by_digest = {digest(data): data for data in sent}
    named = {one.recipe_digest: one for one in contract.recipes}
    for found, data in by_digest.items():
        if found not in named:
            raise AnnexMismatchError(
                need="recipes with the digests " + ", ".join(sorted(named)),
                found=found,
                remedy="send the recipe files that the contract was written for, unchanged",
            )
        load_recipe(data)
    whole = {**{name: data for name, data in held.items() if name in named}, **by_digest}
    for wanted, recipe in named.items():
        if wanted not in whole:
            raise AnnexMissingError(
                need=f"the bytes of recipe {recipe.id} ({wanted})",
                found="none",
                remedy="send each recipe file along",
                clause=recipe.clause,
            )
    return whole


def _opens_of(
    contract: Contract, recipes: Mapping[str, bytes], sent: Iterable[bytes], held: Mapping[str, bytes]
) -> dict[str, bytes]:
    """What the recipes start from, once it is all there and holds."""
    loaded = {name: load_recipe(data) for name, data in recipes.items()}
    named, by_digest = named_annexes(contract, loaded), {digest(data): data for data in sent}
    strangers = sorted(set(by_digest) - set(named))
    if strangers:
        raise AnnexMismatchError(
            need="annexes that a seed clause or a recipe's start names: " + (", ".join(named) or "none"),
            found=", ".join(strangers)[:200],
            remedy="send the files that iriai-node seed join and seed fit wrote, unchanged",
        )
    check_said(contract, loaded)
    whole = {**{name: data for name, data in held.items() if name in named}, **by_digest}
    for name, wanted in named.items():
        if name not in whole:
            raise AnnexMissingError(
                need=f"{wanted.what} ({name})",
                found="none",
                remedy="send the file along: iriai-broker contract offer --annex FILE",
                clause=wanted.clause,
            )
    check_starts(contract, loaded, whole)
    check_held_out(contract, loaded)
    return whole


def _check_prose(contract: Contract, data: bytes | None) -> None:
    if data is None:
        return
    bound = contract.prose
    if bound is None or digest(data) != f"sha256:{bound.sha256}":
        raise AnnexMismatchError(
            clause=bound.clause if bound is not None else None,
            need="no text for people" if bound is None else f"the text with sha256 {bound.sha256}",
            found=digest(data),
            remedy="send the file that the contract binds, unchanged, or none",
        )


def _check_lint(contract: Contract) -> None:
    errors = [one for one in lint(contract) if one.severity == "error"]
    if errors:
        first = errors[0]
        others = ", ".join(one.id for one in errors[1:])
        raise LintError(
            clause=first.clause,
            need=f"{first.rule}: {first.need}",
            found=f"{first.found}" + (f"; also {others}" if others else ""),
            remedy=first.remedy,
        )


def _mismatch(party: PartyClause, need: str, found: str) -> PartyMismatchError:
    return PartyMismatchError(
        need=need,
        found=found[:200],
        remedy="write the parties as `iriai-broker org list` shows them",
        clause=party.clause,
    )
