# SPDX-License-Identifier: Apache-2.0
"""Who could have bent it: what the operators did, what they approved, which confidential values were read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.console.auditor.entries import COLUMNS
from broker.console.auditor.reading import entry_row, newest
from broker.console.screens import READERS, Area, Column, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.subjects import named
from broker.console.values import Code, Digest, Name, Nothing, State, T, Value
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View
    from policies.log.entries import Entry

__all__ = ["room"]

room = Room("people-audit")
_ACTS: Final = (EntryType.CONSOLE_ACTION,)
_READS: Final = (
    EntryType.ACCESS_GRANTED,
    EntryType.ACCESS_REVOKED,
    EntryType.ACCESS_USED,
    EntryType.DISCLOSURE_MADE,
    EntryType.EXPORT_AUDIT_BUNDLE,
    EntryType.ERASURE_PERFORMED,
)


@room.screen(
    "/audit/operators",
    name="operators-audit",
    title=T("Operators"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-verify verify bundle.zip --policy policy.txt --csv folder",
    nav=True,
)
def operators(view: View) -> Screen:
    """Who could have bent it?"""
    reads = view.query.get("show") == "reads"
    found = newest(view, kinds=_READS if reads else _ACTS)
    choose = Form(
        action="/audit/operators",
        method="get",
        button=T("Show"),
        fields=(
            Field(
                name="show",
                label=T("Look for"),
                kind="select",
                value="reads" if reads else "acts",
                choices=(("acts", T("what they did")), ("reads", T("who was shown confidential values"))),
            ),
        ),
    )
    more = None if found.next is None else {"after": str(found.next)}
    if reads:
        table = Table(
            name="reads",
            caption=T("Grants, disclosures, exports and erasures, newest first"),
            columns=COLUMNS[:4],
            rows=[entry_row(index, entry, view.lang) for index, entry in found.entries],
            empty=T("Nobody was granted or shown a confidential value."),
            more=more,
        )
        return Screen(
            panels=(Panel(name="reads", title=T("Confidential values"), table=table, forms=(choose,)),)
        )
    known = named(view, (str(entry.pub["subject"] or "") for _, entry in found.entries))
    table = Table(
        name="acts",
        caption=T("Every act of an operator, done or refused, newest first"),
        columns=(
            COLUMNS[0],
            COLUMNS[1],
            Column("operator", T("Who")),
            Column("action", T("What")),
            Column("result", T("Result")),
            Column("about", T("About")),
            Column("subject", T("On what")),
        ),
        rows=[entry_row(index, entry, view.lang) | _act(entry, known) for index, entry in found.entries],
        empty=T("No operator has acted since the log began."),
        more=more,
    )
    return Screen(panels=(Panel(name="acts", title=T("What they did"), table=table, forms=(choose,)),))


def _act(entry: Entry, known: Mapping[str, Value]) -> dict[str, Value]:
    pub = entry.pub
    return {
        "operator": Name(str(pub["operator"])),
        "action": Code(str(pub["action"])),
        "result": State("ok" if pub["result"] == "done" else "refused"),
        "about": known.get(str(pub["subject"]), Nothing()),
        "subject": Digest(str(pub["subject"])) if pub["subject"] else Nothing(),
    }
