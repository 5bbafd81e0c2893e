# SPDX-License-Identifier: Apache-2.0
"""Attacks by what goes over the wire: a request that was captured, one that was altered, one about others.

The requests are those of our own programs, signed by keys that are enrolled; the attacker has what somebody
between the two would see, or a member's own key. Each request is first sent as it was meant.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from policies.encoding import canonical, digest, unb64
from sandbox.attacks.attack import Attack, Finding, control, defence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.attacks.ground import Ground
    from sandbox.attacks.wire import Heard
    from sandbox.federation import Site

__all__ = ["FOREIGN", "REPLAY", "SWAP"]

_INVITES: Final = "/operator/invites"
_GUEST: Final = {"legal_name": "Guest Robotics AB", "country": "SE", "group": "guest"}
_RIVAL: Final = _GUEST | {"legal_name": "Rival AG", "country": "DE"}
_BROKER: Final = "the broker, before it does anything"


def _invitations(ground: Ground) -> int:
    """Invitations in the log: what an operator did is an entry."""
    told = ground.wire.ask(ground.operator_key(0), "GET", "/log/entries?type=console.action")
    return sum(1 for one in told.body["entries"] if '"action":"invite.create"' in one["entry"])


def _refused(what: str, answer: Heard, *, wanted: tuple[str, ...], by: str = _BROKER) -> Finding:
    return defence(what, by=by, code=answer.code, wanted=wanted, found=answer.words)


def _replay(ground: Ground) -> Iterator[Finding]:
    alice = ground.operator_key(0)
    request = ground.wire.signed(alice, "POST", _INVITES, _GUEST)
    first = ground.wire.send(request)
    yield control("the request as its sender sent it is done", held=first.accepted, found=first.words)
    before = _invitations(ground)
    answers = [ground.wire.send(request) for _ in range(5)]
    last = next((one for one in answers if one.accepted), answers[-1])
    wanted = ("identity.replayed",)
    yield _refused("the captured bytes, sent five times more, are refused", last, wanted=wanted)
    after = _invitations(ground)
    held = before == after > 0
    yield Finding(what="and had no second effect", held=held, found=f"{before} invitations, then {after}")
    moved = ground.wire.with_path(
        ground.wire.signed(alice, "GET", "/operator/invites?x=1"), "/operator/status"
    )
    yield _refused(
        "a captured signature, sent to another address, is refused",
        ground.wire.send(moved),
        wanted=("identity.signature-invalid",),
    )


def _swap(ground: Ground) -> Iterator[Finding]:
    alice = ground.operator_key(0)
    meant = ground.wire.ask(alice, "POST", _INVITES, _GUEST)
    yield control("a body under its own signature is taken", held=meant.accepted, found=meant.words)
    before = _invitations(ground)
    request = ground.wire.signed(alice, "POST", _INVITES, _GUEST)
    wanted = ("identity.signature-invalid",)
    swapped = ground.wire.send(ground.wire.with_body(request, _RIVAL))
    yield _refused("another body under the signed headers is refused", swapped, wanted=wanted)
    named = {"content-digest": f"sha-256=:{_digest_b64(_RIVAL)}:"}
    fitted = ground.wire.send(ground.wire.with_body(request, _RIVAL, **named))
    yield _refused("and so it is with a digest that fits it", fitted, wanted=wanted)
    after = _invitations(ground)
    yield Finding(
        what="nobody was invited by it", held=before == after > 0, found=f"{before} before, {after} after"
    )


def _digest_b64(body: object) -> str:
    return base64.b64encode(bytes.fromhex(digest(canonical(body))[7:])).decode("ascii")


def _foreign(ground: Ground) -> Iterator[Finding]:
    """A member asks for what is another member's alone, by its right id."""
    victim, thief = ground.federation.sites[1], ground.federation.sites[0]
    entry = _own_entry(ground, victim)
    path = f"/receipts/{entry}"
    own = ground.wire.ask(ground.node_key(victim), "GET", path)
    yield control("its owner reads the receipt by this id", held=own.accepted, found=own.words)
    foreign = ground.wire.ask(ground.node_key(thief), "GET", path)
    by = "the broker: who asks is who signed, and the entry is not theirs"
    wanted = ("request.not-found",)
    yield _refused("the same id, asked by another member, is not there", foreign, wanted=wanted, by=by)
    nothing = ground.wire.ask(ground.node_key(thief), "GET", f"/receipts/{'0' * len(entry)}")
    same = {
        name: value for name, value in foreign.body.items() if name not in ("found", "instance", "detail")
    }
    none = {
        name: value for name, value in nothing.body.items() if name not in ("found", "instance", "detail")
    }
    yield Finding(
        what="and the answer is the one for an id that does not exist",
        held=(foreign.status, same) == (nothing.status, none),
        found=f"HTTP {foreign.status} and HTTP {nothing.status}",
    )
    lists = ground.wire.ask(ground.node_key(thief), "GET", "/operator/organisations")
    yield _refused(
        "a member on an operator's route is refused", lists, wanted=("identity.wrong-role",), by=_BROKER
    )


def _own_entry(ground: Ground, site: Site) -> str:
    """Id of the entry of the first envelope that a site's node signed, as its owner reads it."""
    told = ground.wire.ask(ground.node_key(site), "GET", "/membership/envelopes")
    return digest(unb64(told.body["envelopes"][0]["envelope"]["payload"]))[7:39]


REPLAY: Final = Attack(
    threat="T2",
    words="a captured signed request is sent again",
    tried="Somebody between a person and the broker keeps a signed request, and sends the same bytes again.",
    gain="The act happens twice: a second invitation, vote or release that nobody asked for.",
    left="A request that never arrived at the broker can be delivered later, within the window of the clock.",
    act=_replay,
)
SWAP: Final = Attack(
    threat="T7",
    words="the body of a signed request is swapped",
    tried="The headers of a signed request are kept under another body; then its digest is made to fit.",
    gain="The operator's signature would stand under an act of the attacker's choice.",
    left="Whoever has the operator's key file signs what they like; what takes two needs another person.",
    act=_swap,
)
FOREIGN: Final = Attack(
    threat="I6",
    words="a member asks for another member's things by their right ids",
    tried="A member's node, with its own valid key, asks for ids that belong to another member.",
    gain="What another member sent and when, who the members are, and whether an id is somebody's.",
    left="Sizes and times of the log's growth, which everybody who reads checkpoints sees.",
    act=_foreign,
)
