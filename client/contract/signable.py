# SPDX-License-Identifier: Apache-2.0
"""May this node sign a contract at all, whatever its owner says? Asked before a person is, and later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.answers import short
from client.contract.reading import known_of
from client.contract.succession import check_opening, predecessor
from client.errors import BrokerKeyError, NotSignedError, StaleOfferError
from policies.contract.starts import check_starts
from policies.identity import fingerprint, key_text, parse_key
from policies.ports import iso_s
from policies.recipe import load as load_recipe
from policies.robustness.held_out import check_held_out
from policies.secagg.agreed import agreed_terms
from policies.secagg.noise_room import check_noise_room

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from policies.contract import Contract

__all__ = ["check_before_signing"]


def check_before_signing(
    member: Member,
    shelf: ContractShelf,
    held: Held,
    annexes: Mapping[str, bytes] | None = None,
    opens: Mapping[str, bytes] | None = None,
) -> None:
    """Refuses what must not be signed. Asked before a person is, and again before VERIFIED is sent.

    ``annexes`` are the recipes of a text that is not on the shelf, by digest; ``opens`` what they start from.

    1. the broker is the one that this node joined, and so is the log that an audit clause names;
    2. this node's key is pinned for its own organisation, as a contributor;
    3. every recipe is here, reads allowed fields only, and starts from what the contract says: seed set,
       consents and start model are here and hold; what it asks of held-out episodes can be paid for; its
       noise shares fit the sums;
    4. ``sign_by`` is not over;
    5. no version of the contract that is as new, or newer, rules already;
    6. the version that rules lets this successor be opened.

    Raises:
        BrokerKeyError: Step 1.
        NotSignedError: Steps 1 to 4.
        ContractInvalidError, SeedError: Step 3: what a recipe starts from, or asks of held-out episodes; the
            clause is named.
        SharesUnfitError: Step 3: noise shares beyond what a sum has room for; the clause is named.
        NoSuchThingError, DigestMismatchError: Step 3: a recipe is missing or differs.
        StaleOfferError: Step 5.
        RefusedError: Step 6; the clause is named.
    """
    contract, party = held.contract, held.party
    # 1.
    if contract.broker.key != key_text(member.broker.key):
        raise BrokerKeyError(
            need=f"the broker that this node joined, {fingerprint(member.broker.key)}",
            found=fingerprint(parse_key(contract.broker.key)),
            remedy="do not sign; ask who drafted it",
            clause=contract.broker.clause,
        )
    audit = contract.audit
    if audit is not None and audit.log_origin != member.broker.origin:
        raise NotSignedError(
            need=f"the log that this node follows: log_origin {member.broker.origin}",
            found=audit.log_origin,
            remedy="do not sign: nothing under it would ever be averaged or released; ask for another text",
            clause=audit.clause,
        )
    # 2.
    if party.org != member.identity.org or party.role != "contributor":
        raise NotSignedError(
            need=f"this node's key pinned for contributor {member.identity.org}",
            found=f"{party.role} {party.org}",
            remedy="do not sign; ask for a corrected offer",
            clause=party.clause,
        )
    # 3.
    recipes = {}
    for one in contract.recipes:
        recipe = recipes[one.recipe_digest] = (
            shelf.recipe(contract.digest, one.recipe_digest)
            if annexes is None
            else load_recipe(annexes[one.recipe_digest])
        )
        strangers = sorted(set(recipe.fields) - set(contract.fields.allow))
        if strangers:
            raise NotSignedError(
                need="recipes that read allowed fields only",
                found=", ".join(strangers),
                remedy=f"do not sign: {contract.fields.clause} and recipe {one.id} contradict each other",
                clause=contract.fields.clause,
            )
    check_starts(contract, recipes, shelf.annexes(contract.digest) if opens is None else opens)
    check_held_out(contract, recipes)
    if contract.aggregation.secure_aggregation == "required":
        for recipe in recipes.values():
            check_noise_room(recipe.plan, agreed_terms(contract, recipe.canonical, run=""))
    # 4.
    if iso_s(member.clock.now_ms()) >= contract.sign_by:
        raise NotSignedError(
            need=f"a signature before {contract.sign_by}", found="a later time", remedy="ask for a new offer"
        )
    # 5.
    check_not_stale(shelf, contract)
    # 6.
    ruling = predecessor(shelf, contract)
    if ruling is not None:
        check_opening(ruling.contract, contract, *known_of(member, shelf, ruling))


def check_not_stale(shelf: ContractShelf, contract: Contract) -> None:
    """Refuses an offer that is older than what rules, or that names another predecessor than what rules.

    Raises:
        StaleOfferError: It is.
    """
    ruling = shelf.in_force(contract.contract_id)
    if ruling is None or ruling.contract.digest == contract.digest:
        return
    newest = ruling.contract
    if contract.version <= newest.version:
        raise StaleOfferError(
            need=f"a version after {newest.version}, which all signed ({short(newest.digest)})",
            found=f"version {contract.version}",
            remedy="do not sign; load it again, and if the broker repeats it, halt and report it",
        )
    if contract.version != newest.version + 1 or contract.supersedes != newest.digest:
        raise StaleOfferError(
            need=f"version {newest.version + 1}, which supersedes {newest.digest}",
            found=f"version {contract.version}, which supersedes {contract.supersedes}",
            remedy="do not sign; ask for a successor of the version that rules",
        )
