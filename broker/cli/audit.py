# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker audit`` and ``iriai-broker auditor``: what auditors are given, and who they are."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["audit", "auditor"]

audit = typer_group("What an auditor is given, may be shown, and says.")
auditor = typer_group("Who audits.")


@command(audit, "bundle", effect="a bundle is written to {out}, and the log tells that it was taken")
def audit_bundle(
    *,
    out: Annotated[Path, typer.Option("--out", help="New file.")],
    as_auditor: Annotated[
        bool, typer.Option("--as-auditor", help="You are an enrolled auditor: --key is your key.")
    ] = False,
    since: Annotated[
        int, typer.Option("--since", min=0, help="Size that you audited last, for the record.")
    ] = 0,
    signed: Annotated[
        bool, typer.Option("--signed", help="Up to the newest signed head, also without its witnesses.")
    ] = False,
    where: Where,
) -> Result:
    """Takes everything that an offline audit needs, as one file."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_bundle(where, out, as_auditor=as_auditor, since=since, signed=signed)


@command(audit, "vectors")
def audit_vectors(
    *,
    directory: Home,
    run_id: Annotated[str, typer.Option("--run", help="Whose masked vectors.")],
    out: Annotated[Path, typer.Option("--out", help="New folder.")],
) -> Result:
    """Copies the masked vectors of a run that are still kept, for an auditor who redoes its sums."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_vectors(directory, run_id, out)


@command(audit, "rows")
def audit_rows(
    *,
    directory: Home,
    out: Annotated[Path, typer.Option("--out", help="New folder.")],
    private: Annotated[
        bool, typer.Option("--private", help="The private store too: every confidential value.")
    ] = False,
) -> Result:
    """Writes the tables that an auditor lays beside the log, on the broker's host."""
    from broker.commands.audit_rows import audit_rows as write

    return write(directory, out, private=private)


@command(audit, "policy")
def audit_policy(
    *,
    contracts: Annotated[
        list[str] | None, typer.Option("--contract", help="Accept only this one, repeatable.")
    ] = None,
    where: Where,
) -> Result:
    """Prints a policy file for an auditor, to be compared by another way."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_policy(where, contracts or [])


@command(audit, "disclosures", effect="values of 256 entries are shown, and the log tells of it")
def audit_disclosures(
    *,
    start: Annotated[int, typer.Option("--from", min=0, help="First entry of the page.")] = 0,
    where: Where,
) -> Result:
    """Shows an enrolled auditor the values of 256 entries that grants open, one JSON line each."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_disclosures(where, start)


@command(audit, "grant", effect="{name} may be shown {fields} of every entry from {start} on")
def audit_grant(
    name: str,
    *,
    fields: Annotated[str, typer.Option("--fields", help="Names with commas between, or * for all.")],
    start: Annotated[int, typer.Option("--from", min=0, help="First entry that is opened.")] = 0,
    days: Annotated[
        int | None, typer.Option("--days", min=1, help="How long; default: until it is revoked.")
    ] = None,
    where: Where,
) -> Result:
    """Lets an auditor be shown confidential fields."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_grant(where, name, fields, start=start, days=days)


@command(audit, "grants")
def audit_grants(where: Where) -> Result:
    """Lists grants: to whom, what, until when."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_grants(where)


@command(audit, "revoke", effect="grant {grant} ends at once")
def audit_revoke(grant: str, where: Where) -> Result:
    """Ends a grant at once."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_revoke(where, grant)


@command(
    audit,
    "erase",
    effect="{fields} of entries {indexes} are erased for good; nobody can bring them back",
    asks=True,
)
def audit_erase(
    *,
    indexes: Annotated[list[int], typer.Option("--index", min=0, help="Of an entry, repeatable.")],
    fields: Annotated[list[str], typer.Option("--field", help="A confidential field, repeatable.")],
    reason: Annotated[str, typer.Option("--reason", help="A reason code, such as data-subject-request.")],
    where: Where,
) -> Result:
    """Erases confidential values for good. Proofs, receipts and later audits stay valid."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_erase(where, indexes=indexes, fields=fields, reason=reason)


@command(audit, "conclude", effect="the conclusion in {file} enters the log")
def audit_conclude(file: Path, where: Where) -> Result:
    """Hands in an auditor's signed conclusion, with the auditor's key or an operator's."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_conclude(where, file)


@command(audit, "timestamp", effect="the newest witnessed checkpoint is stamped by {authority} and kept")
def audit_timestamp(
    *,
    authority: Annotated[str, typer.Option("--tsa", help="URL of a time-stamping authority (RFC 3161).")],
    anchors: Annotated[Path, typer.Option("--tsa-ca", help="Its certificates (PEM), root first.")],
    where: Where,
) -> Result:
    """Has the newest witnessed checkpoint stamped by somebody outside the pool."""
    from broker.commands import audit as commands_audit

    return commands_audit.audit_timestamp(where, authority=authority, anchors=anchors)


@command(auditor, "add", effect="{name} may ask as an auditor, with this key")
def auditor_add(
    name: str,
    *,
    auditor_key: Annotated[str, typer.Option("--auditor-key", help="The auditor's public key, ed25519:….")],
    where: Where,
) -> Result:
    """Enrols an auditor under a name and a key of their own."""
    from broker.commands import audit as commands_audit

    return commands_audit.auditor_add(where, name, auditor_key)


@command(auditor, "list")
def auditor_list(where: Where) -> Result:
    """Lists auditors, former ones too."""
    from broker.commands import audit as commands_audit

    return commands_audit.auditor_list(where)


@command(auditor, "witness", effect="that the witness in {statement} may vote is proposed to a second person")
def auditor_witness(
    statement: Annotated[Path, typer.Argument(help="From `iriai-verify witness --statement`.")], where: Where
) -> Result:
    """Registers an enrolled auditor's witness, and proposes its vote; the auditor may register it too."""
    from broker.commands import audit as commands_audit

    return commands_audit.auditor_witness(where, statement)


@command(
    auditor,
    "revoke",
    effect="access and grants of {name} end at once; a vote of its witness ends only by two",
    asks=True,
)
def auditor_revoke(
    name: str,
    where: Where,
    *,
    reason: Annotated[
        str, typer.Option("--reason", help="A reason code, such as key-lost.")
    ] = "operator-decision",
) -> Result:
    """Ends an auditor's access at once, and every grant with it."""
    from broker.commands import audit as commands_audit

    return commands_audit.auditor_revoke(where, name, reason=reason)
