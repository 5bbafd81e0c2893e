# SPDX-License-Identifier: Apache-2.0
"""Duplicates across silos: a file of keyed fingerprints from one member to another, by their contract's keys.

    agreed = {"contract": digest, "fields": allowed}
    data = make_fingerprints(root, "kita/pick", **agreed, key=mine, peer=theirs, entropy=entropy)
    shared = compare_fingerprints(data, root, "minami/pick", **agreed, key=theirs, peer=mine)

- A mark is a hash of eight frames in a row of one measured field (client.data.marks); so a copy is known
  again that was saved anew, cut otherwise, or stripped of other fields. Values that were changed, also by
  another unit or rate, are not known again.
- Only fields that the contract and the site allow have marks; what a site keeps to itself has none
  (``secret``, ``x_``, ``keep_private`` in its signal map).
- What stands in the file is ``HMAC(pair key, field, mark)``. The pair key is X25519 of the two keys that the
  contract pins, so both make it without a message, and nobody else can: not the broker that relays the file,
  not another member. It is also bound to contract, direction and a nonce: two files have nothing in common,
  not even of the same data for the same reader.
- Marks are sorted and filled up with noise to `SIZES`: the reader learns a bucket, not how many episodes.
- The reader learns which of its *own* episodes the sender has, and nothing of the others. It holds the pair
  key, so it can also ask about frames that it makes up; eight frames of several measured values cannot be
  guessed. What takes few values in an episode (modes, switches, short episodes) has no marks for this reason.
- The file is signed (DSSE) by the sender, who cannot deny it afterwards.

A file is read in this order: (1) size, (2) envelope and signature by the peer's key, (3) it is for this
contract and this reader, (4) marks. Nothing else is done with it.
"""

from __future__ import annotations

import hmac
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.data.errors import FingerprintsError
from client.data.marks import SHARED, marks_of, split_marks
from client.data.quality.reading import stored_frames
from client.data.store import Store
from policies.encoding import canonical
from policies.errors import EncodingError
from policies.identity import key_text
from policies.limits import FINGERPRINT_BYTES
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from client.data.series import Array32
    from policies.identity import SigningKey
    from policies.ports import Entropy

__all__ = ["FINGERPRINTS_TYPE", "SIZES", "comparable", "compare_fingerprints", "make_fingerprints"]

FINGERPRINTS_TYPE: Final = "application/vnd.iriai.fingerprints.v1+json"
SIZES: Final = (4_096, 16_384, 65_536, 262_144, 1_048_576)  # marks of a file; 16 per episode and field
_SCHEMA: Final = "iriai-fingerprints/1"
_FIELDS: Final = ("joint_pos", "joint_vel", "joint_torque", "joint_current", "tcp_pos", "tcp_force")
_LEAST_PARTS, _LEAST_VALUES = 3, 32  # parts that take so many values in an episode; less could be guessed
_MARK_BYTES: Final = 8
_NONCE_BYTES: Final = 16
_KEYS: Final = {"schema", "contract", "sender", "reader", "nonce", "marks"}


def make_fingerprints(
    root: Path,
    dataset: str,
    *,
    contract: str,
    fields: Collection[str],
    key: SigningKey,
    peer: bytes,
    entropy: Entropy,
) -> bytes:
    """The file for one other member.

    Args:
        root: Folder of the store.
        dataset: Its name.
        contract: Digest of the contract that pins both keys.
        fields: Those that contract and site allow; others have no marks.
        key: This member's key in it.
        peer: The other member's public key in it.
        entropy: Gives nonce and noise.

    Raises:
        FingerprintsError: More marks than the largest file has.
        WeakKeyError: The other key proves nothing.
    """
    nonce = entropy.token_bytes(_NONCE_BYTES)
    secret = _secret(key, peer, contract=contract, sender=key.public, reader=peer, nonce=nonce)
    own = {one for _, frames in _episodes(root, dataset, fields) for one in _keyed(secret, frames)}
    size = next((one for one in SIZES if one >= len(own)), None)
    if size is None:
        raise _invalid(f"at most {SIZES[-1]} marks", "more", "compare data sets one after the other")
    while len(own) < size:
        own.add(entropy.token_bytes(_MARK_BYTES).hex())
    document = {
        "schema": _SCHEMA,
        "contract": contract,
        "sender": key_text(key.public),
        "reader": key_text(peer),
        "nonce": nonce.hex(),
        "marks": sorted(own),
    }
    return Envelope.seal(canonical(document), FINGERPRINTS_TYPE, key).to_bytes()


def compare_fingerprints(
    data: bytes,
    root: Path,
    dataset: str,
    *,
    contract: str,
    fields: Collection[str],
    key: SigningKey,
    peer: bytes,
) -> tuple[str, ...]:
    """Ids of this member's own episodes that the sender has too, sorted.

    Args:
        data: The file.
        root: Folder of the store.
        dataset: Name of the data set to compare.
        contract: Digest of the contract that pins both keys.
        fields: Those that contract and site allow.
        key: This member's key in it.
        peer: The sender's public key in it.

    Raises:
        FingerprintsError: Another form, or made for another contract or reader.
        SignatureInvalidError: Not signed by the peer.
    """
    document = _opened(data, contract=contract, reader=key.public, sender=peer)
    nonce = bytes.fromhex(document["nonce"])
    secret = _secret(key, peer, contract=contract, sender=peer, reader=key.public, nonce=nonce)
    theirs = set(document["marks"])
    return tuple(
        sorted(
            name
            for name, frames in _episodes(root, dataset, fields)
            if _is_shared(_fields_of(secret, frames), theirs)
        )
    )


def comparable(root: Path, dataset: str, fields: Collection[str]) -> tuple[int, int]:
    """How many episodes have marks, and how many there are: nothing can be said of the others.

    Args:
        root: Folder of the store.
        dataset: Its name.
        fields: Those that contract and site allow.
    """
    marked = [bool(_fields_of(b"", frames)) for _, frames in _episodes(root, dataset, fields)]
    return sum(marked), len(marked)


def _opened(data: bytes, *, contract: str, reader: bytes, sender: bytes) -> dict[str, Any]:
    """The checked document, in the order of the module docstring."""
    if len(data) > FINGERPRINT_BYTES:  # 1
        raise _invalid(f"at most {FINGERPRINT_BYTES} bytes", str(len(data)))
    try:
        document = Envelope.from_bytes(data).open_as(FINGERPRINTS_TYPE, sender)  # 2
    except EncodingError as error:
        raise _invalid(error.need, error.found) from error
    if not isinstance(document, dict) or set(document) != _KEYS or document["schema"] != _SCHEMA:
        raise _invalid("the keys of " + _SCHEMA, "others")
    meant = (contract, key_text(sender), key_text(reader))
    if (document["contract"], document["sender"], document["reader"]) != meant:  # 3
        raise _invalid("a file of this pair under this contract", "one for others")
    marks = document["marks"]
    shaped = (
        isinstance(marks, list) and len(marks) in SIZES and all(_is_hex(one, _MARK_BYTES) for one in marks)
    )
    if not shaped or not _is_hex(document["nonce"], _NONCE_BYTES):  # 4
        raise _invalid("marks and nonce in hex", "another form")
    return document


def _episodes(root: Path, dataset: str, fields: Collection[str]) -> Iterator[tuple[str, dict[str, Array32]]]:
    """Values of each episode that may be compared: allowed fields that the site does not keep to itself."""
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    kept = {column.split(".", 1)[1] for column in entry.private}
    open_ones = [one for one in _FIELDS if one in fields and one not in kept]
    for meta, frames in stored_frames(store.folder(dataset, entry), store.episodes(dataset)):
        found = {one: frames.columns.get(f"observation.{one}") for one in open_ones}
        yield meta.episode_id, {one: values for one, values in found.items() if values is not None}


def _keyed(secret: bytes, measured: Mapping[str, Array32]) -> set[str]:
    return {one for marks in _fields_of(secret, measured).values() for one in marks}


def _fields_of(secret: bytes, measured: Mapping[str, Array32]) -> dict[str, list[str]]:
    """Keyed marks of each measured field of an episode."""
    found = {}
    for field, values in measured.items():
        if not _is_rich(values):
            continue
        marks = split_marks(marks_of({field: values}))
        found[field] = [
            hmac.digest(secret, f"{field}\0{one}".encode("ascii"), "sha256")[:_MARK_BYTES].hex()
            for one in marks
        ]
    return found


def _is_rich(values: Array32) -> bool:
    """Whether enough parts take so many values that nobody guesses eight frames of them."""
    return sum(len(np.unique(one)) >= _LEAST_VALUES for one in values.T) >= _LEAST_PARTS


def _is_shared(own: dict[str, list[str]], theirs: set[str]) -> bool:
    """Two marks of one field are no accident."""
    counted = Counter(field for field, marks in own.items() for one in marks if one in theirs)
    return any(count >= SHARED for count in counted.values())


def _secret(
    key: SigningKey, peer: bytes, *, contract: str, sender: bytes, reader: bytes, nonce: bytes
) -> bytes:
    """The pair's key for one file (HKDF-SHA256, RFC 5869)."""
    info = canonical([_SCHEMA, contract, key_text(sender), key_text(reader)])
    return HKDF(algorithm=SHA256(), length=32, salt=nonce, info=info).derive(key.agree(peer))


def _is_hex(value: object, size: int) -> bool:
    if not isinstance(value, str) or len(value) != 2 * size:
        return False
    try:
        return bytes.fromhex(value).hex() == value
    except ValueError:
        return False


def _invalid(
    need: str, found: str, remedy: str = "ask the other member to make the file again"
) -> FingerprintsError:
    return FingerprintsError(need=need, found=found, remedy=remedy)
