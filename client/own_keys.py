# SPDX-License-Identifier: Apache-2.0
"""By which keys this node is known: public halves and fingerprints only, read from the files as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.answers import Answer, table
from client.errors import NotJoinedError
from client.identity import load_identity
from client.keyring import read_history
from client.membership import pinned_broker
from client.witnessing.key import witness_key
from policies.identity import fingerprint, key_text
from policies.log.cosignature import cosigner_vkey
from policies.log.witness_keys import witness_name

if TYPE_CHECKING:
    from client.settings import Home
    from policies.ports import Entropy

__all__ = ["key_show"]


def key_show(home: Home, *, entropy: Entropy) -> Answer:
    """Every public key of this node, those that it had, and the broker's that it pinned.

    Args:
        home: The node's folder.
        entropy: Of a witness key, where there is none yet.

    Raises:
        KeyFileError: A file of keys is not in order.
    """
    identity = load_identity(home)
    vkey = cosigner_vkey(witness_key(home, entropy), witness_name(identity.org)).text()
    former = [{"key": one.old, "until": one.at} for one in read_history(home.keys).handovers]
    follows = None if identity.next_key is None else key_text(identity.next_key.public)
    try:
        broker = fingerprint(pinned_broker(home).key)
    except NotJoinedError:
        broker = None
    data = {
        "key": key_text(identity.key.public),
        "fingerprint": fingerprint(identity.key.public),
        "witness": vkey,
        "former": former,
        "next": follows,
        "broker_fingerprint": broker,
    }
    rows = [("former key", "until"), *((one["key"], one["until"]) for one in former)]
    return Answer(
        data=data,
        text=(
            f"key          {data['key']}",
            f"fingerprint  {data['fingerprint']}",
            f"witness      {vkey}",
            f"broker       {broker or 'none pinned yet'}",
            *(() if follows is None else (f"next key     {follows}: repeat iriai-node key rotate",)),
            *(table(rows[0], rows[1:]) if former else ()),
        ),
    )
