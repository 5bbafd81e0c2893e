# SPDX-License-Identifier: Apache-2.0
"""Becoming a member: make the keys, check who answers, ask to be let in, see whether two people approved.

`join` goes in this order and stops at the first thing that does not hold:
1. the invitation can be read, has not expired and is for this URL;
2. the server shows the TLS certificate that the invitation pins;
3. the broker's document is signed by the key that the invitation pins, and names the same certificate;
4. a person compares the key's fingerprint by another way (``--yes``: somebody did already);
5. the request to join, signed by the node's own key. Then two operators approve; nothing waits for them here.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from client.answers import Answer
from client.errors import (
    AlreadyJoinedError,
    BrokerKeyError,
    InviteError,
    KeyFileError,
    NotConfirmedError,
    NotJoinedError,
    PeerAnswerError,
    PeerUnreachableError,
)
from client.identity import create_identity, load_identity, read_secret, write_secret
from client.invite import Invite, parse_invite
from client.log_keys import LogKeys
from client.pin import Broker, certificate_digest, certificate_of, leaf_of, pinned_context, read_broker
from client.progress import said, words_of
from client.settings import load_settings, save_settings, write_durably
from client.transport import BrokerClient
from policies.encoding import unb64
from policies.errors import EncodingError
from policies.identity import fingerprint, key_text, parse_key
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from client.identity import NodeIdentity
    from client.settings import Home
    from client.witnessing.vouching import Standing
    from policies.ports import Clock, Entropy

__all__ = ["Member", "alias_key", "initialise", "join", "open_member", "pinned_broker", "worker_of"]

_ALIAS_BYTES = 32


def initialise(home: Home, *, entropy: Entropy, legal_name: str = "", country: str = "") -> Answer:
    """Makes the node's keys and ids where they are missing. Safe to repeat; nothing is overwritten."""
    identity = create_identity(home, entropy)
    settings = load_settings(home, {})
    settings = replace(
        settings, legal_name=legal_name or settings.legal_name, country=country or settings.country
    )
    save_settings(home, settings)
    facts = {
        "org": identity.org,
        "node": identity.node,
        "key": key_text(identity.key.public),
        "fingerprint": fingerprint(identity.key.public),
        "dir": str(home.root),
    }
    return Answer(
        data=facts,
        text=(
            f"node         {identity.node} of {identity.org}",
            f"fingerprint  {facts['fingerprint']}",
            f"next: iriai-node join URL INVITE --dir {home.root}",
        ),
    )


def pinned_broker(home: Home) -> Broker:
    """The broker that this node joined.

    Raises:
        NotJoinedError: None yet.
        BrokerKeyError: The file was changed.
    """
    try:
        document = home.broker.read_bytes()
        key = parse_key((home.keys / "broker.pub").read_text("ascii").strip())
    except FileNotFoundError as error:
        raise NotJoinedError(
            need="a broker that this node joined",
            found="none",
            remedy=f"iriai-node join URL INVITE --dir {home.root}",
        ) from error
    return read_broker(document, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node that joined, with everything that a command needs to talk to its broker."""

    home: Home
    identity: NodeIdentity
    broker: Broker
    client: BrokerClient
    clock: Clock
    entropy: Entropy
    log_keys: LogKeys


def open_member(
    home: Home, *, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None = None
) -> Member:
    """Loads identity and pinned broker, and opens the way to it.

    Raises:
        NotInitialisedError: No keys here.
        NotJoinedError: No broker pinned.
    """
    identity = load_identity(home)
    settings = load_settings(home)
    broker = pinned_broker(home)
    client = BrokerClient(
        settings.broker_url or broker.url,
        key=identity.key,
        clock=clock,
        entropy=entropy,
        tls=pinned_context(leaf_of(broker.chain_pem)) if transport is None else None,
        timeout_s=float(settings.timeout_s),
        transport=transport,
    )
    return Member(
        home=home,
        identity=identity,
        broker=broker,
        client=client,
        clock=clock,
        entropy=entropy,
        log_keys=LogKeys(home.root / "log-keys.json", VerifierKey.parse(broker.log_vkey)),
    )


def join(
    home: Home,
    url: str,
    token: str,
    *,
    clock: Clock,
    entropy: Entropy,
    confirm: Callable[[str], bool],
    transport: httpx.BaseTransport | None = None,
) -> Answer:
    """Asks the broker of an invitation to let this node in; see the module for the order of checks.

    Args:
        home: The node's folder.
        url: Base URL, as the operator told it.
        token: The invitation.
        clock: For expiry and signatures.
        entropy: For nonces.
        confirm: Shows the fingerprint to a person and gives their answer.
        transport: Of httpx, for an application in the same process; then step 2 is left to its owner.

    Raises:
        InviteError: Step 1.
        TlsPinError: Step 2.
        BrokerKeyError: Step 3.
        NotConfirmedError: Step 4.
        RemoteRefusalError: The broker does not accept the invitation.
        AlreadyJoinedError: This node has another broker.
    """
    identity = load_identity(home)
    settings = load_settings(home)
    # 1. the invitation
    invite = _usable(parse_invite(token), url, clock)
    if home.broker.exists() and pinned_broker(home).key != invite.broker_key:
        raise AlreadyJoinedError(
            need="no broker, or the same one",
            found="another broker",
            remedy="use a folder of its own for each broker",
        )
    # 2. the certificate
    tls = None
    if transport is None:
        parts = urlsplit(invite.url)
        pem = certificate_of(
            parts.hostname or "",
            parts.port or 443,
            tls_sha256=invite.tls_sha256,
            timeout_s=float(settings.timeout_s),
        )
        tls = pinned_context(pem)
    with BrokerClient(
        invite.url, key=identity.key, clock=clock, entropy=entropy, tls=tls, transport=transport
    ) as client:
        # 3. the broker's own document
        document = client.get_bytes("/broker")
        broker = read_broker(document, invite.broker_key)
        if certificate_digest(broker.chain_pem) != invite.tls_sha256:
            raise BrokerKeyError(
                need="a broker document that names the pinned certificate",
                found="another certificate",
                remedy="ask the operator for a new invitation",
            )
        # 4. a person
        if not confirm(fingerprint(invite.broker_key)):
            raise NotConfirmedError(
                need="a fingerprint that a person compared",
                found="no confirmation",
                remedy="compare it by telephone, then repeat the command (--yes once compared)",
            )
        # 5. the request
        body = _request(identity, invite)
        body |= {
            key: value
            for key, value in (("legal_name", settings.legal_name), ("country", settings.country))
            if value
        }
        answer = client.post("/membership/join", body, idempotency_key=_idempotency(invite, identity))
    write_durably(home.keys / "broker.pub", key_text(invite.broker_key).encode("ascii") + b"\n")
    write_durably(home.certificate, broker.chain_pem.encode("ascii"))
    write_durably(home.broker, document)
    save_settings(home, replace(settings, broker_url=invite.url))
    state = str(answer.get("state", "waiting-approval")) if isinstance(answer, dict) else "waiting-approval"
    facts = {
        "state": state,
        "org": identity.org,
        "node": identity.node,
        "broker_fingerprint": fingerprint(invite.broker_key),
        "node_fingerprint": fingerprint(identity.key.public),
        "origin": broker.origin,
        "url": invite.url,
    }
    return Answer(
        data=facts,
        text=(
            f"broker       {facts['broker_fingerprint']}",
            f"this node    {facts['node_fingerprint']}",
            f"state        {state}",
            "next: two operators compare this node's fingerprint and approve; see `iriai-node status`",
        ),
    )


def _usable(invite: Invite, url: str, clock: Clock) -> Invite:
    if invite.url != url.rstrip("/"):
        raise InviteError(
            need=f"an invitation for {url}",
            found=invite.url,
            remedy="use the URL that came with the invitation",
        )
    if clock.now_ms() > invite.expires_ms:
        raise InviteError(
            need="an invitation that has not expired",
            found="an expired one",
            remedy="ask the operator for a new one",
        )
    return invite


def _request(identity: NodeIdentity, invite: Invite) -> dict[str, Any]:
    return {
        "invite_secret": invite.secret,
        "org": identity.org,
        "node": identity.node,
        "node_key": key_text(identity.key.public),
        "fleet_key_pem": identity.fleet_public_pem,
    }


def _idempotency(invite: Invite, identity: NodeIdentity) -> str:
    return f"join-{invite.id}-{identity.node}"


def membership(member: Member) -> dict[str, Any]:
    """What the broker says about this node; keeps the alias key once it is handed out.

    Raises:
        PeerAnswerError: Another form.
        KeyFileError: The alias key differs from the one that was kept.
    """
    facts = member.client.get("/membership/me")
    if not isinstance(facts, dict) or not isinstance(facts.get("state"), str):
        raise PeerAnswerError(
            need="the state of the membership", found="another form", remedy="check both versions"
        )
    encoded = facts.get("alias_key")
    if isinstance(encoded, str):
        _keep_alias_key(member.home, encoded)
    return facts


def _keep_alias_key(home: Home, encoded: str) -> None:
    wrong = KeyFileError(
        need="the alias key that was handed out first",
        found="another one",
        remedy="report it to the operator",
    )
    try:
        key = unb64(encoded)
    except EncodingError as error:
        raise wrong from error
    path = home.keys / "alias.key"
    if len(key) == _ALIAS_BYTES and not path.exists():
        write_secret(path, key)
    if len(key) != _ALIAS_BYTES or read_secret(path) != key:
        raise wrong


def alias_key(home: Home) -> bytes | None:
    """The organisation's alias key, or ``None`` before approval."""
    path = home.keys / "alias.key"
    return read_secret(path) if path.exists() else None


def status(member: Member, standings: Sequence[Standing] = ()) -> Answer:
    """Who this node is, whether it was approved, what its worker does, and who vouches for the log.

    While the broker is away, what is known here is said all the same, and then that it is away.
    """
    away: PeerUnreachableError | None = None
    try:
        facts = membership(member)
    except PeerUnreachableError as error:
        facts, away = {"state": "unknown"}, error
    worker = worker_of(member.home)
    data = {
        "state": facts["state"],
        "since_ms": facts.get("since_ms"),
        "org": member.identity.org,
        "node": member.identity.node,
        "fingerprint": fingerprint(member.identity.key.public),
        "broker_fingerprint": fingerprint(member.broker.key),
        "broker_key": key_text(member.broker.key),
        "log_vkey": member.broker.log_vkey,
        "log_vkeys": [key.text() for key in member.log_keys.all()],
        "origin": member.broker.origin,
        "url": member.client.url,
        "paused": load_settings(member.home).local.paused,
        "worker": worker,
        "witnesses": [
            {"contract": one.contract, "k": one.k, "fresh": one.fresh, "late": one.late} for one in standings
        ],
    }
    text = [
        f"state        {facts['state']}"
        + (": the broker is away; this is what is known here" if away else ""),
        f"node         {data['node']} of {data['org']}",
        f"fingerprint  {data['fingerprint']}",
        f"broker       {data['broker_fingerprint']} (pinned)",
        f"broker key   {data['broker_key']}",
        *(f"log key      {one}" for one in data["log_vkeys"]),
        f"worker       {'running' if worker['running'] else 'not running'}",
    ]
    if "progress" in worker:
        text.append(f"training     {words_of(worker['progress'])}")
    text += [
        f"witnesses    {'' if one.fresh else 'ALARM '}{one.contract[7:19]}: {one.words}"
        for one in standings
        if one.k
    ]
    text += [f"receipts     {one.late} without enough witnesses in time" for one in standings if one.late]
    if away is not None:
        return Answer(data=data, text=tuple(text), error=away)
    if facts["state"] != "active":
        text.append("next: two operators approve this node's fingerprint")
    elif not worker["running"]:
        text.append(f"next: iriai-node run --dir {member.home.root}")
    return Answer(data=data, text=tuple(text))


def worker_of(home: Home) -> dict[str, Any]:
    """Whether the worker holds its lock, and what it wrote down last."""
    running = False
    if home.lock.exists():
        with home.lock.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                running = True
    found = said(home)
    if not running:
        return {"running": False}
    return {"running": True, **{name: found[name] for name in ("pid", "progress") if name in found}}
