# SPDX-License-Identifier: Apache-2.0
"""The log itself: as a timeline, as a table, as raw JSON, all over the same entries; and one entry whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from broker.auditing.disclosures import read_page, record
from broker.console import charts
from broker.console.auditor.reading import Found, entry_row, newest, shown_value
from broker.console.errors import FormError
from broker.console.screens import (
    AUDITORS,
    READERS,
    Area,
    Column,
    Done,
    Drawing,
    Fact,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import Block, Code, Count, Digest, Foreign, Link, Moment, Nothing, T, Value
from broker.errors import NotFoundError
from broker.store.tables import log_envelope
from policies.log.entries import EntryType, check_entry
from policies.log.merkle import leaf_hash
from policies.ports import to_ms
from policies.verify.page.drawing import path_drawing, steps_up
from policies.verify.prose import entry_prose
from policies.verify.shown import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auditing.disclosures import Page
    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session
    from policies.log.entries import Entry

__all__ = ["COLUMNS", "room"]

room = Room("entries")
COLUMNS: Final = (
    Column("index", T("Entry")),
    Column("time", T("Minute")),
    Column("type", T("Type")),
    Column("what", T("What happened")),
    Column("run", T("Run")),
    Column("round", T("Round")),
)
_VIEWS: Final = (("table", T("table")), ("timeline", T("timeline")), ("raw", T("raw")))
_TONES: Final = {"refused": "bad", "declared": "bad", "revoked": "off", "released": "good", "opened": "busy"}


@room.screen(
    "/audit/log",
    name="entries",
    title=T("The log"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-broker log entries --dir DIR --key FILE",
    nav=True,
)
def entries(view: View) -> Screen:
    """What was written, newest first."""
    shown = view.query.get("view", "table")
    if shown not in dict(_VIEWS):
        raise FormError(
            need="view table, timeline or raw", found=ascii(shown)[:40], remedy="correct the address"
        )
    found = newest(view)
    title = T("Entries, newest first")
    panels: list[Panel] = [Panel(name="filter", title=T("Look for"), forms=(_filters(view),))]
    if shown == "raw":
        lines = tuple(Block(visible(entry.body.decode("utf-8"))) for _, entry in found.entries)
        panels.append(
            Panel(name="raw", title=title, prose=lines, table=None if lines else _table(view, found))
        )
    drawing = _timeline(found, view) if shown == "timeline" else None
    if shown != "raw":
        panels.append(Panel(name="entries", title=title, drawing=drawing, table=_table(view, found)))
    return Screen(panels=panels)


def _filters(view: View) -> Form:
    kinds: list[tuple[str, Value]] = [("", T("every type"))]
    kinds += [(one.value, Code(one.value)) for one in sorted(EntryType, key=lambda one: one.value)]
    given = view.query
    return Form(
        action="/audit/log",
        method="get",
        button=T("Show"),
        fields=(
            Field(
                name="view", label=T("As"), kind="select", value=given.get("view", "table"), choices=_VIEWS
            ),
            Field(name="type", label=T("Type"), kind="select", value=given.get("type", ""), choices=kinds),
            Field(name="run", label=T("Run"), value=given.get("run", ""), required=False),
            Field(name="scope", label=T("Contract"), value=given.get("scope", ""), required=False),
            Field(name="q", label=T("Text in the entry"), value=given.get("q", ""), required=False),
            Field(name="after", label=T("Before entry"), value=given.get("after", ""), required=False),
        ),
    )


def _table(view: View, found: Found) -> Table:
    return Table(
        name="entries",
        caption=T("Entries of the log"),
        columns=COLUMNS,
        rows=[entry_row(index, entry, view.lang) for index, entry in found.entries],
        empty=T(
            "No entry fits here. Look further back with {after}, or drop a filter.", after=T("Before entry")
        ),
        more=None if found.next is None else {"after": str(found.next)},
    )


def _timeline(found: Found, view: View) -> Drawing:
    spans = [
        charts.Span(
            lane=Code(entry.type.value),
            start_ms=to_ms(entry.ts),
            end_ms=to_ms(entry.ts) + 60_000,  # entries say the minute
            tone=_TONES.get(entry.type.value.partition(".")[2], "good"),
            label=T("entry {index}", index=Count(index)),
        )
        for index, entry in found.entries
    ]
    table = Table(
        name="timeline",
        caption=T("Entries by minute"),
        columns=COLUMNS[:3],
        rows=[entry_row(index, entry, view.lang) for index, entry in found.entries],
        empty=T("No entry fits here."),
    )
    return charts.timeline("timeline", T("Entries by minute"), spans, table=table)


@room.screen(
    "/audit/log/{index}",
    name="entry",
    title=T("Entry"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
)
def entry(view: View) -> Screen:
    """What exactly was written?"""
    index = _index(view.path["index"])
    receipts = view.services.writer.receipts
    body = receipts.body(index)
    written, receipt = check_entry(body), receipts.receipt(index)
    panels = [
        Panel(
            name="words",
            title=T("In words"),
            prose=[Foreign(one, view.lang) for one in entry_prose(index, written, view.lang)],
        ),
        Panel(name="facts", title=T("Where it stands"), facts=_facts(index, written, body), wide=False),
        Panel(name="fields", title=T("What it says"), table=_fields(written), wide=False),
        Panel(
            name="hidden",
            title=T("Confidential fields"),
            table=_hidden(written),
            forms=_open(view, index, written),
        ),
        Panel(name="path", title=T("Path to the root"), drawing=_path(index, body, view)),
        Panel(
            name="bytes", title=T("Bytes, as they were hashed"), prose=(Block(visible(body.decode("utf-8"))),)
        ),
        Panel(name="receipt", title=T("Receipt"), prose=(Block(receipt.to_text()),)),
    ]
    envelope = (
        view.session.execute(log_envelope.select().where(log_envelope.c.idx == index)).mappings().first()
    )
    if envelope is not None:
        panels.insert(
            3, Panel(name="envelope", title=T("Its sender's envelope"), facts=_envelope(dict(envelope)))
        )
    return Screen(
        panels=panels,
        title=T("Entry {index}", index=Count(index)),
        trail=((T("The log"), "/audit/log"),),
        command=f"iriai-verify show bundle.zip {index} --policy policy.txt",
    )


def _index(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:  # noqa: PLR2004  fits an integer
        raise NotFoundError(need="the index of an entry", found=ascii(text)[:40], remedy="look at /audit/log")
    return int(text)


def _facts(index: int, written: Entry, body: bytes) -> tuple[Fact, ...]:
    refs = written.refs
    return (
        Fact("index", T("Entry"), Count(index)),
        Fact("type", T("Type"), Code(written.type.value)),
        Fact("time", T("Minute"), Moment(to_ms(written.ts))),
        Fact("actor", T("Who"), Code(written.actor)),
        Fact("scope", T("Contract"), Nothing() if written.scope is None else Digest(written.scope)),
        Fact("run", T("Run"), Nothing() if written.run is None else Code(written.run)),
        Fact("round", T("Round"), Nothing() if written.round is None else Count(written.round)),
        Fact("rests-on", T("Rests on"), Link(Count(refs[0]), f"/audit/log/{refs[0]}") if refs else Nothing()),
        Fact("leaf", T("Leaf hash"), Digest(leaf_hash(body).hex())),
        Fact("event", T("Event id"), Digest(written.id.hex())),
    )


def _fields(written: Entry) -> Table:
    rows: list[Mapping[str, Value]] = [
        {"field": Code(name), "value": shown_value(value if isinstance(value, str) else json.dumps(value))}
        for name, value in sorted(written.pub.items())
    ]
    return Table(
        name="fields",
        caption=T("Fields in clear"),
        columns=(Column("field", T("Field")), Column("value", T("Value"))),
        rows=rows,
        empty=T("This type has no field in clear."),
    )


def _hidden(written: Entry) -> Table:
    return Table(
        name="hidden",
        caption=T("Salted commitments: the log shows that a value is fixed, not which"),
        columns=(Column("field", T("Field")), Column("commitment", T("Commitment"))),
        rows=[
            {"field": Code(name), "commitment": Digest(value)} for name, value in sorted(written.sd.items())
        ],
        empty=T("This entry has no confidential field."),
    )


def _open(view: View, index: int, written: Entry) -> tuple[Form, ...]:
    if view.role not in AUDITORS or not written.sd:
        return ()
    grants = view.services.grants.of(view.session, view.signed_in.person.name)
    fields = sorted({name for name in written.sd for one in grants if one.opens(index, name)})
    if not fields:
        return ()
    opened = T(
        "Opens of this entry: {fields}. The log says that you read it.", fields=Code(", ".join(fields))
    )
    return (Form(action=f"/audit/log/{index}/open", button=T("Show what my grant opens"), effect=(opened,)),)


@room.act("/audit/log/{index}/open", name="entry-open", roles=AUDITORS, sees=Sees.OWN, area=Area.AUDIT)
async def open_entry(act: Act) -> Done:
    """Shows confidential values that a grant opens, once the log says so.

    Exactly those that this form's own effect read, under the grants in force there, and recorded. The same
    form sent again has no effect, so it shows nothing.
    """
    index, services = _index(act.path["index"]), act.services
    size = min(index + 1, services.writer.head().size)
    recorded: list[Page] = []

    def effect(session: Session, tx: LogTx) -> None:
        grants = services.grants.of(session, act.login.person.name)
        page = read_page(services.store, grants, start=index, size=size, session=session)
        record(session, tx, page, act.request)
        recorded[:] = [page]

    await act.change(effect)
    to = f"/audit/log/{index}"
    if not recorded:
        return Done(to, T("It was shown before. To see it again, open it from this page as it is now."))
    values = recorded[0].values
    lines = [f"{one.disclosure.field} = {json.dumps(one.disclosure.to_json()['value'])}" for one in values]
    said = T("{n} values were opened.", n=Count(len(lines)))
    return Done(to, said, "\n".join(visible(line) for line in lines) or None)


def _envelope(row: Mapping[str, object]) -> tuple[Fact, ...]:
    env = row["env"]
    return (
        Fact("chain", T("Chain"), Code(str(row["chain"]))),
        Fact("sequence", T("Number in it"), Count(int(str(row["seq"])))),
        Fact("signer", T("Signed with"), Digest(str(row["signer"]))),
        Fact("seen", T("Log that the sender had seen"), Count(int(str(row["seen_size"])))),
        Fact("envelope", T("Envelope"), Digest(env.hex() if isinstance(env, bytes) else str(env))),
    )


def _path(index: int, body: bytes, view: View) -> Drawing:
    head = view.services.writer.head()
    leaf = leaf_hash(body)
    steps = steps_up(leaf, index, head.size, view.services.writer.proof(index, head.size))
    rows: list[Mapping[str, Value]] = [
        {
            "level": Count(number + 1),
            "given": Digest(one.sibling.hex()),
            "side": T("left") if one.left else T("right"),
            "comes-to": Digest(one.above.hex()),
        }
        for number, one in enumerate(steps)
    ]
    title = T("From this entry to the root")
    table = Table(
        name="path",
        caption=title,
        columns=(
            Column("level", T("Level")),
            Column("given", T("Given by the proof")),
            Column("side", T("Side")),
            Column("comes-to", T("Comes to")),
        ),
        rows=rows,
        empty=T("The log has one entry: it is its own root."),
    )

    def draw(say: Callable[[Value], str]) -> Markup:
        return Markup(path_drawing(leaf, steps, title=say(title), name="path-title"))  # noqa: S704  escaped there

    return Drawing(name="path", title=title, svg=draw, table=table)
