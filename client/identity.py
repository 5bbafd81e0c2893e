# SPDX-License-Identifier: Apache-2.0
"""Who this node is: keys that are made here, stay here and are checked each time they are read.

- ``keys/node.key`` (Ed25519) signs requests, replies, contracts and envelopes. ``keys/fleet.key`` (P-256)
  proves the connection to the fleet API. ``keys/unit.key`` (32 bytes) turns an episode's content into its id.
  ``keys/alias.key`` (32 bytes) comes from the broker after approval and gives this organisation's aliases.
- ``keys/next.key`` is there while the node's key changes (`client.rotating`); ``keys/history.json`` tells
  which keys there were before (`client.keyring`). ``node.key`` is the last of them, or nothing is loaded.
- Files have mode 0600 in a folder of mode 0700; one that another account can read is refused, not repaired.
- `create_identity` never overwrites; running it twice changes nothing.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.errors import KeyFileError
from client.keyring import NEXT, next_key, read_history
from client.settings import Home, write_durably
from policies.encoding import canonical, new_id
from policies.errors import WeakKeyError
from policies.identity import SigningKey, key_text

if TYPE_CHECKING:
    from pathlib import Path

    from policies.ports import Entropy

__all__ = ["NodeIdentity", "create_identity", "load_identity", "read_secret", "write_secret"]

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """Ids and keys of this node. ``repr`` never shows a key.

    Attributes:
        org: Id of the organisation.
        node: Id of the node.
        key: Signs everything that this node says.
        fleet_key: Proves the connection to the fleet API.
        unit_key: Turns an episode's content into its id.
        former: Public keys that this node had before, oldest first.
        next_key: The key that is about to follow, while a change of key is under way.
    """

    org: str
    node: str
    key: SigningKey = field(repr=False)
    fleet_key: ec.EllipticCurvePrivateKey = field(repr=False)
    unit_key: bytes = field(repr=False)
    former: tuple[bytes, ...] = ()
    next_key: SigningKey | None = field(default=None, repr=False)

    def holding(self, key: str | None) -> SigningKey:
        """The key of this node that has this public key; the present one for any other."""
        following = self.next_key
        return following if following is not None and key_text(following.public) == key else self.key

    @property
    def fleet_public_pem(self) -> str:
        """Public half of the fleet key as PEM, the form in which the fleet API compares it."""
        return (
            self.fleet_key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )


def write_secret(path: Path, data: bytes) -> None:
    """Writes a new secret file of mode 0600.

    Raises:
        FileExistsError: It is there already; secrets are never overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_secret(path: Path) -> bytes:
    """Bytes of a secret file that nobody else can read.

    Raises:
        KeyFileError: It is missing, is no plain file, belongs to another account, or its mode lets others in.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise KeyFileError(
            need=f"the key file {path}",
            found=type(error).__name__,
            remedy="iriai-node init, or restore it from the backup",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise KeyFileError(
                need=f"mode 0600 of {path}",
                found=f"{stat.S_IMODE(status.st_mode):04o}",
                remedy=f"find out who read it; if nobody did: chmod 600 {path}",
            )
        if status.st_uid not in {os.geteuid(), 0}:
            raise KeyFileError(
                need=f"{path} owned by this account",
                found=f"uid {status.st_uid}",
                remedy="run as the owner of the node",
            )
        return file.read()


def _close_to_others(folder: Path) -> None:
    try:
        folder.chmod(0o700)
    except PermissionError as error:
        raise KeyFileError(
            need=f"{folder} owned by this account",
            found="another account's folder",
            remedy="give the node a folder of its own",
        ) from error


def create_identity(home: Home, entropy: Entropy) -> NodeIdentity:
    """Makes what is missing of the node's keys and ids and loads the whole. Safe to repeat.

    Raises:
        KeyFileError: A file that is there already is not in order.
    """
    home.keys.mkdir(parents=True, exist_ok=True)
    for folder in (home.root, home.keys):
        _close_to_others(folder)
    fleet = ec.generate_private_key(ec.SECP256R1())
    fresh = {
        "node.key": SigningKey.from_seed(entropy.token_bytes(_SECRET_BYTES)).to_pem(),
        "fleet.key": fleet.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "unit.key": entropy.token_bytes(_SECRET_BYTES),
    }
    for name, data in fresh.items():
        if not (home.keys / name).exists():
            write_secret(home.keys / name, data)
    ids = home.root / "identity.json"
    if not ids.exists():
        made = {
            "org": new_id("org", entropy.token_bytes(10)),
            "node": new_id("node", entropy.token_bytes(10)),
        }
        write_durably(ids, canonical(made))
    return load_identity(home)


def load_identity(home: Home) -> NodeIdentity:
    """Ids and keys of an existing node.

    Raises:
        NotInitialisedError: There is none.
        KeyFileError: A key file can be read by others, or holds something else.
    """
    home.need()
    try:
        key = SigningKey.from_pem(read_secret(home.keys / "node.key"))
        fleet = serialization.load_pem_private_key(read_secret(home.keys / "fleet.key"), password=None)
        ids = json.loads((home.root / "identity.json").read_bytes())
        org, node = str(ids["org"]), str(ids["node"])
    except (WeakKeyError, ValueError, TypeError, KeyError, OSError) as error:
        raise KeyFileError(
            need=f"the keys and identity.json of {home.root}",
            found=type(error).__name__,
            remedy="restore the folder from the backup; keys are never made anew for a member",
        ) from error
    if not isinstance(fleet, ec.EllipticCurvePrivateKey) or not isinstance(fleet.curve, ec.SECP256R1):
        raise KeyFileError(
            need="a P-256 key in keys/fleet.key", found="another kind", remedy="restore it from the backup"
        )
    unit_key = read_secret(home.keys / "unit.key")
    if len(unit_key) != _SECRET_BYTES:
        raise KeyFileError(
            need="32 bytes in keys/unit.key", found=str(len(unit_key)), remedy="restore it from the backup"
        )
    history = read_history(home.keys)
    if not history.knows(key.public):
        raise KeyFileError(
            need="keys/node.key as the last key of keys/history.json",
            found="another key",
            remedy="restore the folder keys as a whole from the backup",
        )
    following = home.keys / NEXT
    return NodeIdentity(
        org=org,
        node=node,
        key=key,
        fleet_key=fleet,
        unit_key=unit_key,
        former=history.former(key.public),
        next_key=next_key(home.keys, read_secret(following) if following.exists() else None),
    )
