# SPDX-License-Identifier: Apache-2.0
"""A contract for the person who answers for it: own duties first, then what software keeps, then the rest.

`contract_show` works while the broker is away: everything that it says comes from this node's own files,
the budget from its own ledgers. Each sentence ends in the id of the clause that it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.answers import Answer
from client.budgets import Budgets, cap_of
from client.budgets.reckoning import require_known
from client.budgets.showing import budget_rows
from client.contract.reading import fetch, latest, resolve, standing_of
from client.contract.words import terms, word
from policies.contract import enforcement_map, plain_words
from policies.contract.render import LAW_ONLY
from policies.privacy.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from client.settings import Home
    from policies.contract.clauses import TierClause

__all__ = ["contract_show", "duties"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """One sentence about this party: its topic, the clause that it comes from, and the words."""

    topic: str
    clause: str
    words: str

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{self.words} [{self.clause}]"


def contract_show(
    home: Home,
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str | None,
    *,
    lang: str = "en",
) -> Answer:
    """The contract in plain words; see the module.

    Args:
        home: The node's folder, for its ledgers.
        member: Identity and the way to the broker, which may be away for a contract that is held here.
        shelf: Contracts of this node.
        outbox: What the log was told of spends: where a ledger is lost, nothing is said to be left.
        contract: A digest or its first 12 hex digits; the newest if left out.
        lang: ``en`` or ``ja``.
    """
    digest = resolve(member, shelf, contract) if contract else latest(member, shelf)
    held = fetch(member, shelf, digest)
    shelf.mark_shown(held.contract)
    rows, unknown = _spent(home, member, shelf, outbox, digest)
    own = duties(held, budgets=rows, lang=lang, unknown=unknown)
    standing = standing_of(shelf, held, member.clock.now_ms())
    points = {one.clause: one.label for one in enforcement_map(held.contract)}
    sentences = _sentences(held, lang)
    law = [line for clause, line in sentences if points[clause] == LAW_ONLY]
    kept = [line for clause, line in sentences if points[clause] != LAW_ONLY]
    return Answer(
        data={
            "digest": held.contract.digest,
            "contract_id": held.contract.contract_id,
            "version": held.contract.version,
            "supersedes": held.contract.supersedes,
            "title": held.contract.title,
            "party": held.party.party,
            "executed": held.is_executed,
            "standing": standing,
            "lang": lang,
            "budget_unknown": None if unknown is None else unknown.as_dict(),
            "duties": [{"topic": one.topic, "clause": one.clause, "words": one.words} for one in own],
            "clauses": [line for _, line in sentences],
            "law_only": law,
            "prose": _prose(shelf, held),
            "document": held.contract.document,
        },
        text=(
            *_head(held, standing, lang),
            "",
            word(lang, "duties"),
            *(f"  {one.line}" for one in own),
            *(f"  {line}" for line in _prose_lines(shelf, held, lang)),
            "",
            word(lang, "enforced"),
            *(f"  {line}" for line in kept),
            "",
            word(lang, "law"),
            *(f"  {line}" for line in law or ["-"]),
        ),
    )


def _spent(
    home: Home, member: Member, shelf: ContractShelf, outbox: Outbox, contract: str
) -> tuple[list[dict[str, Any]], BudgetError | None]:
    """What is spent under a contract; or why nobody knows, which does not hide the rest of the contract."""
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        require_known(budgets, outbox)
        return budget_rows(home, member, shelf, contract=contract), None
    except BudgetError as error:
        return [], error
    finally:
        budgets.close()


def _sentences(held: Held, lang: str) -> list[tuple[str, str]]:
    """Clause id and printed sentence, this party's own first."""
    words = plain_words(held.contract, held.party.party, lang=lang)
    return [(clause, f"[{clause}] {sentence}") for clause, sentence in words]


def _head(held: Held, standing: str, lang: str) -> Iterator[str]:
    contract = held.contract
    version = (
        word(lang, "version", version=contract.version)
        if contract.supersedes is None
        else word(lang, "supersedes", version=contract.version, digest=contract.supersedes)
    )
    state = word(lang, "signed-by-all" if held.is_executed else "not-signed-by-all")
    yield f"{word(lang, 'contract')}  {contract.digest}"
    yield f"{word(lang, 'title')}  {contract.title} ({version})"
    yield f"{word(lang, 'state')}  {standing}, {state}"
    yield f"{word(lang, 'you-are')}  {held.party.party} ({held.party.role}, {held.party.group})"


def duties(
    held: Held, *, budgets: list[dict[str, Any]], lang: str, unknown: BudgetError | None = None
) -> list[Duty]:
    """What a contract means for this party: data sets, fields, caps and what is left, models, the way out."""
    return [
        *_training(held, lang),
        *_fields(held, lang),
        *_caps(held, budgets, lang, unknown),
        *(_tier(held, one, lang) for one in held.contract.tiers),
        *_ways_out(held, lang),
    ]


def _training(held: Held, lang: str) -> Iterator[Duty]:
    party, found = held.party.party, False
    for one in held.contract.recipes:
        names = one.datasets_of(party)
        if names:
            found = True
            words = word(
                lang,
                "trains",
                recipe=one.id,
                datasets=", ".join(names),
                purpose=one.purpose,
                rounds=one.max_rounds,
                steps=one.max_local_steps_per_round,
            )
            yield Duty(topic="trains", clause=one.clause, words=words)
    if not found:
        yield Duty(topic="trains", clause=held.party.clause, words=word(lang, "trains-nothing"))


def _fields(held: Held, lang: str) -> Iterator[Duty]:
    fields = held.contract.fields
    words = word(lang, "fields", fields=", ".join(fields.allow))
    yield Duty(topic="fields", clause=fields.clause, words=words)
    for one in fields.trade_secret:
        if one.party == held.party.party:
            words = word(lang, "secret", fields=", ".join(one.fields))
            yield Duty(topic="fields", clause=one.clause, words=words)


def _caps(
    held: Held, budgets: list[dict[str, Any]], lang: str, unknown: BudgetError | None
) -> Iterator[Duty]:
    caps = held.contract.caps(held.party.party)
    if caps is None:
        clause = held.contract.privacy.clause
        yield Duty(topic="budget", clause=clause, words=word(lang, "no-caps"))
        return
    words = word(
        lang,
        "caps",
        release=caps.epsilon_per_release,
        release_clause=caps.release_clause,
        total=caps.epsilon_total,
        delta=caps.delta,
    )
    yield Duty(topic="budget", clause=caps.total_clause, words=words)
    if unknown is not None:
        words = word(lang, "left-unknown", code=unknown.code, found=unknown.found, remedy=unknown.remedy)
        yield Duty(topic="left", clause=caps.total_clause, words=words)
        return
    cap = cap_of(held.contract, held.party.party)
    spent = [one for one in budgets if cap is not None and one["scope"] == cap.scope]
    if not spent:
        yield Duty(topic="left", clause=caps.total_clause, words=word(lang, "untouched"))
    for one in spent:
        yield Duty(topic="left", clause=caps.total_clause, words=_left(one, lang))


def _left(row: dict[str, Any], lang: str) -> str:
    """Epsilons do not add, so what is left is a share of the sums that do: those of the ledger's order."""
    left = row["rho_max_nano"] - row["rho_spent_nano"] - row["rho_held_nano"]
    percent = max(0, 100 * left // row["rho_max_nano"]) if row["rho_max_nano"] else 0
    return word(
        lang,
        "left",
        percent=percent,
        spent=row["epsilon_spent"],
        held=row["epsilon_total"],
        cap=row["epsilon_max"],
    )


def _tier(held: Held, tier: TierClause, lang: str) -> Duty:
    if tier.tier == "private":
        return Duty(topic="receives", clause=tier.clause, words=word(lang, "stays", model=tier.model))
    when = word(lang, "when", requires=", ".join(tier.requires)) if tier.requires else ""
    if tier.embargo_days is not None:
        when += word(lang, "embargo", days=tier.embargo_days)
    if tier.min_contribution is not None:
        when += word(lang, "min-share", share=tier.min_contribution)
    to_you = word(lang, "you-too") if _receives(held, tier) else ""
    words = word(
        lang,
        "receives",
        model=tier.model,
        recipients=terms(lang, tier.recipients) + to_you,
        tier=tier.tier,
        licence=tier.licence,
        when=when,
    )
    return Duty(topic="receives", clause=tier.clause, words=words)


def _receives(held: Held, tier: TierClause) -> bool:
    """Whether this party is among the recipients, leaving conditions aside."""
    if "public" in tier.recipients:
        return True
    if "contributors" in tier.recipients and held.party.role == "contributor":
        return True
    takes_part = any(
        held.party.party in one.participants for one in held.contract.recipes if one.id == tier.recipe
    )
    return "recipe-participants" in tier.recipients and takes_part


def _ways_out(held: Held, lang: str) -> Iterator[Duty]:
    leave, halt = held.contract.exit, held.contract.halt
    words = word(lang, "exit", days=leave.notice_days, choice=terms(lang, [leave.unreleased_models]))
    yield Duty(topic="exit", clause=leave.clause, words=words)
    yield Duty(topic="halt", clause=halt.clause, words=word(lang, "halt", who=terms(lang, halt.who)))


def _prose(shelf: ContractShelf, held: Held) -> dict[str, Any] | None:
    path = shelf.prose_file(held.contract)
    if held.contract.prose is None or path is None:
        return None
    return {"sha256": held.contract.prose.sha256, "file": str(path) if path.exists() else None}


def _prose_lines(shelf: ContractShelf, held: Held, lang: str) -> Iterator[str]:
    found = _prose(shelf, held)
    if found is not None and held.contract.prose is not None:
        key = "prose-here" if found["file"] else "prose-away"
        words = word(lang, key, path=found["file"], sha256=found["sha256"])
        yield f"{words} [{held.contract.prose.clause}]"
