# SPDX-License-Identifier: Apache-2.0
"""The order table: in which direction each field of each clause is tighter. Standard library only.

- Every field of every clause has a row; a test finds one that has none, which counts as looser till then.
- **Sound alone.** Where every change of a successor is ``tighter``, it allows no request that its predecessor
  refuses. A property test asks z3 about it.
- `ADDED` and `REMOVED` are for clauses that come or go as a whole: a grant that comes is looser, a bound that
  goes is looser.

    ORDER["privacy-cap"]["epsilon_total"].moves("4", "6")      # one Move: looser, "4 -> 6"
"""

from __future__ import annotations

from typing import Final

from policies.contract.amendment.order import Bound, Direction, Ladder, Members, Order, Other, Term

__all__ = ["ADDED", "OF_THE_DOCUMENT", "ORDER", "REMOVED"]

_CHANGED: Final = Other("changed")
_TEXT: Final = Other("text", judged=False)
_UNJUDGED: Final = Other("changed", judged=False)  # another thing is meant, and no request shows it
_DOWN: Final = Bound("down")
_UP: Final = Bound("up")
_SMALLER: Final = Members("smaller")
_LARGER: Final = Members("larger")
_POINTS: Final = Members("larger", judged=False)  # a point less is a check less


def _table(**fields: Order) -> dict[str, Order]:
    """A kind of clause; every one has an id and its points."""
    return {"clause": _CHANGED, "enforced_by": _POINTS, **fields}


# A clause below another one (per_party, trade_secret) is a kind of its own; an object that is no clause
# (approvals) has its fields in the row of the clause, behind a dot.
ORDER: Final[dict[str, dict[str, Order]]] = {
    "party": _table(
        party=_CHANGED,
        org=_UNJUDGED,
        role=_CHANGED,
        group=_CHANGED,
        legal_name=_TEXT,
        country=_UNJUDGED,
        key=_CHANGED,
    ),
    "term": _table(effective=Term("later"), expires=Term("earlier")),
    "purpose": _table(id=_CHANGED, text=_TEXT),
    "forbidden": _table(use=_TEXT, check=_CHANGED),
    "recipe": _table(
        id=_CHANGED,
        purpose=_CHANGED,
        recipe_digest=_CHANGED,
        max_rounds=_DOWN,
        max_local_steps_per_round=_DOWN,
        datasets=_SMALLER,
    ),
    "seed": _table(recipe=_CHANGED, seed_set=_CHANGED, donations=_CHANGED),
    "fields": _table(allow=_SMALLER, personal_data=_UNJUDGED),
    "secret": _table(party=_CHANGED, fields=_LARGER, basis=_TEXT),
    "privacy": _table(
        mode=_CHANGED,
        unit=_CHANGED,
        adjacency=_CHANGED,
        delta=_CHANGED,
        epsilon_per_release=_DOWN,
        epsilon_total=_DOWN,
        filter=_CHANGED,
        noise=_CHANGED,
        honest_min=_CHANGED,  # a plan fits one number only: another means another plan
        protected_properties=_LARGER,
        reply_slot_ms=_CHANGED,
    ),
    "privacy-cap": _table(party=_CHANGED, epsilon_per_release=_DOWN, epsilon_total=_DOWN),
    "aggregation": _table(
        min_parties=_UP,
        max_colluders=_UP,
        max_share=_DOWN,
        weights=_CHANGED,
        fixed_weights=_CHANGED,
        secure_aggregation=_CHANGED,
        update_norm_max=_DOWN,
        delay_hours=_UP,
        differencing_guard=Ladder(("all", "non-dp-outputs", "off")),
        group_mac=_CHANGED,
    ),
    "validation": _table(
        quorum=_UP,
        max_rejected_rounds=_DOWN,
        judge_episodes=_UNJUDGED,
        gain_clip=_UNJUDGED,
        max_judgings=_UNJUDGED,
        epsilon=Bound("down", judged=False),
    ),
    "queries": _table(allow=_SMALLER, min_groups=_UP),
    "tier": _table(
        tier=_CHANGED,
        recipe=_CHANGED,
        model=_UNJUDGED,
        recipients=Members("smaller", judged=False),
        licence=_TEXT,
        requires=_POINTS,
        embargo_days=_UP,
        min_contribution=_UP,
    ),
    "release": {
        **_table(evidence=_LARGER, max_mia_auc=_DOWN, max_property_skill=_DOWN),
        "approvals.of": _UNJUDGED,
        "approvals.min": _UP,
        "approvals.veto": _LARGER,
    },
    "exit": _table(
        notice_days=_UNJUDGED, released_models=_UNJUDGED, unreleased_models=_CHANGED, influence=_UNJUDGED
    ),
    "audit": _table(
        who=Members("larger", judged=False),
        access=_UNJUDGED,
        log_origin=_CHANGED,
        witness_quorum=_UP,
        ml_dsa=Ladder(("require", "accept", "off"), judged=False),
        notice_days=_UNJUDGED,
        raw_data=_UNJUDGED,
    ),
    "export": _table(classification=_UNJUDGED, embargoed=_LARGER, check=_UNJUDGED),
    "amendment": _table(
        change=_UNJUDGED,
        tighten=Ladder(("all-contributors", "any-contributor")),
        key_rotation=Ladder(("all-contributors", "by-old-key-or-all"), judged=False),
    ),
    "halt": _table(who=Members("larger", judged=False), effect=_UNJUDGED, resume=_UNJUDGED),
    "conflict": _table(rule=_UNJUDGED, unknown=_UNJUDGED),
    # what only people and courts keep
    "prose": _table(media_type=_TEXT, prevails=_TEXT, sha256=_TEXT),
    "derivatives": _table(
        fine_tune=Ladder(("forbidden", "internal", "any"), judged=False),
        distil=Ladder(("forbidden", "internal", "any"), judged=False),
        sublicense=Ladder(("none", "affiliates", "any"), judged=False),
        grant_back=_UNJUDGED,
    ),
    "retention": _table(
        updates_hours=Bound("down", judged=False),
        aggregates_days=Bound("down", judged=False),
        logs_years=Bound("up", judged=False),
        evidence=_UNJUDGED,
    ),
    "incentives": _table(
        method=_UNJUDGED,
        formula=_UNJUDGED,
        pool_eur_per_quarter=_UNJUDGED,
        floor=_UNJUDGED,
        cap=_UNJUDGED,
        disclose=_UNJUDGED,
        min_participation=_UNJUDGED,
        probe_share=_UNJUDGED,
        probe_window=_UNJUDGED,
        fingerprints=_UNJUDGED,
    ),
    "fees": _table(eur_per_quarter=_UNJUDGED, basis=_UNJUDGED, tied_services=_UNJUDGED),
    "liability": _table(cap_eur=_UNJUDGED, uncapped=_UNJUDGED, bears=_UNJUDGED),
    "law": _table(governing=_TEXT, forum=_TEXT, language=_TEXT),
    "contract": {
        "schema": _UNJUDGED,
        "contract_id": _UNJUDGED,
        "version": _UNJUDGED,
        "supersedes": _UNJUDGED,
        "title": _TEXT,
        "language": _TEXT,
        "sign_by": _UNJUDGED,
        "test_only": Ladder((False, True), judged=False),
    },
}
# What differs in every successor and compares with nothing: how a version is counted and until when it may be
# signed. `policies.contract.amendment` checks that they follow on.
OF_THE_DOCUMENT: Final = frozenset({"version", "supersedes", "sign_by"})

# A whole clause that comes or goes. A grant that comes is looser, a bound that goes is looser.
_GRANTS: Final = ("purpose", "recipe", "tier", "queries")
_BOUNDS: Final = ("forbidden", "secret", "privacy-cap", "validation", "audit", "export")
_PAPERS: Final = ("prose", "derivatives", "retention", "incentives", "fees", "liability", "law")
ADDED: Final[dict[str, Direction]] = {
    "party": "looser",
    "seed": "changed",
    **dict.fromkeys(_GRANTS, "looser"),
    **dict.fromkeys(_BOUNDS, "tighter"),
    **dict.fromkeys(_PAPERS, "text"),
}
REMOVED: Final[dict[str, Direction]] = {
    "party": "changed",
    "seed": "changed",
    **dict.fromkeys(_GRANTS, "tighter"),
    **dict.fromkeys(_BOUNDS, "looser"),
    **dict.fromkeys(_PAPERS, "text"),
}
