# SPDX-License-Identifier: Apache-2.0
"""What the commands about proposals do: look what waits for a second person, approve it, refuse it.

An approval signs exactly the bytes that the broker showed, once a person read them in words: the command
takes the digest of those bytes itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, short, table
from broker.auth.proposal_errors import ProposalDigestError
from broker.auth.proposals import PROPOSAL_TYPE
from broker.errors import NotConfirmedError, UsageError
from policies.encoding import b64, digest, unb64
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from broker.commands import Where

__all__ = ["proposal_approve", "proposal_list", "proposal_refuse", "proposal_show", "proposed"]

_OPEN: Final = "proposed"
_TITLES: Final = ("title", "legal_name", "name")  # what a subject is called, where it is called anything


def proposal_list(where: Where, *, everything: bool = False) -> Result:
    """Lists what waits for somebody; with ``everything`` also what is over."""
    with where.client() as client:
        listed = client.get("/operator/proposals")["proposals"]
    shown = [one for one in listed if everything or one["state"] == _OPEN]
    rows = [
        (
            one["id"],
            one["kind"],
            one["state"],
            one["proposer"],
            " ".join(by["name"] for by in one["behind"]) or "nobody yet",
            iso_s(one["expires_ms"]),
            short(one["digest"]),
        )
        for one in shown
    ]
    head = ("PROPOSAL", "WHAT", "STATE", "PROPOSED BY", "BEHIND IT", "UNTIL", "DIGEST")
    empty = "nothing waits for a second person"
    return Result(data={"proposals": shown}, text=table(head, rows, empty=empty))


def proposal_show(where: Where, name: str) -> Result:
    """Shows one proposal in words."""
    with where.client() as client:
        found = client.get(f"/operator/proposals/{name}")
    return Result(data=found, text=_words(found))


def proposal_approve(
    where: Where,
    name: str,
    *,
    expected: str | None,
    confirm: Callable[[tuple[str, ...]], bool],
    brief: bool = False,
) -> Result:
    """Signs one person's approval of exactly what is shown.

    Args:
        where: The broker, and who approves.
        name: The proposal's id.
        expected: The digest that it must have; None takes what is shown.
        confirm: Shows the words to a person and gives their answer.
        brief: Show title and digest alone: the person read the rest before.

    Raises:
        ProposalDigestError: The broker showed something else than ``expected``.
        UsageError: It showed two things at once.
        NotConfirmedError: ``confirm`` said no.
    """
    with where.client() as client:
        found = client.get(f"/operator/proposals/{name}")
        subject = unb64(found["subject"])
        seen = digest(subject)
        _check_same(found, subject, seen)
        if expected is not None and expected.removeprefix("sha256:") != seen.removeprefix("sha256:"):
            raise ProposalDigestError(
                need=f"the digest {expected}",
                found=seen,
                remedy=f"do not approve; look again: iriai-broker proposal show {plain(name)}",
            )
        if not confirm(_brief(found) if brief else _words(found)):
            raise NotConfirmedError(
                need=f"a yes to {seen}",
                found="no confirmation",
                remedy="read it, then repeat the command (--digest, or --yes)",
            )
        signature = Envelope.seal(subject, PROPOSAL_TYPE, client.key).signatures[0][1]
        done = client.post(
            f"/operator/proposals/{name}/approve", {"digest": seen, "signature": b64(signature)}
        )
    return Result(data=done, text=_after(done))


def proposal_refuse(where: Where, name: str, *, reason: str) -> Result:
    """Ends a proposal."""
    with where.client() as client:
        done = client.post(f"/operator/proposals/{name}/refuse", {"reason": reason})
    return Result(data=done, text=(f"{plain(name)}: {plain(done['proposal']['state'])}; nothing was done",))


def proposed(done: Mapping[str, Any]) -> Result:
    """What a command says that only proposes."""
    found = done["proposal"]
    return Result(
        data=dict(done),
        text=(
            *_words(found),
            "nothing was done yet. Next, another person:",
            f"  iriai-broker proposal approve {plain(found['id'])} --key FILE",
        ),
        plain_output=str(found["id"]),
    )


def _check_same(found: Mapping[str, Any], subject: bytes, seen: str) -> None:
    """The words that are shown are those of the bytes that are signed."""
    said = json.loads(subject)
    shown = (found["digest"], found["kind"], found["id"], found["what"])
    if shown != (seen, said.get("action"), said.get("proposal"), said.get("what")):
        raise UsageError(
            need="a proposal that is what its bytes say", found="another one", remedy="look at the broker"
        )


def _words(found: Mapping[str, Any]) -> tuple[str, ...]:
    behind = [f"{plain(one['name'])} ({plain(one['how'])})" for one in found["behind"]]
    decided = found["decided_by"]
    ended = f", by {plain(decided)}" if decided else ""
    return (
        f"proposal     {plain(found['id'])}: {plain(found['kind'])}, {plain(found['state'])}{ended}",
        f"proposed by  {plain(found['proposer'])}",
        f"behind it    {', '.join(behind) or 'nobody yet'}, of {found['needs']} people",
        *(
            ()
            if behind
            else ("             its text is not the one that was offered: two people approve it",)
        ),
        f"until        {iso_s(found['expires_ms'])}",
        f"digest       {plain(found['digest'])}",
        *(f"  {name:<20} {plain(value)}" for name, value in _facts(found["what"])),
        *(() if found["why"] is None else (f"because      {plain(found['why'])}",)),
    )


def _brief(found: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person read before, by its title and its digest, and where all of it stands."""
    what = found["what"]
    title = next((what[name] for name in _TITLES if what.get(name)), None)
    return (
        f"proposal     {plain(found['id'])}: {plain(found['kind'])}",
        *(() if title is None else (f"about        {plain(title)}",)),
        f"digest       {plain(found['digest'])}",
        f"all of it    iriai-broker proposal show {plain(found['id'])}",
    )


def _facts(tree: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every fact of a subject on a line of its own."""
    if isinstance(tree, dict):
        for key, value in sorted(tree.items()):
            yield from _facts(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree, start=1):
            yield from _facts(value, f"{name} {number}")
    else:
        yield name, "-" if tree is None else tree


def _after(done: Mapping[str, Any]) -> tuple[str, ...]:
    found, result = done["proposal"], done["result"]
    if result is None:
        names = ", ".join(one["name"] for one in found["behind"])
        return (f"{plain(found['id'])}: waits for one more person; behind it: {plain(names)}",)
    word = "final once all have signed" if result.get("waiting_for") else f"{plain(found['kind'])} is done"
    return (
        f"{plain(found['id'])}: approved; {word}",
        *(f"  {name:<20} {plain(value)}" for name, value in _facts(result)),
    )
