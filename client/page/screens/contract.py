# SPDX-License-Identifier: Apache-2.0
"""Contract: what may my data be used for, by whom, until when, and what is being negotiated?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.contract.comparing import changes_for
from client.contract.notices import Notices
from client.contract.reading import contract_list, standing_of
from client.contract.showing import contract_show
from client.errors import NoSuchThingError
from client.page.panels import heard, shown
from client.page.screens.home import STANDINGS, held_contracts
from client.page.values import (
    Code,
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Fact,
    Link,
    Mark,
    Moment,
    Panel,
    Screen,
    Several,
    Spoken,
    Table,
    msg,
)
from client.settings import load_settings
from policies.identity import fingerprint, parse_key
from policies.ports import to_ms

if TYPE_CHECKING:
    from client.contract.shelf import Held
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["contract"]

_CONTRACTS: Final = "/contracts"
_DIRECTIONS: Final = {
    "tighter": Mark("good", msg("tighter"), "tighter"),
    "looser": Mark("bad", msg("looser"), "looser"),
    "changed": Mark("warn", msg("changed"), "changed"),
    "text": Mark("idle", msg("words only"), "text"),
}


def contract(site: Site, asked: Asked) -> Screen:
    """The screen; ``digest`` chooses a contract, the one that rules if left out."""
    return Screen(
        name="contract",
        title=msg("My contract"),
        question=msg("What may my data be used for?"),
        command="iriai-node contract show --lang " + asked.lang,
        panels=(
            shown("which", msg("Which contract"), lambda: _which(site, asked)),
            shown("duties", msg("What it means for you"), lambda: _duties(site, asked)),
            shown("own", msg("Your own, tighter rules"), lambda: _own(site)),
            shown("parties", msg("Who signed"), lambda: _parties(site, asked)),
            shown("negotiations", msg("Open negotiations"), lambda: _negotiations(site)),
            shown("kept", msg("Kept by software: it refuses"), lambda: _clauses(site, asked, law=False)),
            shown("law", msg("Kept by people and courts only"), lambda: _clauses(site, asked, law=True)),
        ),
    )


def _chosen(site: Site, asked: Asked) -> Held:
    """The contract that is asked about; else the newest that everybody signed, else the newest."""
    found = list(held_contracts(site))
    wanted = asked.text("digest")
    if wanted is not None:
        found = [one for one in found if one.contract.digest == wanted]
    if not found:
        raise NoSuchThingError(
            need="a contract that is here",
            found="none" if wanted is None else ascii(wanted)[:80],
            remedy="iriai-node contract list; iriai-node contract show DIGEST fetches one that was offered",
        )
    return next((one for one in found if one.is_executed), found[0])


def _shown(site: Site, asked: Asked, held: Held) -> dict[str, Any]:
    digest = held.contract.digest
    found: dict[str, Any] = site.once(
        f"contract {digest}",
        lambda: contract_show(site.home, site.member, site.shelf, site.outbox, digest, lang=asked.lang).data,
    )
    return found


def _which(site: Site, asked: Asked) -> Panel:
    held, now_ms = _chosen(site, asked), site.clock.now_ms()
    one = held.contract
    facts = (
        Fact("title", msg("Title"), Data(one.title)),
        Fact("digest", msg("Digest"), Digest(one.digest, whole=True)),
        Fact("version", msg("Version"), one.version),
        Fact("standing", msg("State"), STANDINGS.get(standing_of(site.shelf, held, now_ms))),
        Fact("party", msg("You are"), Data(f"{held.party.party} ({held.party.role}, {held.party.group})")),
        Fact("begins", msg("Begins"), Moment(to_ms(one.term.effective))),
        Fact("ends", msg("Ends"), Moment(to_ms(one.term.expires))),
        *_halts(site, held),
    )
    others = [other for other in held_contracts(site) if other.contract.digest != one.digest]
    links = tuple(
        Link(
            "/contract",
            msg("Another contract: {digest}", digest=Digest(other.contract.digest)),
            {"digest": other.contract.digest},
        )
        for other in others
    )
    return Panel(name="which", title=msg("Which contract"), facts=facts, links=links)


def _halts(site: Site, held: Held) -> tuple[Fact, ...]:
    life = Notices(site.shelf).life(held)
    halts = tuple(
        msg("{party} at {at}: {why}", party=Data(one.party), at=Moment(to_ms(one.at)), why=Code(one.code))
        for one in life.halts
    )
    left = tuple(Data(name) for name in life.exited)
    return (
        Fact("halts", msg("Halted by"), Several(halts, lines=True)),
        Fact("left", msg("Who left"), Several(left)),
    )


def _duties(site: Site, asked: Asked) -> Panel:
    held = _chosen(site, asked)
    rows = tuple(
        (Code(one["clause"]), Spoken(one["words"], asked.lang)) for one in _shown(site, asked, held)["duties"]
    )
    return Panel(
        name="duties",
        title=msg("What it means for you"),
        table=Table(msg("What the contract means for you"), _SENTENCES, rows),
    )


_SENTENCES: Final = (Column("clause", msg("Clause")), Column("words", msg("In words")))


def _clauses(site: Site, asked: Asked, *, law: bool) -> Panel:
    data = _shown(site, asked, _chosen(site, asked))
    by_law = set(data["law_only"])
    lines = [one for one in data["clauses"] if (one in by_law) == law]
    title = msg("Kept by people and courts only") if law else msg("Kept by software: it refuses")
    name = "law" if law else "kept"
    if not lines:
        empty = Empty(
            msg("Here stand the clauses that only people and courts keep."), msg("This contract has none.")
        )
        return Panel(name=name, title=title, empty=empty)
    rows = tuple(_sentence(one, asked.lang) for one in lines)
    return Panel(name=name, title=title, table=Table(msg("Clause by clause"), _SENTENCES, rows))


def _sentence(line: str, lang: str) -> tuple[Value, ...]:
    """``[clause] sentence`` as two cells."""
    clause, _, words = line.removeprefix("[").partition("] ")
    return (Code(clause), Spoken(words, lang))


def _own(site: Site) -> Panel:
    rules = load_settings(site.home).local
    whole = msg("as in the contract")
    facts = (
        Fact("paused", msg("Pause"), msg("paused") if rules.paused else msg("not paused")),
        Fact("datasets", msg("Data sets"), whole if rules.datasets is None else _names(rules.datasets)),
        Fact("fields", msg("Fields"), whole if rules.fields is None else _names(rules.fields)),
        Fact("epsilon_total", msg("Cap of ε under a contract"), rules.epsilon_total or whole),
        Fact("epsilon_lifetime", msg("Cap of ε over the life of new data"), rules.epsilon_lifetime or whole),
        Fact(
            "vote",
            msg("Votes on candidates"),
            msg("by the recipe's rule") if rules.vote == "auto" else msg("yours, by hand"),
        ),
    )
    return Panel(
        name="own",
        title=msg("Your own, tighter rules"),
        prose=(
            msg("They only tighten: none of them lets through what the contract refuses. They are in {file}.",
                file=Code(str(site.home.settings))),
        ),
        facts=facts,
    )  # fmt: skip


def _names(names: tuple[str, ...]) -> Several:
    return Several(tuple(Data(one) for one in names))


def _parties(site: Site, asked: Asked) -> Panel:
    held = _chosen(site, asked)
    signed = held.is_executed
    rows = tuple(
        (
            Data(one.party),
            Data(one.role),
            Data(one.group),
            Code(one.country),
            Data(fingerprint(parse_key(one.key))),
            _signed(signed=signed),
        )
        for one in held.contract.parties
    )
    columns = (
        Column("party", msg("Party")),
        Column("role", msg("Role")),
        Column("group", msg("Group")),
        Column("country", msg("Country")),
        Column("fingerprint", msg("Fingerprint of its key")),
        Column("signed", msg("Signature")),
    )
    return Panel(name="parties", title=msg("Who signed"), table=Table(msg("The parties"), columns, rows))


def _signed(*, signed: bool) -> Mark:
    if signed:
        return Mark("good", msg("signed, checked here"), "signed")
    return Mark("warn", msg("not all signatures are here"), "unknown")


def _negotiations(site: Site) -> Panel:
    title = msg("Open negotiations")
    answer = contract_list(site.member, site.shelf)
    rows = [one for one in answer.data["contracts"] if one.get("state") == "offered"]
    if not rows:
        panel = Panel(
            name="negotiations",
            title=title,
            empty=Empty(
                msg("Here stands each text that waits for signatures, and what changes if you sign it."),
                msg("Nothing is offered to you now."),
                Command("iriai-node contract list"),
            ),
        )
        return heard(site, _CONTRACTS, panel)
    found = [_offer(site, one) for one in rows]
    columns = (
        Column("digest", msg("Text")),
        Column("title", msg("Title")),
        Column("until", msg("Sign by")),
        Column("waiting", msg("Waits for")),
        Column("changes", msg("What changes if you sign")),
        Column("next", msg("Next step")),
    )
    table = Table(msg("Texts that wait for signatures"), columns, tuple(found))
    return heard(site, _CONTRACTS, Panel(name="negotiations", title=title, table=table))


def _offer(site: Site, row: dict[str, Any]) -> tuple[Value, ...]:
    digest = str(row["digest"])
    until = row.get("sign_by")
    return (
        Digest(digest),
        Data(str(row.get("title", ""))),
        Moment(to_ms(until)) if isinstance(until, str) else None,
        Several(tuple(Data(str(one)) for one in row.get("waiting_for") or ())),
        _changes(site, digest),
        Command(f"iriai-node contract show {digest.removeprefix('sha256:')[:12]}"),
    )


def _changes(site: Site, digest: str) -> Value:
    """How the offered text differs from the one that rules; it is fetched by the command, not by a page."""
    if digest not in site.shelf.digests():
        return msg("not read here yet: the next step fetches it")
    offered = site.shelf.get(digest)
    ruling = site.shelf.in_force(offered.contract.contract_id)
    if ruling is None:
        return msg("everything: no version of it is in force yet")
    found = changes_for(ruling.contract, offered.contract, offered.party.party)
    return Several(
        tuple(
            msg(
                "{clause} {how}: {words}",
                clause=Code(one["clause"]),
                how=_DIRECTIONS[one["direction"]],
                words=Spoken(one["words"]),
            )
            for one in found
        ),
        lines=True,
    )
