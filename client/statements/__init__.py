# SPDX-License-Identifier: Apache-2.0
"""Privacy statements at home: of a released model, signed by the broker; of this node's own run, by itself.

- ``statement show`` reads what `client.models.pull` kept, checks signature and figures again, offline, and
  shows it as sentences, as a page, or as the signed JSON.
- ``--own`` states this node's part with the figures of its ledger: how much of the data's life budget is
  spent. They are this owner's affair (other contracts show in them), so nothing sends them; a file is made
  for whoever the owner gives it to. Nothing is stated from a ledger that is lost, or an older copy than what
  the log was told (`client.budgets.reckoning`).
- What is shown marks this node among the contributors, which the signed document does not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short
from client.audits import kept
from client.audits.figures import conformance_facts
from client.budgets import Budgets
from client.budgets.reckoning import require_known
from client.errors import NoSuchThingError
from client.membership import alias_key
from client.models import STATEMENT_TYPE, model_folder, read_model
from client.settings import write_durably
from client.statements.html import html_page
from policies.contract.thresholds import smallest_sum
from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import alias
from policies.privacy.statement import (
    Subject,
    Terms,
    build_statement,
    check_statement,
    claim,
    statement_bytes,
)
from policies.privacy.statement_words import Beside, page
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

if TYPE_CHECKING:
    from pathlib import Path

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["statement_show"]

Json = dict[str, Any]


def statement_show(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    model: str | None,
    *,
    own: bool = False,
    lang: str = "en",
    html: Path | None = None,
    out: Path | None = None,
) -> Answer:
    """The statement of a pulled model, the newest if none is named.

    Args:
        member: This node.
        shelf: Its contracts.
        outbox: Knows what its ledgers must hold.
        model: Digest of the model.
        own: This node's own part, signed by it, with its ledger's figures.
        lang: ``en`` or ``ja``.
        html: File for a page that a browser shows; its folder is there.
        out: File for the signed JSON (DSSE); likewise.

    Raises:
        NoSuchThingError: The model was not pulled, or the folder of a file is missing.
        BudgetUnknownError: ``own``, and a ledger is lost or does not verify.
        BudgetDivergedError: ``own``, and a ledger is an older copy.
        SignatureInvalidError: The statement is not the broker's.
        StatementError: A figure does not follow from its plan.
    """
    _check_folders(html, out)
    facts, _ = read_model(member.home, model or _newest(member.home))
    envelope = _own(member, shelf, outbox, facts) if own else _kept(member, facts)
    signer = member.identity.key.public if own else member.broker.key
    document = envelope.open_as(STATEMENT_TYPE, signer)
    check_statement(document)
    data, beside = envelope.to_bytes(), _beside(member, shelf, facts, own=own)
    files = {}
    if html is not None:
        write_durably(html, html_page(document, lang=lang, beside=beside).encode())
        files["html"] = str(html)
    if out is not None:
        write_durably(out, data)
        files["out"] = str(out)
    return Answer(
        data={
            "statement": document,
            "digest": digest(data),
            "signed_by": "node" if own else "broker",
            **files,
        },
        text=(*_lines(document, lang, beside), *(f"written {name}: {path}" for name, path in files.items())),
    )


def _check_folders(*files: Path | None) -> None:
    for one in files:
        if one is not None and (not one.parent.is_dir() or one.is_dir()):
            raise NoSuchThingError(
                need="a file in a folder that is there",
                found=str(one),
                remedy="make the folder, or name another",
            )


def _beside(member: Member, shelf: ContractShelf, facts: Json, *, own: bool) -> Beside:
    """What this node knows beside a statement: which contributor it is itself."""
    try:
        held = shelf.get(facts["contract"])
    except IriaiError:  # a model that came without its contract: only the document is shown
        return Beside(own=own)
    party, key = held.party.party, alias_key(member.home)
    names = {party} if own else set()
    if key is not None and not own:
        names.add(alias(key, facts["contract"], facts["run"], None))
    return Beside(own=own, party=party, names=frozenset(names))


def _newest(home: Home) -> str:
    """Digest of the model that was pulled last."""
    found = []
    for file in home.models.glob("*/model.json"):
        if not file.parent.name.startswith("individual-"):
            facts = json.loads(file.read_bytes())
            found.append((facts["pulled_ms"], facts["model"]))
    if not found:
        raise NoSuchThingError(
            need="a model that is here", found="none", remedy="iriai-node models list, then models pull MODEL"
        )
    return str(max(found)[1])


def _kept(member: Member, facts: Json) -> Envelope:
    """What the broker signed, as it was pulled."""
    file = model_folder(member.home, facts["model"]) / "statement.dsse"
    if not file.exists() or digest(data := file.read_bytes()) != facts["statement"]:
        raise NoSuchThingError(
            need=f"the statement {short(facts['statement'])} as it was pulled",
            found="another file" if file.exists() else "none",
            remedy=f"iriai-node models pull {facts['model']}",
        )
    return Envelope.from_bytes(data)


def _lines(document: Json, lang: str, beside: Beside) -> list[str]:
    lines = []
    for heading, sentences in page(document, lang=lang, beside=beside):
        lines += ["", heading, *(f"  {sentence}" for sentence in sentences)]
    return lines[1:]


# --- this node's own part ---


def _own(member: Member, shelf: ContractShelf, outbox: Outbox, facts: Json) -> Envelope:
    """This node's part in the run of a model, stated by itself."""
    contract = shelf.get(facts["contract"])
    recipe = shelf.recipe(facts["contract"], facts["recipe"])
    plan = recipe.plan
    row = claim(contract.party.party, None)
    if plan is not None:
        summed = smallest_sum(contract.contract, recipe.digest, plan.honest_min)
        row = claim(
            contract.party.party,
            plan.document,
            summed=summed,
            lifetime=_lifetime(member, outbox, facts["run"]),
            audit=_audit(member.home, recipe),
        )
    privacy, start = contract.contract.privacy, recipe.start
    document = build_statement(
        subject=Subject(
            run=facts["run"], model=facts["model"], contract=facts["contract"], recipe=facts["recipe"]
        ),
        claims=[row],
        evaluation=recipe.evaluation.document,
        votes=votes_plan(contract.contract.validation, recipe.evaluation.document),
        # What was done: this node's gate lets an update leave in the contract's way and in no other.
        terms=Terms(
            secure_aggregation=contract.contract.aggregation.secure_aggregation,
            reply_slot_ms=privacy.reply_slot_ms or 0,
            seed_set=None if start is None else start.seed_set,
        ),
    )
    return Envelope.seal(statement_bytes(document), STATEMENT_TYPE, member.identity.key)


def _lifetime(member: Member, outbox: Outbox, run: str) -> Json | None:
    """The ledger's figures of the data that a run was charged to; None if the run charged nothing here."""
    budgets = Budgets(member.home, key=member.identity.key, clock=member.clock)
    try:
        require_known(budgets, outbox)
        stores = [budgets.find(stem) for stem in budgets.lineages()]
        store = next((one for one in stores if any(name == run for name, _ in one.state.holds)), None)
        return None if store is None else _figures(store)
    finally:
        budgets.close()


def _figures(store: BudgetStore) -> Json:
    figures = store.figures()
    return {
        "alpha_star": figures.order,
        "rho_spent_nano": figures.rho_spent_nano,
        "rho_max_nano": figures.rho_max_nano,
        "epsilon_filter": figures.epsilon_spent,
        "ledger_head": figures.ledger_head,
    } | ({"waived": sorted(store.state.waived)} if store.state.waived else {})


def _audit(home: Home, recipe: Recipe) -> Json | None:
    """What the newest conformance audit of a recipe found, by the software that is here."""
    report = kept(home, recipe)
    return None if report is None else conformance_facts(report)
