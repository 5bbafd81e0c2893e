# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract``: read it in plain words, negotiate it, sign it, stop it, leave it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import (
    Clause,
    Every,
    Lang,
    Language,
    Open,
    Text,
    Yes,
    accept,
    ask,
    command,
    group,
    opened,
    retype,
    tell,
)

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["contract"]

contract = group("The contract: read it, negotiate it, sign it, stop it, leave it.")

_WAIT_S = 20
_ENDS = "You are about to end this round for ALL parties, by refusing the text whose digest begins with:"
_PROSE = "The text for people (PDF), as you hold it; its hash is compared."


Annexes = Annotated[
    list[Path] | None,
    typer.Option("--annex", help="A new seed set, consent or start model that it names; repeatable."),
]


class AmendmentKind(StrEnum):
    """How a successor enters."""

    TIGHTEN = "tighten"
    CHANGE = "change"


def _bytes(path: Path) -> bytes:
    """Bytes of a file that a person named.

    Raises:
        NoSuchThingError: It cannot be read.
    """
    from client.errors import NoSuchThingError

    try:
        return path.read_bytes()
    except OSError as error:
        raise NoSuchThingError(
            need=f"the file {path}", found=type(error).__name__, remedy="check its name"
        ) from error


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", errors="replace")  # what is no UTF-8 is refused as text that differs


@command(contract, "list")
def contract_list(one: Open) -> Answer:
    """This node's contracts: state, standing, your lane, its deadline, and who is waited for."""
    from client.contract import reading as contracts

    return contracts.contract_list(one.member, one.shelf)


@command(contract, "show")
def contract_show(
    digest: Annotated[
        str | None, typer.Argument(help="Digest, or its first 12 digits; the newest if left out.")
    ] = None,
    *,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """The contract in plain words, your own duties first, each sentence with its clause id; works offline."""
    from client.contract import showing

    return showing.contract_show(one.home, one.member, one.shelf, one.outbox, digest, lang=lang)


@command(contract, "diff")
def contract_diff(
    first: Annotated[str | None, typer.Argument(help="Digest; what you saw last if left out.")] = None,
    second: Annotated[str | None, typer.Argument(help="Digest; the open offer if left out.")] = None,
    *,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """What changes between two texts, per clause: tighter, looser or other; what touches you first."""
    from client.contract import comparing

    return comparing.contract_diff(one.member, one.shelf, first, second, lang=lang)


@command(contract, "sign")
def contract_sign(
    digest: Annotated[
        str, typer.Argument(help="Digest, or its first 12 digits; with --yes all 64, as contract list shows.")
    ],
    *,
    prose: Annotated[Path | None, typer.Option("--prose", help=_PROSE)] = None,
    acknowledged: Annotated[
        list[str] | None, typer.Option("--acknowledge", help="Id of a warning that you accept; repeatable.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--acknowledge-all", help="Accept every warning, shown or not.")
    ] = False,
    wait_s: Annotated[
        int, typer.Option("--wait-s", min=0, max=3600, help="Seconds to wait for the others to accept.")
    ] = _WAIT_S,
    lang: Lang = Language.EN,
    home: Home,
    yes: Yes = False,
) -> Answer:
    """Checks text, pins, recipes, dates and warnings, accepts, and signs once everybody has accepted."""
    from client.contract import signing
    from client.errors import NotConfirmedError
    from policies.encoding import is_digest

    if yes and not is_digest(digest):
        raise NotConfirmedError(
            need="the whole digest with --yes, sha256: and 64 hex digits: 12 are enough where you type them",
            found=digest[:80],
            remedy="name it whole, as iriai-node contract list shows it; or type 12 digits without --yes",
        )
    with opened(home) as one:
        return signing.sign(
            one.member,
            one.shelf,
            one.outbox,
            digest,
            confirm=retype(
                "You are about to accept the contract whose digest begins with:", yes=yes, quiet=bool(yes)
            ),
            acknowledge=accept(everything=every, lang=lang, quiet=bool(yes)),
            acknowledged=tuple(acknowledged or ()),
            prose=None if prose is None else _bytes(prose),
            wait_s=wait_s,
            tell=tell,
            brief=bool(yes),
        )


@command(contract, "counter")
def contract_counter(
    file: Path,
    *,
    instead_of: Annotated[
        str | None,
        typer.Option("--instead-of", help="Digest of the text that you answer; the open one if left out."),
    ] = None,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipe", help="A recipe that the open text lacks; repeatable.")
    ] = None,
    annexes: Annexes = None,
    prose: Annotated[Path | None, typer.Option("--prose", help="The text for people that it binds.")] = None,
    lang: Lang = Language.EN,
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Puts another text (YAML or JSON) to all parties in the place of the open one: a new round begins."""
    from client.contract import countering

    return countering.counter(
        one.member,
        one.shelf,
        one.outbox,
        _text(file),
        confirm=retype("You are about to put this text to all parties:", yes=yes),
        instead_of=instead_of,
        recipes=[_bytes(path) for path in recipes or ()],
        annexes=[_bytes(path) for path in annexes or ()],
        prose=None if prose is None else _bytes(prose),
        tell=tell,
        lang=lang,
    )


@command(contract, "amend")
def contract_amend(
    file: Path,
    *,
    kind: Annotated[
        AmendmentKind,
        typer.Option("--kind", help="tighten: yours alone, proven no looser; change: everybody signs."),
    ],
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipe", help="A recipe that is new; repeatable.")
    ] = None,
    annexes: Annexes = None,
    prose: Annotated[
        Path | None, typer.Option("--prose", help="The text for people that a change binds.")
    ] = None,
    lang: Lang = Language.EN,
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Amends the contract in force by a successor (YAML or JSON): shows every difference, proves it, asks."""
    from client.contract import amending

    return amending.amend(
        one.member,
        one.shelf,
        one.outbox,
        _text(file),
        kind=kind.value,
        confirm=retype("You are about to amend the contract by this text:", yes=yes),
        recipes=[_bytes(path) for path in recipes or ()],
        annexes=[_bytes(path) for path in annexes or ()],
        prose=None if prose is None else _bytes(prose),
        tell=tell,
        lang=lang,
    )


@command(contract, "refuse")
def contract_refuse(
    digest: str,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like terms.privacy-too-weak.")],
    clause: Clause = None,
    text: Text = None,
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Asks, then refuses the open text: this round is over for all. What you accepted is not signed."""
    from client.contract import negotiating

    return negotiating.refuse(
        one.member,
        one.shelf,
        one.outbox,
        digest,
        code=reason,
        confirm=ask(_ENDS, yes=yes),
        clause=clause,
        text=text,
    )


@command(contract, "explain")
def contract_explain(
    name: Annotated[str, typer.Argument(metavar="DECISION|RUN", help="Digest of a decision, or a run's id.")],
    *,
    every: Every = False,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """Why this node's gate decided so: each finding with its clause in words, the remedy, and whose it is."""
    from client.contract import explaining

    return explaining.explain_any(one.outbox, one.shelf, name, every=every, lang=lang)


@command(contract, "dry-run")
def contract_dry_run(
    file: Path,
    *,
    against: Annotated[
        str | None, typer.Option("--against", help="Contract whose records are meant; else all its versions.")
    ] = None,
    one: Open,
) -> Answer:
    """Tries a text (YAML or JSON) on this node's past rounds: what it would have refused. Writes nothing."""
    from client.contract import dryrun

    return dryrun.dry_run_at_home(one.outbox, one.shelf, _text(file), against=against)
