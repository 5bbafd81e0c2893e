# SPDX-License-Identifier: Apache-2.0
"""Two texts of a contract side by side: what is tighter, looser, new, gone, and a concrete case of it.

- The order of the terms answers alone where it can. Where it cannot, the prover looks for a request that the
  new text allows and the old one refuses (`broker.contracts.proofs`); the page comes back until it is found.
- A person of a member compares texts that its organisation is a party of, and reads first what touches it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from broker.console.operator.texts import PARTIES, contract_rows, spoken_in, whole_digest
from broker.console.screens import Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Name,
    Nothing,
    State,
    T,
    Value,
)
from broker.membership.directory import Member
from policies.contract.amendment import Verdict, diff, for_party, no_looser_by_order, proves
from policies.contract.amendment.changes import DOCUMENT
from policies.contract.render import value_words
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.console.viewing import View
    from policies.contract import Contract
    from policies.contract.amendment import Change

__all__ = ["changes_table", "room"]

room = Room("comparison")
_OFFERED: Final = 100
_CHARS: Final = 400
_SOON_S: Final = 2
Known: TypeAlias = Literal["order", "no-prover"] | Verdict | IriaiError | None
"""Yes by the order alone; no prover is here; what the prover found, or why not; None: come back."""


@room.screen(
    "/console/compare",
    name="compare",
    title=T("Compare contracts"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker contract diff OLD NEW --dir DIR --key FILE",
    nav=True,
)
def compare(view: View) -> Screen:
    """What changes from one text to another."""
    names = [view.query.get(one, "") for one in ("old", "new")]
    if not all(names):
        return Screen(panels=(_choice(view, *names),))
    old, new = (view.services.contracts.get(whole_digest(view, one)) for one in names)
    changes = diff(old, new)
    party = _party_in(view, old, new)
    if party is not None:
        changes = for_party(changes, party)
    found = _verdict(view, old, new)
    panels = [
        _answer(old, new, changes, found),
        Panel(
            name="changes",
            title=T("Clause by clause"),
            table=changes_table([one.to_json() for one in changes]),
        ),
        _cases(view, old, new, found),
        _choice(view, *names),
    ]
    return Screen(
        panels=panels,
        title=T("Version {old} and version {new}", old=Count(old.version), new=Count(new.version)),
        trail=((T("Contracts"), "/console/contracts"),),
        command=f"iriai-broker contract diff {old.digest} {new.digest} --dir DIR --key FILE",
        refresh_s=_SOON_S if found is None else 0,
    )


def _party_in(view: View, *texts: Contract) -> str | None:
    """Short name of the reader's organisation, if it is the same in both."""
    member = view.party
    if not isinstance(member, Member):
        return None
    names = {view.services.contracts.party_of(one, member).party for one in texts}
    return names.pop() if len(names) == 1 else None


def _verdict(view: View, old: Contract, new: Contract) -> Known:
    """What is known; see `Known`."""
    if no_looser_by_order(old, new):
        return "order"
    return view.services.proofs.find(old, new) if proves() else "no-prover"


def _answer(
    old: Contract,
    new: Contract,
    changes: tuple[Change, ...],
    found: Known,
) -> Panel:
    counts = {word: sum(one.direction == word for one in changes) for word in ("looser", "tighter")}
    whole = [one for one in changes if not one.field]
    sure = found == "order" or (isinstance(found, Verdict) and found.no_looser)
    open_yet = found is None or found == "no-prover" or isinstance(found, IriaiError)
    word = "yes" if sure else "unknown" if open_yet else "no"
    basis = Nothing() if open_yet else Code("order" if found == "order" else "proof")
    return Panel(
        name="answer",
        title=T("What changes if it is signed"),
        prose=tuple(_said(changes, found)),
        facts=(
            Fact("old", T("Before"), Link(Digest(old.digest), f"/console/contracts/{old.digest}")),
            Fact(
                "new",
                T("After"),
                Link(Digest(new.digest), f"/console/contracts/{new.digest} --dir DIR --key FILE"),
            ),
            Fact("no_looser", T("Allows nothing more"), State(word)),
            Fact("basis", T("Basis"), basis),
            Fact("looser", T("Looser"), Count(counts["looser"])),
            Fact("tighter", T("Tighter"), Count(counts["tighter"])),
            Fact("added", T("New clauses"), Count(sum(one.before is None for one in whole))),
            Fact("gone", T("Clauses that are gone"), Count(sum(one.after is None for one in whole))),
        ),
        error=found if isinstance(found, IriaiError) else None,
    )


def _said(changes: tuple[Change, ...], found: Known) -> Iterator[Value]:
    if not changes:
        yield T("Nothing: the two texts say the same.")
    elif found == "order":
        yield T("Nothing that the old text refuses is allowed by the new one; every change is tighter.")
    elif found is None:
        yield T("The order of the terms does not tell. A case is being looked for; this page comes back.")
    elif found == "no-prover":
        yield T("The order of the terms does not tell, and no prover is installed here (iriai[prove]).")
    elif isinstance(found, IriaiError):
        yield T("The order of the terms does not tell, and the search for a case failed.")
    elif found.no_looser:
        yield T("Nothing more is allowed: it is proven that no request is, though a term alone is looser.")
    else:
        yield T("Something is allowed by the new text that the old one refuses, or may be.")


def changes_table(changes: list[dict[str, Any]]) -> Table:
    """The differences of two texts, as `policies.contract.amendment.changes` tells them."""
    rows: list[Mapping[str, Value]] = [
        {
            "clause": T("the document") if one["clause"] == DOCUMENT else Code(one["clause"]),
            "field": Code(one["field"]) if one["field"] else _whole(one),
            "direction": State(one["direction"]),
            "before": _shown(one["before"]),
            "after": _shown(one["after"]),
            "touches": Name(", ".join(one["touches"])),
        }
        for one in changes
    ]
    return Table(
        name="changes",
        caption=T("Every difference"),
        columns=(
            Column("clause", T("Clause")),
            Column("field", T("Field")),
            Column("direction", T("Direction")),
            Column("before", T("Before")),
            Column("after", T("After")),
            Column("touches", T("Touches")),
        ),
        rows=rows,
        empty=T("Nothing differs, or there is no earlier text to compare with."),
        total=len(rows),
    )


def _whole(one: Mapping[str, Any]) -> T:
    if one["before"] is None:
        return T("the clause is new")
    return T("the clause is gone") if one["after"] is None else T("the whole clause")


def _shown(value: object) -> Value:
    """A value of a contract, in one line."""
    if value is None:
        return Nothing()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text.startswith(("sha256:", "ed25519:")) and " " not in text:
        return Digest(text)
    return Name(text if len(text) <= _CHARS else text[:_CHARS] + "…")


def _cases(view: View, old: Contract, new: Contract, found: Known) -> Panel:
    lang = spoken_in(view)
    rows: list[Mapping[str, Value]] = []
    if isinstance(found, Verdict):
        for one in found.witnesses:
            refusal = next(each for each in one.under(old, new).refusals if each.clause == one.clause)
            rows.append(
                {
                    "clause": Code(one.clause),
                    "request": Code(one.request.TYPE),
                    "party": Name(one.request.party or ""),
                    "need": Foreign(value_words(refusal.need, lang), lang),
                    "found": Foreign(value_words(refusal.found, lang), lang),
                    "before": State("denied"),
                    "after": State("allowed"),
                }
            )
    table = Table(
        name="cases",
        caption=T("Requests that were refused before and would be allowed"),
        columns=(
            Column("clause", T("Clause that refused")),
            Column("request", T("Request")),
            Column("party", T("From")),
            Column("need", T("What was needed")),
            Column("found", T("What was found")),
            Column("before", T("Before")),
            Column("after", T("After")),
        ),
        rows=rows,
        empty=_no_case(found),
    )
    return Panel(name="cases", title=T("A concrete case"), table=table)


def _no_case(found: Known) -> T:
    if found is None:
        return T("None yet: it is being looked for.")
    if found == "order" or (isinstance(found, Verdict) and found.no_looser):
        return T("There is none: the new text allows no request that the old one refuses.")
    return T("None was found. What is looser above is for people to judge.")


def _choice(view: View, old: str, new: str) -> Panel:
    offered: list[tuple[str, Value]] = []
    for contract, _row in contract_rows(view):
        label = T(
            "{title}, version {version}, {digest}",
            title=Name(contract.title[:60]),
            version=Count(contract.version),
            digest=Code(contract.digest[7:19]),
        )
        offered.append((contract.digest, label))
        if len(offered) == _OFFERED:
            break
    if not offered:
        told = T(
            "There is no contract to compare yet. The first one appears here once it is offered: {command}",
            command=Code("iriai-broker contract offer FILE --dir DIR --key FILE"),
        )
        return Panel(name="choice", title=T("Choose two texts"), prose=(told,))
    form = Form(
        action="/console/compare",
        button=T("Compare"),
        method="get",
        fields=(
            Field(name="old", label=T("Before"), kind="select", value=_full(old, offered), choices=offered),
            Field(name="new", label=T("After"), kind="select", value=_full(new, offered), choices=offered),
        ),
    )
    return Panel(
        name="choice",
        title=T("Choose two texts"),
        prose=(T("Any two texts that you may see; of a negotiation, the open one."),),
        forms=(form,),
    )


def _full(name: str, offered: list[tuple[str, Value]]) -> str:
    """The choice that a shortened digest means."""
    bare = name.removeprefix("sha256:")
    return next((one for one, _ in offered if bare and one.startswith(f"sha256:{bare}")), offered[0][0])
