# SPDX-License-Identifier: Apache-2.0
"""A counter-offer: another text in the place of the open one, for every party.

1. the text loads, as the author wrote it;
2. it is the same contract and version, and this node could sign it;
3. the linter has no error;
4. every recipe is here, byte for byte, and so is what it starts from;
5. the text for people is the one that it binds, if a file is given;
6. the lane is OFFERED, holds another text, and holds the text that it is meant to replace: the named one, or
   the one that the person is shown now;
7. a person compares the changes and the digest;
8. the lane is read again, alone: it stands where it stood when the changes were shown, or nothing is sent.

Then REQUESTED is sent; its ``prev`` and ``round`` are those of the lane in 6, so a broker refuses it too if
somebody else was first. Either way the person is told what changed in between. A counter-offer is no consent:
the new text is signed like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, short
from client.contract.comparing import change_lines, changes_for
from client.contract.consent import warnings_of
from client.contract.conversation import Conversation
from client.contract.lane_book import LaneBook
from client.contract.reading import broker_rows, fetch, resolve
from client.contract.shelf import Held, check_prose
from client.contract.signable import check_before_signing
from client.contract.starts import annexes_for
from client.errors import NoSuchThingError, NotConfirmedError, NotSignedError, RemoteRefusalError
from policies.contract import load
from policies.contract.errors import BadTransitionError, OvertakenError
from policies.contract.negotiation.pool import LaneState
from policies.encoding import b64, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from client.contract.lanes import Lane
    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract import Contract

__all__ = ["annexes_of", "counter"]

_MOST_CHANGES: Final = 8  # in the line of a refusal; all of them stand above it


def counter(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    text: str,
    *,
    confirm: Callable[[str], bool],
    instead_of: str | None = None,
    recipes: Iterable[bytes] = (),
    annexes: Iterable[bytes] = (),
    prose: bytes | None = None,
    tell: Callable[[tuple[str, ...]], None] = lambda _lines: None,
    lang: str = "en",
) -> Answer:
    """Puts another text to all parties; see the module for the steps.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Notes what leaves.
        text: YAML or canonical JSON of the counter-offer.
        confirm: Shows the first 12 hex digits to a person and gives their answer.
        instead_of: Digest of the text that it answers, or its first 12 hex digits; else the open one.
        recipes: Bytes of recipes that the open text does not have.
        annexes: Seed sets, consents and start models that the open text does not have.
        prose: The text for people, if the counter-offer binds another one.
        tell: Takes the changes that stand above the question.
        lang: ``en`` or ``ja``.

    Raises:
        ContractError: Step 1.
        NotSignedError, BrokerKeyError, StaleOfferError: Steps 2 and 3.
        NoSuchThingError: Steps 2 and 4.
        ContractInvalidError, SeedError: What a recipe starts from does not hold.
        ProseMismatchError: Step 5.
        BadTransitionError: Step 6.
        NotConfirmedError: Step 7.
        OvertakenError: Steps 6 and 8: somebody else's counter-offer came first; names what it changed.
    """
    # 1.
    contract = load(text)
    # 2.
    party = shelf.own_party(contract)
    talk = Conversation(member, outbox, str(_open_row(member, contract)["negotiation"]))
    shown = talk.read()
    base = fetch(member, shelf, shown.digest)
    # 3.
    warnings = warnings_of(contract)
    # 4.
    found = annexes_of(shelf, base, contract, recipes)
    opens = annexes_for(shelf, base, contract, found, annexes)
    # 5.
    if prose is not None and contract.prose is not None:
        check_prose(contract.prose, prose)
    check_before_signing(member, shelf, Held(contract=contract, party=party, envelope=None), found, opens)
    # 6.
    told = _Told(tell=tell, party=party.party, lang=lang)
    if instead_of is not None and (seen := resolve(member, shelf, instead_of)) != shown.digest:
        raise told.overtaken(fetch(member, shelf, seen), base, shown)
    _check_counterable(shown, contract)
    # 7.
    changes = changes_for(base.contract, contract, party.party)
    restarting = sorted(set(talk.view.lanes) - {shown.party})
    tell(_question(base, contract, shown.round + 1, restarting, change_lines(changes, party.party, lang)))
    shelf.mark_shown(base.contract)
    if not confirm(short(contract.digest)):
        raise NotConfirmedError(need="a person's word", found="no", remedy="nothing was sent")
    known = {one.recipe_digest for one in base.contract.recipes} | set(
        shelf.annex_names(base.contract.digest)
    )
    extras = {
        "contract": contract.canonical.decode("utf-8"),
        "recipes": [b64(data) for name, data in found.items() if name not in known],
        "annexes": [b64(data) for name, data in opens.items() if name not in known],
        "prose": None if prose is None else b64(prose),
    }
    with LaneBook(member.home).alone(wait=True):
        # 8.
        talk = Conversation(member, outbox, talk.negotiation)
        now = talk.read()
        if _moved(shown, now):
            raise told.overtaken(base, fetch(member, shelf, now.digest), now)
        _check_counterable(now, contract)
        shelf.put(contract, found, opens)
        if prose is not None:
            shelf.put_prose(contract, prose)
        try:
            lane = talk.say("request", contract.digest, extras=extras)
        except RemoteRefusalError as error:
            now = talk.read()
            if _moved(shown, now):
                raise told.overtaken(base, fetch(member, shelf, now.digest), now) from error
            raise
    shelf.mark_shown(contract)
    return Answer(
        data={
            "contract": contract.digest,
            "base": base.contract.digest,
            "negotiation": talk.negotiation,
            "round": lane.round,
            "lane": lane.state.value,
            "restarted": restarting,
            "changes": [dict(one) for one in changes],
            "warnings": [one.id for one in warnings],
        },
        text=(
            f"countered {contract.digest}",
            f"instead of {base.contract.digest}",
            f"round     {lane.round}; lanes that started anew: {', '.join(restarting) or 'none'}",
            f"next: iriai-node contract sign {contract.digest}",
        ),
    )


def _moved(shown: Lane, now: Lane) -> bool:
    """Whether another text took the place of the one that was shown, or took it for a while."""
    return (shown.digest, shown.round) != (now.digest, now.round)


def _check_counterable(lane: Lane, contract: Contract) -> None:
    """Returns if this lane can be answered by another text, and this is another one.

    Raises:
        BadTransitionError: It cannot, or it is not.
    """
    if lane.state is not LaneState.OFFERED or contract.digest == lane.digest:
        raise BadTransitionError(
            need=f"a lane that is OFFERED another text than {short(contract.digest)}",
            found=f"{lane.state} on {short(lane.digest)}",
            remedy="reload it: iriai-node contract list; a text that was accepted is not countered any more",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """To whom it is said that somebody else was first."""

    tell: Callable[[tuple[str, ...]], None]
    party: str
    lang: str

    def overtaken(self, seen: Held, now: Held, lane: Lane) -> OvertakenError:
        """The refusal that names the text seen, the open one, and what lies between; all of it is told."""
        changes = changes_for(seen.contract, now.contract, self.party)
        before, after = seen.contract.digest, lane.digest
        self.tell(
            (f"seen      {before}", f"open now  {after}", *change_lines(changes, self.party, self.lang))
        )
        lines = [f"{one['clause']} {one['direction']} {one['words']}" for one in changes]
        more = f"; and {len(lines) - _MOST_CHANGES} more" if len(lines) > _MOST_CHANGES else ""
        said = "; ".join(lines[:_MOST_CHANGES]) or "the same terms again"
        return OvertakenError(
            need=f"{before} as the open text, which your counter-offer answers",
            found=f"{after} in round {lane.round}, by a counter-offer that changed: {said}{more}",
            remedy=f"nothing was sent; read iriai-node contract diff {short(before)} {short(after)}, change "
            f"your text, then counter it with --instead-of {short(after)}, or sign or refuse the open one",
        )


def _open_row(member: Member, contract: Contract) -> Mapping[str, Any]:
    """The open negotiation of this version of the contract.

    Raises:
        NotSignedError: There is none.
    """
    for one in broker_rows(member):
        same = (one.get("contract_id"), one.get("version")) == (contract.contract_id, contract.version)
        if same and one.get("state") == "offered" and isinstance(one.get("negotiation"), str):
            return one
    raise NotSignedError(
        need=f"an open offer of {contract.contract_id}, version {contract.version}",
        found="none",
        remedy="keep contract_id and version of the offer: iriai-node contract list",
    )


def annexes_of(
    shelf: ContractShelf, base: Held, contract: Contract, given: Iterable[bytes]
) -> dict[str, bytes]:
    """The bytes of every recipe: those that were given, and those that the open text has.

    Raises:
        NoSuchThingError: One is missing, or one was given that the text does not name.
    """
    found = {digest(one): one for one in given}
    named = {one.recipe_digest: one for one in contract.recipes}
    strangers = sorted(set(found) - set(named))
    if strangers:
        raise NoSuchThingError(
            need="recipes that the counter-offer names",
            found=", ".join(map(short, strangers)),
            remedy="name the file's digest in a recipe clause, or leave the file out",
        )
    for name in set(named) - set(found):
        if base.contract.recipe(name) is None:
            raise NoSuchThingError(
                need=f"the bytes of recipe {named[name].id} ({name})",
                found="none",
                remedy="give the file with --recipe",
                clause=named[name].clause,
            )
        found[name] = shelf.recipe_bytes(base.contract.digest, name)
    return found


def _question(
    base: Held, contract: Contract, number: int, restarting: list[str], changes: tuple[str, ...]
) -> tuple[str, ...]:
    return (
        f"open text {base.contract.digest}",
        f"yours     {contract.digest}",
        *changes,
        f"round     {number}; these lanes start anew: {', '.join(restarting) or 'none'}",
        "sent      the whole text, to all parties; it is no signature",
    )
