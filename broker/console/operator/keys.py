# SPDX-License-Identifier: Apache-2.0
"""Keys and witnesses: what each key is for, how old it is, when it ends, how it is replaced; who cosigns.

- Ages are those of the log: since when it trusts a key. Ends are the certificate's, or a rotation's.
- The quorum is told as arithmetic: so many are needed, so many were heard lately.
- A witness leaves the quorum by two people: here it is proposed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from sqlalchemy import select

from broker.console.operator.incidents import REASON
from broker.console.operator.showing import OPERATOR, PAGE
from broker.console.screens import (
    OPERATORS,
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
    Duration,
    Link,
    Name,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.console.witnesses import COLUMNS, arithmetic, witness_row
from broker.errors import RequestInvalidError
from broker.log.rotations import log_rotations
from broker.store.tables import log_entry, operator, witness
from policies.encoding import digest
from policies.identity import key_text, parse_key
from policies.limits import EXPIRY_WARNING_DAYS, LOG_KEY_OVERLAP_DAYS, WITNESS_MAX_AGE_MIN
from policies.log.entries import EntryType
from policies.log.vkeys import VerifierKey
from policies.ports import from_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["room"]

room = Room("keys")
_DAY_MS: Final = 86_400_000
_REASON_CHARS: Final = 80
_FRESH_S: Final = WITNESS_MAX_AGE_MIN * 60
_KEY_COLUMNS: Final = (
    Column("purpose", T("Purpose")),
    Column("owner", T("Owner")),
    Column("state", T("State"), sort=True),
    Column("id", T("Key")),
    Column("since", T("Since"), sort=True),
    Column("until", T("Ends")),
    Column("step", T("How it is replaced")),
)


@room.screen(
    "/console/keys",
    name="keys",
    title=T("Keys and witnesses"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker key list --dir DIR",
    nav=True,
)
def keys(view: View) -> Screen:
    """Every key that somebody relies on, and the quorum of witnesses."""
    since = _since(view)
    return Screen(
        panels=[
            view.panel("quorum", T("Who cosigns the log"), lambda: _quorum(view)),
            view.panel("broker", T("Keys of the broker"), lambda: _broker(view, since)),
            view.panel("people", T("Keys of operators and auditors"), lambda: _people(view, since)),
            view.panel("nodes", T("Keys of nodes"), lambda: _nodes(view, since)),
        ],
        refresh_s=30,
    )


def _since(view: View) -> dict[str, int]:
    """When the log began to trust each key, by its digest."""
    kinds = (EntryType.KEY_ADDED.value, EntryType.KEY_ROTATED.value)
    query = select(log_entry.c.body, log_entry.c.ts_ms).where(log_entry.c.type.in_(kinds))
    found: dict[str, int] = {}
    for row in view.session.execute(query.order_by(log_entry.c.idx)):
        pub = json.loads(row.body)["pub"]
        found.setdefault(str(pub.get("kid") or pub.get("new")), row.ts_ms)
    return found


# --- witnesses ---


def _quorum(view: View) -> Panel:
    status: dict[str, Any] = view.services.witnessing.status()
    heard: list[dict[str, Any]] = status["witnesses"]
    fresh = sum(not one["missing"] for one in heard)
    added: dict[str, int] = {
        row.name: row.at_ms for row in view.session.execute(select(witness.c.name, witness.c.at_ms))
    }
    table = Table(
        name="witnesses",
        caption=T("Witnesses"),
        columns=(
            *COLUMNS,
            Column("since", T("Since")),
            Column("step", T("How it is replaced")),
        ),
        rows=[_witness_row(view, one, added) for one in heard],
        empty=T(
            "Nobody witnesses this log. A member's node begins once its owner turns it on: {command}",
            command=Code("iriai-node witness status"),
        ),
    )
    forms = (_removal(status, heard),) if heard and view.role == "operator" else ()
    return Panel(
        name="quorum",
        title=T("Who cosigns the log"),
        prose=(arithmetic(status),),
        facts=_quorum_facts(view, status, fresh),
        table=table.sorted_by(view.query),
        forms=forms,
    )


def _quorum_facts(view: View, status: Mapping[str, Any], fresh: int) -> list[Fact]:
    age_s = status["age_s"]
    facts = [
        Fact("needed", T("Needed"), Count(status["k"])),
        Fact("known", T("Known"), Count(status["n"])),
        Fact("fresh", T("Fresh"), Count(fresh)),
        Fact("alarm", T("Quorum"), _alarm(status)),
    ]
    if status["size"] is not None and age_s is not None:
        size = Count(status["size"])
        as_of = view.now_ms - int(age_s) * 1000
        facts.append(
            Fact("quorum-size", T("Newest size with a quorum"), size, as_of_ms=as_of, fresh_s=_FRESH_S)
        )
    took = status["contribution_to_quorum_ms"]
    if took is not None:
        facts.append(Fact("took", T("From contribution to quorum"), Duration(int(took))))
    return facts


def _alarm(status: Mapping[str, Any]) -> Value:
    if not status["k"]:
        return Nothing(T("not asked for"))
    return State("error" if status["alarm"] else "ok")


def _witness_row(view: View, one: Mapping[str, Any], added: Mapping[str, int]) -> dict[str, Value]:
    since = added.get(str(one["name"]))
    return {
        **witness_row(one, view.now_ms),
        "since": Nothing() if since is None else When(since),
        "step": T("its owner moves the node's witness key away and starts the node again"),
    }


def _removal(status: Mapping[str, Any], heard: Sequence[Mapping[str, Any]]) -> Form:
    left = max(int(status["n"]) - 1, 0)
    return Form(
        action="/console/keys/witness-remove",
        button=T("Propose to remove the witness"),
        danger=True,
        effect=(
            T("Nothing happens until a second person approves it."),
            T(
                "{n} of {m} witnesses stay; the key that goes never comes back.",
                n=Count(left),
                m=Count(status["n"]),
            ),
        ),
        fields=(
            Field(
                name="witness",
                label=T("Witness"),
                kind="select",
                choices=[(str(one["name"]), Code(str(one["name"]))) for one in heard],
            ),
            Field(
                name="reason",
                label=T("Why"),
                help=T(
                    "A reason code: small letters, with dots or hyphens, such as {example}.",
                    example=Code("owner.left"),
                ),
            ),
        ),
    )


@room.act("/console/keys/witness-remove", name="witness-remove", roles=OPERATOR, sees=Sees.EVERYTHING)
async def remove_witness(act: Act) -> Done:
    """Proposes that a witness leaves the quorum; a second person decides."""
    name, reason = act.field("witness", most=200), act.field("reason", most=_REASON_CHARS)
    if not REASON.fullmatch(reason):
        raise RequestInvalidError(
            need="a reason code: small letters and digits, parted by dots or hyphens",
            found=ascii(reason)[1:-1][:60],
            remedy="write it like owner.left",
        )
    made: list[str] = []

    def effect(session: Session, tx: LogTx) -> None:
        payload = {"witness": name, "reason": reason}
        outcome = act.services.acts.propose(session, tx, "witness.remove", payload, act.operator, act.request)
        made.append(outcome.proposal.id)

    await act.change(effect)
    to = f"/console/proposals/{made[-1]}" if made else "/console/proposals"
    return Done(to, T("It is proposed. A second person has to approve it."))


# --- keys ---


def _broker(view: View, since: Mapping[str, int]) -> Panel:
    own = view.services.keys
    rows = [
        _key_row(
            T("signs contracts, statements and replies"),
            key=own.broker.public,
            since=since,
            step=T("by a new version of each contract; it is pinned there"),
        ),
        *_log_rows(view, since),
        _tls_row(view),
    ]
    soon = sum(row["state"] == State("warning") for row in rows)
    answer = T("No key of the broker ends within {n} days.", n=Count(EXPIRY_WARNING_DAYS))
    if soon:
        answer = T("{m} keys of the broker end within {n} days.", m=Count(soon), n=Count(EXPIRY_WARNING_DAYS))
    table = Table(
        name="broker-keys",
        caption=T("Keys of the broker"),
        columns=tuple(one for one in _KEY_COLUMNS if one.name != "owner"),
        rows=rows,
        empty=T("The broker has no key."),
    )
    return Panel(name="broker", title=T("Keys of the broker"), prose=(answer,), table=table)


def _log_rows(view: View, since: Mapping[str, int]) -> list[dict[str, Value]]:
    own = view.services.keys
    overlap_ms = LOG_KEY_OVERLAP_DAYS * _DAY_MS
    ends = {one.old: since.get(one.new, 0) + overlap_ms for one in log_rotations(view.session)}
    found = []
    for text in (own.log_vkey, *own.older_log_vkeys):
        key = VerifierKey.parse(text).public_key
        row = _key_row(
            T("signs the log's heads"),
            key=key,
            since=since,
            step=Code("iriai-broker key rotate --dir DIR"),
        )
        until = ends.get(digest(key))
        found.append(row if until is None else row | {"until": When(until), "state": _state(view, until)})
    return found


def _tls_row(view: View) -> dict[str, Value]:
    leaf = x509.load_pem_x509_certificates(view.services.keys.tls_chain_pem)[0]
    until = _ms(leaf.not_valid_after_utc)
    return {
        "purpose": T("certificate of the port"),
        "state": _state(view, until),
        "id": Digest(f"sha256:{view.services.keys.tls_sha256}"),
        "since": When(_ms(leaf.not_valid_before_utc)),
        "until": When(until),
        "step": T("put the new chain and key into the folder of keys, then start the broker again"),
    }


def _people(view: View, since: Mapping[str, int]) -> Panel:
    rows = []
    for one in view.session.execute(select(operator).order_by(operator.c.name)):
        row = _key_row(T("operator's requests"), key=parse_key(one.key), since=since, step=_NEW_OPERATOR)
        rows.append(row | {"owner": Name(one.name), "state": State(one.state)})
    for auditor in view.services.directory.auditors():
        row = _key_row(T("auditor's requests"), key=auditor.key, since=since, step=_NEW_AUDITOR)
        rows.append(
            row | {"owner": Name(auditor.name), "state": State("active" if auditor.active else "revoked")}
        )
    table = Table(
        name="people-keys",
        caption=T("Keys of operators and auditors"),
        columns=_KEY_COLUMNS,
        rows=rows,
        empty=T("Nobody has a key file; people log in with passkeys or passwords."),
    )
    return Panel(name="people", title=T("Keys of operators and auditors"), table=table.sorted_by(view.query))


_NEW_OPERATOR: Final = Code("iriai-broker operator new FILE")
_NEW_AUDITOR: Final = T("the auditor makes a new key, and an operator enrols it")


def _nodes(view: View, since: Mapping[str, int]) -> Panel:
    """Node and connection keys of the members, by organisation id."""
    after = view.query.get("after", "")
    members = [one for one in view.services.directory.members() if one.org > after]
    page, rows = members[:PAGE], []
    for one in page:
        row = _key_row(T("node's envelopes and requests"), key=one.key, since=since, step=_NODE_STEP)
        row |= {"owner": Link(Name(one.legal_name), f"/console/members/{one.org}"), "state": State(one.state)}
        rows.append(row if isinstance(row["since"], When) else row | {"since": When(one.since_ms)})
    table = Table(
        name="node-keys",
        caption=T("Keys of nodes"),
        columns=_KEY_COLUMNS,
        rows=rows,
        empty=T(
            "Keys of members' nodes would be here. Nobody has joined yet: {command}",
            command=Code(
                "iriai-broker invite create --name NAME --country CC --group GROUP --dir DIR --key FILE"
            ),
        ),
        more={"after": page[-1].org} if len(members) > PAGE else None,
        total=len(view.services.directory.members()),
    )
    return Panel(name="nodes", title=T("Keys of nodes"), table=table.sorted_by(view.query))


_NODE_STEP: Final = Code("iriai-node key rotate")


def _key_row(purpose: T, *, key: bytes, since: Mapping[str, int], step: Value) -> dict[str, Value]:
    known = since.get(digest(key))
    return {
        "purpose": purpose,
        "state": State("ok"),
        "id": Digest(key_text(key)),
        "since": Nothing(T("not in this log")) if known is None else When(known),
        "until": Nothing(T("no end")),
        "step": step,
    }


def _state(view: View, until_ms: int) -> State:
    if until_ms <= view.now_ms:
        return State("expired")
    return State("warning" if until_ms - view.now_ms < EXPIRY_WARNING_DAYS * _DAY_MS else "ok")


def _ms(moment: Any) -> int:  # noqa: ANN401  a datetime
    return int((moment - from_ms(0)).total_seconds() * 1000)
