# SPDX-License-Identifier: Apache-2.0
"""The certificate of a data set: made from a report, signed, kept beside the data, and void when they change.

- ``data_root``: per episode a leaf, HMAC-SHA256 of its facts under a key of its own, which follows from the
  site's salt and the episode. Leaves are sorted and filled up to a round number with keyed noise, so that
  neither order nor number shows, not even when one is opened.
- The salt follows from the node's unit key and the data set's name: the certificate of the same files is the
  same after the store was lost, and equal episodes of two sites, or of two data sets, look unrelated.
- ``signal_maps`` are keyed with the same salt: a one-line map with a shipped profile is a dictionary word,
  and equal maps would link members.
- Check 6 is measured against a recipe, and a certificate knows none: it says ``NOT_APPLICABLE``, and a node's
  guard makes the check itself (client.data.quality.admitting).
- `verified` compares what is kept with a report of now: other data, another map, answer, threshold or
  check, and it is void.

The file is ``<root>/quality/<data set>/certificate.dsse``.
"""

from __future__ import annotations

import hmac
from importlib import metadata
from typing import TYPE_CHECKING, Final

from client.data.catalogue import keyed
from client.data.errors import CertificateVoidError, DatasetUnknownError
from client.data.quality.accepted import folder_of
from client.settings import write_durably
from policies.errors import EncodingError, SignatureInvalidError
from policies.log.merkle import leaf_hash, prove_inclusion, root_from_leaves
from policies.ports import Clock, from_ms
from policies.quality_certificate import (
    CHECKS,
    RULES,
    CertificateInvalidError,
    Opening,
    QualityCertificate,
    keyed_leaf,
    open_certificate,
    seal_certificate,
)
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from client.data.quality.report import QualityReport
    from policies.identity import SigningKey

__all__ = ["certify", "open_episode", "read_certificate", "save_certificate", "statement", "verified"]

_SMALLEST: Final = 1024  # leaves of a tree; the next sizes are four times as large each
_REMEDY: Final = "iriai-node data check, then publish the new certificate"


def certify(report: QualityReport, *, node: str, node_key: bytes, key: SigningKey, clock: Clock) -> Envelope:
    """The signed certificate of a report.

    Args:
        report: Of `check_dataset`.
        node: This node's id.
        node_key: Secret of this node that episodes are keyed with.
        key: Signs.
        clock: Gives the day.
    """
    return seal_certificate(statement(report, node=node, node_key=node_key, clock=clock), key)


def statement(report: QualityReport, *, node: str, node_key: bytes, clock: Clock) -> QualityCertificate:
    """What the certificate of a report says, unsigned.

    Raises:
        CertificateInvalidError: More signal maps than a certificate has room for.
    """
    tree = _Tree(report.facts, _salt(node_key, report.dataset))
    return QualityCertificate.parse(
        {
            "schema": "iriai-quality-certificate/1",
            "node": node,
            "dataset": report.dataset,
            "data_root": f"sha256:{tree.root.hex()}",
            "checks": RULES,
            "thresholds": report.thresholds,
            "signal_maps": _maps(report.signal_maps, _salt(node_key, report.dataset)),
            "states": {**{name: report.states[name] for name in CHECKS}, "tracking": "NOT_APPLICABLE"},
            "excluded": report.excluded_word,
            "verdict": report.verdict,
            "tool": f"iriai/{metadata.version('iriai')}",
            "at": from_ms(clock.now_ms()).strftime("%Y-%m-%d"),
        }
    )


def open_episode(report: QualityReport, digest: str, *, node_key: bytes) -> Opening:
    """One episode of the certificate, for an auditor whom the owner shows it to.

    Raises:
        DatasetUnknownError: No such episode.
    """
    facts = next((one for one in report.facts if one["episode"] == digest), None)
    if facts is None:
        raise DatasetUnknownError(
            need="the digest of an episode of the data set",
            found=ascii(digest)[:70],
            remedy="iriai-node data show lists them",
        )
    return _Tree(report.facts, _salt(node_key, report.dataset)).opening(facts)


def save_certificate(root: Path, dataset: str, envelope: Envelope) -> Path:
    """Keeps a certificate beside the data; returns its path."""
    path = folder_of(root, dataset) / "certificate.dsse"
    write_durably(path, envelope.to_bytes())
    return path


def read_certificate(
    root: Path, dataset: str, keys: Collection[bytes]
) -> tuple[QualityCertificate, Envelope]:
    """The certificate that is kept, and its envelope.

    Args:
        root: Folder of the store.
        dataset: Its name.
        keys: Public keys of this node, the present one and former ones; one of them must have signed.

    Raises:
        CertificateVoidError: There is none, or none that this node signed.
    """
    path = folder_of(root, dataset) / "certificate.dsse"
    try:
        envelope = Envelope.from_bytes(path.read_bytes())
    except (OSError, EncodingError) as error:
        raise _void(f"{type(error).__name__} of {path.name}") from error
    for key in keys:
        try:
            found = open_certificate(envelope, key)
        except SignatureInvalidError:
            continue
        except (EncodingError, CertificateInvalidError) as error:
            raise _void(error.code) from error
        if found.dataset != dataset:
            raise _void("the certificate of another data set")
        return found, envelope
    raise _void("no signature by this node")


def verified(
    certificate: QualityCertificate, report: QualityReport, *, node_key: bytes, clock: Clock
) -> QualityCertificate:
    """The certificate, once it says what a report of now says.

    Raises:
        CertificateVoidError: Data, map, answers, thresholds or checks changed since it was signed.
    """
    now = statement(report, node=certificate.node, node_key=node_key, clock=clock)
    if certificate.says_the_same(now):
        return certificate
    changed = [
        name
        for name in ("data_root", "signal_maps", "thresholds", "states", "excluded", "verdict")
        if getattr(now, name) != getattr(certificate, name)
    ]
    raise _void(f"{', '.join(changed)} changed since it was signed")


def _void(found: str) -> CertificateVoidError:
    return CertificateVoidError(
        need="a certificate of these data as they are now", found=found, remedy=_REMEDY
    )


def _salt(node_key: bytes, dataset: str) -> bytes:
    return keyed(node_key, "iriai-quality-salt/1", dataset.encode("ascii"))


def _maps(digests: Collection[str], salt: bytes) -> list[str]:
    """Maps under the site's salt: a plain digest of a well-known map could be looked up, and link sites."""
    keyed_ones = {hmac.digest(salt, b"map" + one.encode("ascii"), "sha256").hex() for one in digests}
    return sorted(f"sha256:{one}" for one in keyed_ones)


class _Tree:
    """The leaves of a data set in their tree."""

    def __init__(self, facts: Sequence[Mapping[str, str]], salt: bytes) -> None:
        self._salt = salt
        size = _SMALLEST
        while size < len(facts):
            size *= 4
        own = [leaf_hash(keyed_leaf(self._key(one), one)) for one in facts]
        noise = [
            leaf_hash(hmac.digest(salt, b"pad" + place.to_bytes(8, "big"), "sha256"))
            for place in range(size - len(own))
        ]
        self._leaves = sorted([*own, *noise])
        self.root = root_from_leaves(self._leaves)

    def _key(self, facts: Mapping[str, str]) -> bytes:
        return hmac.digest(self._salt, b"leaf" + bytes.fromhex(facts["episode"]), "sha256")

    def opening(self, facts: Mapping[str, str]) -> Opening:
        """One leaf with its way to the root."""
        key = self._key(facts)
        index = self._leaves.index(leaf_hash(keyed_leaf(key, facts)))
        proof = prove_inclusion(
            index, len(self._leaves), lambda first, last: root_from_leaves(self._leaves[first:last])
        )
        return Opening(facts=dict(facts), key=key, index=index, size=len(self._leaves), proof=tuple(proof))
