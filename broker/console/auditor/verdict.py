# SPDX-License-Identifier: Apache-2.0
"""Verdict and findings: is the log complete and unaltered, and if not, how does one see it oneself?

What these screens say of the log's head and witnesses is read from the log now. What they say about the log's
content comes from a rehearsal: the auditor's own program, run by the broker (`broker.auditing.checks`). The
evidence is the bundle and the program, not this page; both screens say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.acts.bundles import Order, exported
from broker.console.auditor.rehearsal import kept_back, may_read, no_rehearsal, rehearsal_facts
from broker.console.errors import FormError
from broker.console.screens import (
    READERS,
    Area,
    Column,
    Done,
    Fact,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.console.witnesses import COLUMNS, arithmetic, witness_row
from broker.log.bundle import View as BundleView
from policies.log.errors import ProofError
from policies.log.merkle import verify_consistency
from policies.verify.words import checks_of, hand_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import Head

__all__ = ["room"]

room = Room("verdict")
_VERIFY: Final = "iriai-verify verify bundle.zip --policy policy.txt"
_DIGITS: Final = 15
_HEX: Final = 64


@room.screen(
    "/audit",
    name="verdict",
    title=T("Verdict"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command=_VERIFY,
    nav=True,
)
def verdict(view: View) -> Screen:
    """Is the log complete and unaltered?"""
    return Screen(
        panels=(
            view.panel("head", T("The log now"), lambda: _head(view)),
            view.panel("rehearsal", T("Its content, as checked last"), lambda: _rehearsal(view)),
            view.panel("witnesses", T("Who cosigned it"), lambda: _witnesses(view)),
            view.panel("since", T("Since your last visit"), lambda: _since(view)),
            view.panel("not-checked", T("What was not checked"), lambda: _not_checked(view)),
        ),
        refresh_s=15,
    )


def _head(view: View) -> Panel:
    writer = view.services.writer
    head = writer.head()
    frozen = writer.frozen
    facts = [
        Fact("state", T("Takes entries"), _takes(frozen=frozen is not None)),
        Fact("origin", T("Name of the log"), Code(writer.origin)),
        Fact("size", T("Entries"), Count(head.size)),
        Fact("root", T("Root"), Digest(head.root.hex())),
        Fact("complete-to", T("Witnessed up to"), Count(view.services.witnessing.checkpoint().size)),
    ]
    prose = (
        *(() if view.services.checks.last() is not None else (_UNCHECKED,)),
        T(
            "This page is the broker's word. Take the bundle and check it without the broker: {link}.",
            link=_take(),
        ),
    )
    return Panel(name="head", title=T("The log now"), facts=facts, prose=prose)


_UNCHECKED: Final = T("There is no verdict yet: nobody has checked the content of this log here.")


def _takes(*, frozen: bool) -> Value:
    """Whether the log grows: a fact about the writer, and no verdict about what was written."""
    return State("frozen") if frozen else T("yes, it grows")


def _take() -> Value:
    return Link(T("take the bundle"), "/audit/bundle")


def _rehearsal(view: View) -> Panel:
    title = T("Its content, as checked last")
    checks = view.services.checks
    last = checks.last()
    again = Form(
        action="/audit/check",
        button=T("Check the whole log now"),
        effect=(
            T(
                "The broker runs {program} over its own log, in a process of its own.",
                program=Code("iriai-verify"),
            ),
        ),
    )
    forms = () if checks.running_ms is not None else (again,)
    running = (
        ()
        if checks.running_ms is None
        else (T("A check is running, since {when}.", when=When(checks.running_ms)),)
    )
    if last is None:
        return Panel(name="rehearsal", title=title, prose=(*running, no_rehearsal(here=True)), forms=forms)
    return Panel(name="rehearsal", title=title, facts=rehearsal_facts(last), prose=running, forms=forms)


def _witnesses(view: View) -> Panel:
    status: dict[str, Any] = view.services.witnessing.status()
    table = Table(
        name="witnesses",
        caption=T("Witnesses"),
        columns=COLUMNS,
        rows=[witness_row(one, view.now_ms) for one in status["witnesses"]],
        empty=T("Nobody witnesses this log yet: every node does once its organisation is approved."),
    )
    needed = T("{k} of {n}", k=Count(status["k"]), n=Count(status["n"]))
    age_s = status["age_s"]
    newest = Nothing(T("never")) if age_s is None else When(view.now_ms - int(age_s) * 1000)
    facts = (Fact("needed", T("Needed"), needed), Fact("quorum-age", T("Newest quorum"), newest))
    return Panel(
        name="witnesses",
        title=T("Who cosigned it"),
        prose=(arithmetic(status),),
        facts=facts,
        table=table.sorted_by(view.query),
    )


def _since(view: View) -> Panel:
    """Whether the head that the auditor noted is a prefix of this one; keeps nothing here."""
    title, head = T("Since your last visit"), view.services.writer.head()
    keep = T(
        "Keep this address for your next visit: {link}.",
        link=Link(
            Code(f"{head.size}.{head.root.hex()[:12]}…"), f"/audit?size={head.size}&root={head.root.hex()}"
        ),
    )
    ask = Form(
        action="/audit",
        method="get",
        button=T("Compare"),
        fields=(
            Field(name="size", label=T("Size that you noted"), value=view.query.get("size", "")),
            Field(
                name="root", label=T("Root that you noted (64 hex digits)"), value=view.query.get("root", "")
            ),
        ),
    )
    if not view.query.get("size"):
        return Panel(name="since", title=title, prose=(keep,), forms=(ask,))
    fact = Fact("consistent", T("The log that you saw is a prefix of this one"), _consistent(view, head))
    return Panel(name="since", title=title, facts=(fact,), prose=(keep,), forms=(ask,))


def _consistent(view: View, head: Head) -> Value:
    size, root = view.query.get("size", ""), view.query.get("root", "").lower()
    if not (
        size.isdecimal()
        and len(size) <= _DIGITS
        and len(root) == _HEX
        and set(root) <= set("0123456789abcdef")
    ):
        raise FormError(
            need="a size and a root of 64 hex digits, as a checkpoint shows them",
            found=ascii(f"{size} {root}")[:100],
            remedy="copy both from the checkpoint that you kept",
        )
    number = int(size)
    if number > head.size:
        return State("no")
    try:
        proof = view.services.writer.consistency(number, head.size) if 0 < number < head.size else []
        verify_consistency(number, head.size, bytes.fromhex(root), head.root, proof)
    except ProofError:
        return State("no")
    return State("yes")


def _not_checked(view: View) -> Panel:
    last = view.services.checks.last()
    gaps = [str(one) for one in last.data.get("not_checked", [])] if last else []
    table = Table(
        name="not-checked",
        caption=T("The last check could not look at these"),
        columns=(Column("what", T("Not looked at")),),
        rows=[{"what": Foreign(one)} for one in gaps],
        empty=T("No check was made yet, so nothing was checked.")
        if last is None
        else T("It looked at everything."),
        total=len(gaps),
    )
    return Panel(name="not-checked", title=T("What was not checked"), table=table)


@room.act("/audit/check", name="audit-check", roles=READERS, sees=Sees.EVERYTHING, area=Area.AUDIT)
async def check(act: Act) -> Done:
    """Runs the auditor's program over the broker's own log."""
    services = act.services

    async def make(path: Path) -> str:
        order = Order(
            head=services.witnessing.checkpoint(),
            view=BundleView(),  # whole, as an operator has it: it never leaves this machine
            contracts=services.contracts.documents(),
        )
        await exported(services, path, order)
        return services.policy

    began = services.checks.begin(make)
    return Done("/audit", T("The check has begun.") if began else T("A check is running already."))


@room.screen(
    "/audit/findings",
    name="findings",
    title=T("Findings"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command=_VERIFY,
    nav=True,
)
def findings(view: View) -> Screen:
    """What is wrong, and how does one reproduce it?"""
    last = view.services.checks.last()
    if last is None:
        return Screen(panels=(Panel(name="findings", title=T("Findings"), prose=(no_rehearsal(),)),))
    found: Sequence[Mapping[str, Any]] = last.data.get("findings", [])
    rows = [_finding(one, view.lang, open_to=may_read(view)) for one in found]
    table = Table(
        name="findings",
        caption=T("What the last check found"),
        columns=(
            Column("rule", T("Rule"), sort=True),
            Column("severity", T("Severity"), sort=True),
            Column("entry", T("Entry")),
            Column("checks", T("What the rule checks")),
            Column("evidence", T("Evidence")),
            Column("by-hand", T("By hand")),
        ),
        rows=rows,
        empty=T("The last check found nothing that breaks a rule."),
        total=len(rows),
    ).sorted_by(view.query)
    remarks = [Foreign(str(one)) for one in last.data.get("remarks", [])]
    return Screen(
        panels=(
            Panel(name="when", title=T("The check"), facts=rehearsal_facts(last)),
            Panel(name="findings", title=T("Findings"), table=table, prose=remarks),
        )
    )


def _finding(one: Mapping[str, Any], lang: str, *, open_to: bool) -> dict[str, Value]:
    rule, index = str(one["id"]), one["index"]
    evidence = Code(str(one["evidence"])) if open_to else kept_back()
    return {
        "rule": Code(rule),
        "severity": State({"error": "failed", "review": "warning"}.get(str(one["severity"]), "unknown")),
        "entry": Nothing() if index is None else Link(Count(index), f"/audit/log/{index}"),
        "checks": Foreign(checks_of(rule, lang), lang),
        "evidence": evidence,
        "by-hand": Foreign(hand_of(rule, lang), lang),
    }
