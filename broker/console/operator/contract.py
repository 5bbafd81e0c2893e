# SPDX-License-Identifier: Apache-2.0
"""One contract: where it stands, who signed it when, what it says, what became of it.

What a person of a member sees is what its node is shown: no times of others' signatures before the contract
is final (`broker.contracts.service.Contracts.envelope_for`), nothing of a contract that is not theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from starlette.responses import Response

from broker.console.operator.texts import PARTIES, contract_rows, names_of, spoken_in, stands
from broker.console.screens import Column, Fact, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Moment,
    Name,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.contracts.pools import pool_of_text
from broker.contracts.rows import row_of
from broker.contracts.service import FINALIZED
from broker.membership.directory import Member
from broker.store.tables import lane_message
from policies.contract.errors import NotExecutedError
from policies.contract.odrl import export
from policies.contract.render import enforcement_map, head_words, label_words, plain_words
from policies.encoding import canonical
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View
    from policies.contract import Contract

from broker.console.operator.contract_acts import act_panels

__all__ = ["room"]

room = Room("contract")
PAGE: Final = 50


@room.screen(
    "/console/contracts/{digest}",
    name="contract",
    title=T("Contract"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker contract show CONTRACT --dir DIR --key FILE",
)
def contract(view: View) -> Screen:
    """One text: where it stands, who signed it when, what it says, what became of it."""
    services = view.services
    found = services.contracts.for_caller(view.path["digest"], view.party)
    row = row_of(view.session, services.contracts, found, view.party)
    life = services.lives.view(view.session, found)
    return Screen(
        panels=(
            _standing(view, found, row, life),
            view.panel("parties", T("Parties and signatures"), lambda: _parties(view, found, row)),
            _clauses(view, found, row),
            view.panel("versions", T("Versions"), lambda: _versions(view, found)),
            _notices(life),
            _exports(found, final=row["state"] == FINALIZED),
            *act_panels(view, found, row),
        ),
        title=Name(found.title),
        trail=((T("Contracts"), "/console/contracts"),),
        command=f"iriai-broker contract show {found.digest} --dir DIR --key FILE",
    )


def _standing(view: View, found: Contract, row: Mapping[str, Any], life: Mapping[str, Any]) -> Panel:
    facts = [
        Fact("state", T("State"), stands(row)),
        Fact("since", T("Since"), _when(life["since"])),
        Fact("version", T("Version"), Count(found.version)),
        Fact("waiting", T("Waits for"), names_of(row["waiting_for"], view)),
        Fact("sign_by", T("To be signed by"), Moment(to_ms(found.sign_by))),
        Fact("effective", T("Begins"), Moment(to_ms(found.term.effective))),
        Fact("expires", T("Ends"), Moment(to_ms(found.term.expires))),
        Fact("digest", T("Digest"), Digest(found.digest)),
        Fact("contract_id", T("Id"), Code(found.contract_id)),
    ]
    if row["negotiation"] is not None:
        name = str(row["negotiation"])
        facts.append(Fact("negotiation", T("Negotiation"), Link(Code(name), f"/console/negotiations/{name}")))
    if row["party"] is not None:
        facts.append(Fact("party", T("Your name in it"), Name(str(row["party"]))))
    if life["superseded_by"] is not None:
        successor = str(life["superseded_by"])
        facts.append(
            Fact("successor", T("Successor"), Link(Digest(successor), f"/console/contracts/{successor}"))
        )
    return Panel(name="stands", title=T("How it stands"), prose=(_first_line(view, row),), facts=facts)


def _first_line(view: View, row: Mapping[str, Any]) -> T:
    word = stands(row).word
    if word == "signed":
        return T("All its parties have signed. It is not in force: the broker's second person is missing.")
    if row["waiting_for"]:
        return T("It is not in force. It waits for {names}.", names=names_of(row["waiting_for"], view))
    return {
        "active": T("This text rules now."),
        "pending": T("It is final, and rules from its beginning on."),
        "halted": T("It is halted: no new round begins and nothing is released until all resume."),
        "expired": T("Its term is over."),
        "superseded": T("A successor rules in its place."),
        "terminated": T("It has ended."),
        "no-effect": T("It was final, and never took effect: the version before it had ended."),
    }.get(word, T("It is not in force."))


def _when(text: str | None) -> Value:
    return Nothing() if text is None else When(to_ms(text))


def _parties(view: View, found: Contract, row: Mapping[str, Any]) -> Panel:
    times, final = _signed_at(view, found), row["state"] == FINALIZED
    lanes, signed = row["lanes"], set(row["signed"])
    whole = final or not isinstance(view.party, Member)
    rows: list[Mapping[str, Value]] = []
    for one in found.parties:
        told = whole or one.party == row["party"]
        rows.append(
            {
                "party": Name(one.party),
                "name": _named(view, one.org, one.legal_name),
                "role": Code(one.role),
                "signed": State("yes" if one.party in signed else "no")
                if one.role != "auditor"
                else Nothing(),
                "at": When(times[one.party]) if told and one.party in times else Nothing(),
                **({} if final else {"lane": Code(lanes[one.party]) if one.party in lanes else Nothing()}),
                "group": Code(one.group),
                "country": Code(one.country),
                "key": Digest(one.key),
            }
        )
    table = Table(
        name="parties",
        caption=T("Whoever is bound by it"),
        columns=(
            Column("party", T("Short name")),
            Column("name", T("Legal name")),
            Column("role", T("Role")),
            Column("signed", T("Signed")),
            Column("at", T("When")),
            *(() if final else (Column("lane", T("Lane")),)),
            Column("group", T("Group")),
            Column("country", T("Country")),
            Column("key", T("Key that it pins")),
        ),
        rows=rows,
        empty=T("A contract has parties; this one could not be read."),
    )
    facts = (
        Fact(
            "signatures",
            T("Signatures"),
            T("{n} of {of}", n=Count(len(signed)), of=Count(len(found.contributors) + 1)),
        ),
    )
    return Panel(name="parties", title=T("Parties and signatures"), facts=facts, table=table)


def _named(view: View, org: str, legal_name: str) -> Value:
    known = view.role != "member" and view.services.directory.of_org(org) is not None
    return Link(Name(legal_name), f"/console/members/{org}") if known else Name(legal_name)


def _signed_at(view: View, found: Contract) -> dict[str, int]:
    """When each contributor's signature came in, by its lane."""
    pool = pool_of_text(view.session, found.digest)
    lanes = {} if pool is None else {one.pid: one.party for one in pool.lanes if one.digest == found.digest}
    rows = view.session.execute(
        select(lane_message.c.pid, lane_message.c.at_ms).where(
            lane_message.c.pid.in_(lanes) & (lane_message.c.type == "verify")
        )
    ).all()
    return {lanes[row.pid]: row.at_ms for row in rows}


def _clauses(view: View, found: Contract, row: Mapping[str, Any]) -> Panel:
    lang = spoken_in(view)
    labels = {one.clause: label_words(one, lang) for one in enforcement_map(found)}
    party = None if row["party"] is None else str(row["party"])
    said: dict[str, list[str]] = {}
    for clause, words in plain_words(found, party, lang):
        said.setdefault(clause, []).append(words.removesuffix(f" [{labels[clause]}]"))
    rows: list[Mapping[str, Value]] = [
        {
            "clause": Code(clause),
            "words": Foreign(" ".join(words), lang),
            "enforced": Foreign(labels[clause], lang),
        }
        for clause, words in said.items()
    ]
    table = Table(
        name="clauses",
        caption=T("Clause by clause; the signed bytes bind, not these words"),
        columns=(
            Column("clause", T("Clause")),
            Column("words", T("What it says")),
            Column("enforced", T("Enforced by")),
        ),
        rows=rows,
        empty=T("A contract has clauses; this one could not be read."),
        total=len(rows),
    )
    head: list[Value] = [Foreign(one, lang) for one in head_words(found, lang)]
    return Panel(name="clauses", title=T("What it says"), prose=head, table=table)


def _versions(view: View, found: Contract) -> Panel:
    rows: list[Mapping[str, Value]] = []
    for other, row in contract_rows(view, of=found.contract_id):
        compare = f"/console/compare?old={other.digest}&new={found.digest}"
        if other.version > found.version:
            compare = f"/console/compare?old={found.digest}&new={other.digest}"
        rows.append(
            {
                "version": Count(other.version),
                "state": stands(row),
                "digest": Link(Digest(other.digest), f"/console/contracts/{other.digest}"),
                "compare": T("this one")
                if other.digest == found.digest
                else Link(T("what changes"), compare),
            }
        )
    table = Table(
        name="versions",
        caption=T("Texts of this contract, the newest first"),
        columns=(
            Column("version", T("Version")),
            Column("state", T("State")),
            Column("digest", T("Digest")),
            Column("compare", T("Compare")),
        ),
        rows=rows[:PAGE],
        empty=T("This text was replaced by a counter-offer, and no other one is open."),
    )
    return Panel(name="versions", title=T("Versions"), table=table)


def _notices(life: Mapping[str, Any]) -> Panel:
    said = life["notices"]
    rows: list[Mapping[str, Value]] = [
        {
            "at": When(to_ms(one["at"])),
            "party": Name(one["party"]),
            "kind": Code(one["kind"]),
            "code": Code(one["code"]),
            "clause": Nothing() if one["clause"] is None else Code(one["clause"]),
            "text": Nothing() if one["text"] is None else Name(one["text"]),
            "digest": Digest(one["digest"]),
        }
        for one in reversed(said)
    ]
    table = Table(
        name="notices",
        caption=T("Notices, the newest first"),
        columns=(
            Column("at", T("When")),
            Column("party", T("From")),
            Column("kind", T("Kind")),
            Column("code", T("Reason")),
            Column("clause", T("Clause")),
            Column("text", T("Words")),
            Column("digest", T("Digest")),
        ),
        rows=rows[:PAGE],
        empty=T(
            "No party has said anything about it since it was signed. "
            "Nodes halt, resume or leave by {command}.",
            command=Code("iriai-node contract halt DIGEST --reason CODE"),
        ),
        total=len(rows),
    )
    return Panel(name="notices", title=T("What became of it"), table=table)


def _exports(found: Contract, *, final: bool) -> Panel:
    whole = f"/console/contracts/{found.digest}/contract.json"
    odrl = f"/console/contracts/{found.digest}/odrl.json"
    views: tuple[Value, ...] = (
        (Link(T("ODRL policies of it, a view for connectors"), odrl),)
        if final
        else (T("ODRL policies are made once it is final: of a draft they would be agreements of nobody."),)
    )
    return Panel(
        name="exports",
        title=T("Take it along"),
        prose=(Link(T("The signed bytes (canonical JSON)"), whole), *views),
    )


@room.file("/console/contracts/{digest}/contract.json", name="contract-bytes", roles=PARTIES, sees=Sees.OWN)
def contract_bytes(view: View) -> Response:
    """The canonical bytes: what was signed."""
    found = view.services.contracts.for_caller(view.path["digest"], view.party)
    return _attached(found.canonical, f"contract-{found.digest[7:19]}.json")


@room.file("/console/contracts/{digest}/odrl.json", name="contract-odrl", roles=PARTIES, sees=Sees.OWN)
def contract_odrl(view: View) -> Response:
    """The contract as ODRL policies; of one that is final only."""
    found = view.services.contracts.for_caller(view.path["digest"], view.party)
    if not view.services.contracts.is_final(found.digest):
        raise NotExecutedError(
            need="a contract that everybody signed", found="a draft", remedy="wait until it is final"
        )
    return _attached(canonical(export(found)), f"odrl-{found.digest[7:19]}.json")


def _attached(data: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, headers=headers, media_type="application/json")
