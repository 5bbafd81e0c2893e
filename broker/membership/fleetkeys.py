# SPDX-License-Identifier: Apache-2.0
"""The key with which a node proves its connection to the fleet API: P-256, in one PEM spelling."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.membership.errors import FleetKeyError
from policies.limits import FLEET_KEY_CHARS

__all__ = ["check_fleet_key"]


def check_fleet_key(pem: str) -> str:
    """The fleet key in the one PEM spelling that is compared and stored.

    Raises:
        FleetKeyError: Not a P-256 public key in PEM.
    """
    remedy = "send the public half of keys/fleet.key as iriai-node writes it"
    if len(pem) > FLEET_KEY_CHARS:
        raise FleetKeyError(need=f"at most {FLEET_KEY_CHARS} characters", found="more", remedy=remedy)
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FleetKeyError(need="a public key in PEM", found="something else", remedy=remedy) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FleetKeyError(need="a P-256 key", found="another kind of key", remedy=remedy)
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode("ascii")
