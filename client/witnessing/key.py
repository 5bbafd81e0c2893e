# SPDX-License-Identifier: Apache-2.0
"""This node's witness key, and the statement in which its own key names it.

    keys/witness.key     PKCS #8 PEM, mode 0600; made on first use, never replaced by a program
    witness.json         the statement (DSSE), as it was registered

A witness key is no identity key: what it signs says only that one history of the log was seen, and once, in
the statement, that this node holds it. The statement is made again when the node's key changed, when somebody
moved the witness key away and a new one was made, and where an earlier version left that proof out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from client.errors import KeyFileError
from client.identity import read_secret, write_secret
from client.settings import write_durably
from policies.errors import IriaiError, WeakKeyError
from policies.identity import SigningKey
from policies.log.cosignature import cosigner_vkey
from policies.log.witness_keys import open_statement, seal_statement, witness_name
from policies.signing import Envelope

if TYPE_CHECKING:
    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["own_statement", "witness_key"]

_SEED_BYTES: Final = 32
KEY: Final = "witness.key"


def witness_key(home: Home, entropy: Entropy) -> SigningKey:
    """The key, made if it is missing.

    Raises:
        KeyFileError: Others can read the file, or it holds something else.
    """
    path = home.keys / KEY
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process was faster
            write_secret(path, SigningKey.from_seed(entropy.token_bytes(_SEED_BYTES)).to_pem())
    try:
        return SigningKey.from_pem(read_secret(path))
    except WeakKeyError as error:
        raise KeyFileError(
            need=f"an Ed25519 key in {path}",
            found=error.found,
            remedy="restore it from the backup, or move it away: a new one is made and registered",
        ) from error


def own_statement(
    home: Home, identity: NodeIdentity, key: SigningKey, *, origin: str, clock: Clock
) -> Envelope:
    """The statement about this key under the node's present key: the one on the disk, or a new one."""
    vkey = cosigner_vkey(key, witness_name(identity.org))
    path = home.root / "witness.json"
    with contextlib.suppress(IriaiError, FileNotFoundError):
        kept = Envelope.from_bytes(path.read_bytes())
        said = open_statement(kept, identity.key.public, log=origin)
        if said.key == vkey and said.proven:
            return kept
    made = seal_statement(
        identity.key,
        witness=key,
        log=origin,
        org=identity.org,
        vkey=vkey.text(),
        time_ms=clock.now_ms(),
    )
    write_durably(path, made.to_bytes())
    return made
