# SPDX-License-Identifier: Apache-2.0
"""One person of the broker does alone what takes two: approves their own proposal to remove a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.auth.proposals import PROPOSAL_TYPE
from policies.encoding import b64, unb64
from policies.signing import Envelope
from sandbox.attacks.attack import Attack, Finding, control, defence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.identity import SigningKey
    from sandbox.attacks.ground import Ground
    from sandbox.attacks.wire import Heard

__all__ = ["ALONE"]

_BROKER: Final = "the broker: names are compared, whichever key or way they come by"


def _alone(ground: Ground) -> Iterator[Finding]:
    federation, victim = ground.federation, ground.federation.sites[3]
    alice, bob = ground.operator_key(0), ground.operator_key(1)
    org = str(federation.node(victim, "status")["org"])
    made = ground.wire.ask(alice, "POST", f"/operator/organisations/{org}/revoke", {"reason": "test"})
    yield control("one operator may propose to remove a member", held=made.accepted, found=made.words)
    proposal = made.body.get("proposal", {})
    own = _approve(ground, alice, proposal, signer=alice)
    yield defence(
        "their own approval of it is refused",
        by=_BROKER,
        code=own.code,
        wanted=("proposal.own",),
        found=own.words,
    )
    forged = _approve(ground, bob, proposal, signer=alice)
    yield defence(
        "nor does their signature count in another person's request",
        by="the broker: the second person's own signature over the exact bytes is asked for",
        code=forged.code,
        wanted=("identity.signature-invalid",),
        found=forged.words,
    )
    other = _approve(ground, bob, proposal | {"digest": "sha256:" + "0" * 64}, signer=bob)
    yield defence(
        "an approval of other bytes than were proposed is refused",
        by="the broker: the subject's bytes are made again and compared",
        code=other.code,
        wanted=("proposal.digest",),
        found=other.words,
    )
    mine = ground.wire.ask(ground.node_key(victim), "GET", "/membership/me")
    state = mine.body.get("state")
    yield Finding(what="the member is still one", held=state == "active", found=str(state or mine.words))
    ended = ground.wire.ask(
        bob, "POST", f"/operator/proposals/{proposal.get('id')}/refuse", {"reason": "test.over"}
    )
    yield control("the other operator has a say, and refuses it", held=ended.accepted, found=ended.words)


def _approve(ground: Ground, who: SigningKey, proposal: dict[str, Any], *, signer: SigningKey) -> Heard:
    signature = Envelope.seal(unb64(proposal["subject"]), PROPOSAL_TYPE, signer).signatures[0][1]
    body = {"digest": proposal["digest"], "signature": b64(signature)}
    return ground.wire.ask(who, "POST", f"/operator/proposals/{proposal['id']}/approve", body)


ALONE: Final = Attack(
    threat="S9",
    words="an operator approves what they proposed themselves",
    tried="An operator proposes to remove a member, then approves it: by the own key, in another's request, "
    "and with other bytes.",
    gain="One dishonest or coerced person at the broker removes members, activates contracts, changes keys.",
    left="Two operators together may do all of it; the log shows both names. One alone may stop things.",
    act=_alone,
)
