# SPDX-License-Identifier: Apache-2.0
"""Steps 2 and 3 of the loader: who signed the manifest, and whether the members are the signed ones.

Nothing but manifest and signature is parsed here, and of the manifest no more than its list of members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.deploy.archive import check_sum
from client.deploy.errors import (
    PackageDigestError,
    PackageManifestError,
    PackageMemberError,
    PackageSignerError,
    PackageSizeError,
    PackageStatementError,
    PackageUnsignedError,
)
from client.deploy.graphs import WEIGHTS
from client.deploy.manifest import PAYLOAD_TYPE
from policies.encoding import digest, parse
from policies.errors import EncodingError
from policies.identity import key_id
from policies.limits import PACKAGE_TEXT_BYTES
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.deploy.archive import Stored

__all__ = [
    "AASX",
    "ADAPTER",
    "CARD",
    "GRAPH",
    "LATENCY",
    "MANIFEST",
    "RECIPE",
    "SBOM",
    "SIGNATURE",
    "STATEMENT",
    "check_members",
    "signer_of",
]

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "signature.dsse"
GRAPH: Final = "model.onnx"
STATEMENT: Final = "statement.json"
AASX: Final = "aas/model.aasx"
CARD: Final = "MODEL_CARD.md"
LATENCY: Final = "latency.json"
RECIPE: Final = "recipe.json"
SBOM: Final = "sbom.json"
ADAPTER: Final = "adapter.json"
_TEXTS: Final = (CARD, LATENCY, RECIPE, SBOM, STATEMENT)
_OPTIONAL: Final = frozenset({ADAPTER, AASX, WEIGHTS})
_REMEDY: Final = "get the package again from whoever made it; it never runs like this"


def signer_of(members: Mapping[str, Stored], keys: Sequence[bytes]) -> bytes:
    """Step 2: the pinned key that signed the manifest.

    Raises:
        PackageUnsignedError: No signature that holds over exactly these bytes.
        PackageSignerError: One, by another key.
    """
    missing = [name for name in (MANIFEST, SIGNATURE) if name not in members]
    if missing:
        raise _unsigned("no " + " and no ".join(missing))
    signature, manifest = members[SIGNATURE].data, members[MANIFEST].data
    if len(signature) > PACKAGE_TEXT_BYTES:
        raise _unsigned("a signature that is too large")
    try:
        envelope = Envelope.from_bytes(bytes(signature))
    except EncodingError as error:
        raise _unsigned("a signature of another form") from error
    if envelope.payload_type != PAYLOAD_TYPE or envelope.payload != manifest:
        raise _unsigned("a signature over other bytes")
    found = next((key for key in keys if envelope.signed_by(key)), None)
    if found is not None:
        return found
    hints = {hint for hint, _ in envelope.signatures}
    if hints & {key_id(key) for key in keys}:
        raise _unsigned("a signature that does not hold")
    raise PackageSignerError(
        need="a signature by one of " + ", ".join(key_id(key) for key in keys),
        found="signatures hinting at " + (", ".join(ascii(hint)[:20] for hint in sorted(hints)) or "nobody"),
        remedy="compare fingerprints by telephone; then name the key: iriai-node models check --key",
    )


def _unsigned(found: str) -> PackageUnsignedError:
    return PackageUnsignedError(
        need="a signature by a pinned key over exactly this manifest.json", found=found, remedy=_REMEDY
    )


def check_members(members: Mapping[str, Stored]) -> None:
    """Step 3, on the manifest's list alone: its other parts are read when all digests hold.

    Raises:
        PackageManifestError: No list.
        PackageMemberError: A member that is not listed, or that is not there.
        PackageDigestError: Other bytes.
        PackageFormError: A sum in the archive that is not its member's.
        PackageStatementError: No privacy statement.
        PackageSizeError: A text beyond its bound.
    """
    listed = _listed(members[MANIFEST])
    for name in members:
        if name not in listed and name not in {MANIFEST, SIGNATURE}:
            raise PackageMemberError(
                need="members that the manifest lists", found=f"{name} beside them", remedy=_REMEDY
            )
    for name, (size, sha256) in listed.items():
        if name not in members:
            raise PackageMemberError(need=f"the member {name}", found="none", remedy=_REMEDY)
        data = bytes(members[name].data)
        if len(data) != size or digest(data) != sha256:
            raise PackageDigestError(
                need=f"{name} with {size} bytes and the signed digest", found="other bytes", remedy=_REMEDY
            )
    for one in members.values():
        check_sum(one)
    _check_layout(members)


def _listed(stored: Stored) -> dict[str, tuple[int, str]]:
    """Size and digest by name, as the signed manifest lists them."""
    try:
        rows = parse(bytes(stored.data))["members"]
        return {str(row["name"]): (int(row["size"]), str(row["sha256"])) for row in rows}
    except (EncodingError, KeyError, TypeError, ValueError) as error:
        raise PackageManifestError(
            need="a canonical manifest with a list of members", found="another form", remedy=_REMEDY
        ) from error


def _check_layout(members: Mapping[str, Stored]) -> None:
    """Members that a package has, may have, and no others; texts within their bound."""
    if STATEMENT not in members:
        raise PackageStatementError(need=STATEMENT, found="none", remedy=_REMEDY)
    needed = {MANIFEST, SIGNATURE, GRAPH, *_TEXTS}
    if missing := sorted(needed - set(members)):
        raise PackageMemberError(need=missing[0], found="none", remedy=_REMEDY)
    if foreign := sorted(set(members) - needed - _OPTIONAL):
        raise PackageMemberError(
            need="members of a package of this version", found=foreign[0], remedy="update this program"
        )
    for name in (*_TEXTS, *({ADAPTER} & set(members))):
        if len(members[name].data) > PACKAGE_TEXT_BYTES:
            raise PackageSizeError(
                need=f"{name} of at most {PACKAGE_TEXT_BYTES} bytes", found="more", remedy=_REMEDY
            )
