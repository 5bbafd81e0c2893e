# SPDX-License-Identifier: Apache-2.0
"""What an auditor takes home: a sample as a work paper, and the bundle with the exact command to check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from starlette.responses import Response

from broker.acts.bundles import auditors_order, operators_order, sent
from broker.console.auditor.entries import COLUMNS
from broker.console.auditor.reading import entry_row
from broker.console.errors import FormError
from broker.console.screens import READERS, Area, Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Block, Code, Count, Digest, Link, Name, Nothing, T, Value
from broker.log import Head
from broker.membership.directory import Operator
from broker.store.tables import log_entry
from policies.encoding import digest, digest_of
from policies.log.entries import check_entry
from policies.verify.sampling import SAMPLE, rank

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from broker.auth.service import Login
    from broker.console.viewing import View
    from broker.membership.directory import Auditor, Member
    from broker.services import Services

__all__ = ["room"]

room = Room("papers")
_MOST: Final = 200
_SEED_CHARS: Final = 64
_COMMANDS: Final = """\
iriai-verify verify bundle.zip --policy policy.txt
iriai-verify verify bundle.zip --policy policy.txt --report audit.html --csv tables"""


@room.screen(
    "/audit/sample",
    name="sample",
    title=T("Sample"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-verify sample bundle.zip --n 25 --policy policy.txt",
    nav=True,
)
def sample(view: View) -> Screen:
    """A work paper that anybody can draw again."""
    number, seed = _asked(view)
    head = _head(view)
    drawn = view.services.samples.draw(head.root, seed, size=head.size, count=number)
    rows = view.session.execute(
        select(log_entry.c.idx, log_entry.c.body)
        .where(log_entry.c.idx.in_(drawn or []))
        .order_by(log_entry.c.idx)
    ).all()
    ask = Form(
        action="/audit/sample",
        method="get",
        button=T("Draw"),
        fields=(
            Field(name="n", label=T("How many"), kind="number", value=str(number)),
            Field(name="seed", label=T("Your seed, if any"), value=seed, required=False),
            Field(name="size", kind="hidden", value=str(head.size)),
        ),
    )
    columns = (
        Column("tick", T("Looked at")),
        *COLUMNS[:4],
        Column("rank", T("Rank")),
        Column("note", T("Note")),
    )
    table = Table(
        name="sample",
        caption=T("The {n} entries of smallest rank", n=Count(number)),
        columns=columns,
        rows=[
            entry_row(row.idx, check_entry(row.body), view.lang)
            | {"tick": Code("[ ]"), "rank": Digest(rank(head.root, seed, row.idx).hex()), "note": Code("…")}
            for row in rows
        ],
        empty=T("It is being drawn: every entry gets its rank. The page looks again by itself.")
        if drawn is None
        else T("The log is empty."),
        total=len(rows),
    )
    facts = (
        Fact("root", T("Drawn from the root"), Digest(head.root.hex())),
        Fact("size", T("Of the log with entries"), Count(head.size)),
        Fact("seed", T("Seed"), Code(seed) if seed else Nothing()),
    )
    prose = (
        T(
            "The rank of an entry is SHA-256 of root, seed and index: "
            "the broker fixed the root before it knew your seed."
        ),
    )
    return Screen(
        panels=(
            Panel(name="sample", title=T("Sample"), facts=facts, prose=prose, table=table, forms=(ask,)),
        ),
        refresh_s=2 if drawn is None else 0,
    )


def _head(view: View) -> Head:
    """The head that the address names, so that a sample stays while the log grows; else the newest."""
    text, newest = view.query.get("size", ""), view.services.witnessing.checkpoint()
    size = int(text) if text.isdecimal() and len(text) <= 15 else newest.size  # noqa: PLR2004  an integer
    if not 0 < size <= view.services.writer.head().size:
        return newest
    return Head(size, view.services.writer.receipts.root(size), newest.note)


def _asked(view: View) -> tuple[int, str]:
    text, seed = view.query.get("n", str(SAMPLE)), view.query.get("seed", "")
    number = int(text) if text.isdecimal() and len(text) < 6 else 0  # noqa: PLR2004  far above the most
    if not 0 < number <= _MOST or len(seed) > _SEED_CHARS:
        raise FormError(
            need=f"1 to {_MOST} entries, and a seed of at most {_SEED_CHARS} characters",
            found=ascii(text)[:40],
            remedy="correct the form; the sample command of iriai-verify draws more",
        )
    return number, seed


@room.screen(
    "/audit/bundle",
    name="bundle",
    title=T("Take the bundle"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-broker audit bundle --out bundle.zip --dir DIR --key FILE",
    nav=True,
)
def bundle(view: View) -> Screen:
    """Everything for an audit without the broker, and how to check it."""
    policy = view.services.policy
    if _shut(view):
        return Screen(panels=(_refused(view), _policy(policy)))
    facts = (
        Fact("size", T("Entries in it"), Count(view.services.witnessing.checkpoint().size)),
        Fact("policy", T("Policy file"), Digest(digest(policy.encode()))),
        Fact("grants", T("What it opens"), _opens(view)),
    )
    take = (
        T("1. Take {bundle}.", bundle=Link(Code("bundle.zip"), "/audit/bundle.zip")),
        T(
            "2. Take {policy} and compare its keys with members and operators by another way: "
            "who trusts this file alone trusts the broker.",
            policy=Link(Code("policy.txt"), "/audit/policy.txt"),
        ),
        T("3. On your own machine, with the base package alone:"),
        Block(_COMMANDS),
        T(
            "The second command writes the same screens as one page without external parts, "
            "which opens from the file."
        ),
    )
    taken = Panel(name="bundle", title=T("The bundle"), facts=facts, prose=take)
    return Screen(panels=(taken, _policy(policy)))


def _policy(policy: str) -> Panel:
    return Panel(name="policy", title=T("The policy as this broker sees it"), prose=(Block(policy),))


def _shut(view: View) -> bool:
    """Whether the reader gets no bundle: an auditor whom no grant in force lets read anything."""
    name = view.signed_in.person.name
    return view.role == "auditor" and not view.services.grants.of(view.session, name)


def _refused(view: View) -> Panel:
    """Why there is no bundle, and what an operator types so that there is one."""
    name = view.signed_in.person.name
    return Panel(
        name="bundle",
        title=T("The bundle"),
        prose=(
            T("There is no bundle for you yet: nothing was granted to {name}.", name=Name(name)),
            T(
                "Make a key of your own ({key}) and give its public line to an operator. "
                "An operator of the broker then types these two commands:",
                key=Code("iriai-verify key auditor.key"),
            ),
            Block(
                f"iriai-broker auditor add {name} --auditor-key ed25519:… --dir DIR --key FILE\n"
                f"iriai-broker audit grant {name} --fields '*' --dir DIR --key FILE"
            ),
            T("The first one enrols your key, the second one opens every confidential field. Then reload."),
        ),
    )


def _opens(view: View) -> Value:
    if view.role != "auditor":
        return T("every confidential value: it is an operator's")
    grants = view.services.grants.of(view.session, view.signed_in.person.name)
    return T("what {n} grants in force open", n=Count(len(grants)))


@room.file("/audit/bundle.zip", name="bundle-file", roles=READERS, sees=Sees.OWN, area=Area.AUDIT)
def bundle_file(view: View) -> Awaitable[Response]:
    """The bundle itself; the log says that it was taken, and what it opened."""
    return _taken(view.services, view.caller, view.signed_in, view.now_ms)


async def _taken(
    services: Services, caller: Member | Operator | Auditor, login: Login, now_ms: int
) -> Response:
    request = digest_of(["bundle", login.id, str(now_ms)])
    if isinstance(caller, Operator):
        order = operators_order(services, caller, signed=False, request=request)
    else:
        head = services.witnessing.checkpoint()
        order = await auditors_order(services, login.person.name, head=head, since=0, request=request)
    response = await sent(
        services, order, holder=f"person:{login.person.name}", is_operator=isinstance(caller, Operator)
    )
    response.headers["Content-Disposition"] = 'attachment; filename="bundle.zip"'
    return response


@room.file("/audit/policy.txt", name="policy-file", roles=READERS, sees=Sees.EVERYTHING, area=Area.AUDIT)
def policy_file(view: View) -> Response:
    """The policy file as this broker sees itself."""
    headers = {"Content-Disposition": 'attachment; filename="policy.txt"'}
    return Response(view.services.policy, media_type="text/plain; charset=utf-8", headers=headers)
