# SPDX-License-Identifier: Apache-2.0
"""Proof vectors of the transparency-dev project: 196 inclusion and consistency proofs, right and wrong ones."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from policies.log.errors import ProofError
from policies.log.merkle import verify_consistency, verify_inclusion

_SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
_VECTORS = _SHARED / "vectors" / "merkle"
_FILES = sorted(_VECTORS.rglob("*.json")) if _VECTORS.is_dir() else []
_SKIP = pytest.mark.skipif(not _FILES, reason=f"no vectors at {_VECTORS}")


def _hash(text: str | None) -> bytes:
    return base64.b64decode(text) if text else b""


def _check(case: dict[str, object]) -> None:
    proof = [_hash(one) for one in case["proof"] or []]
    if "leafIdx" in case:
        verify_inclusion(
            index=case["leafIdx"],
            size=case["treeSize"],
            leaf_hash=_hash(case["leafHash"]),
            proof=proof,
            root=_hash(case["root"]),
        )
    else:
        verify_consistency(
            size1=case["size1"],
            size2=case["size2"],
            root1=_hash(case["root1"]),
            root2=_hash(case["root2"]),
            proof=proof,
        )


@_SKIP
def test_all_vectors_are_there() -> None:
    assert len(_FILES) == 196


@_SKIP
@pytest.mark.parametrize("path", _FILES, ids=lambda path: str(path.relative_to(_VECTORS)))
def test_verifier_agrees_with_the_vector(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    if case["wantErr"]:
        with pytest.raises(ProofError):
            _check(case)
    else:
        _check(case)
