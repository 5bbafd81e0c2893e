# SPDX-License-Identifier: Apache-2.0
"""The six public vectors of RFC 8785 (JSON Canonicalization Scheme), through our own function."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from policies.encoding import canonical

_SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
_VECTORS = _SHARED / "vectors" / "jcs"
_NAMES = sorted(path.stem for path in (_VECTORS / "input").glob("*.json")) if _VECTORS.is_dir() else []
_SKIP = pytest.mark.skipif(not _NAMES, reason=f"no vectors at {_VECTORS}")


@_SKIP
def test_all_six_vectors_are_there_and_pass():
    assert _NAMES == ["arrays", "french", "structures", "unicode", "values", "weird"]
    passed = [name for name in _NAMES if _published(name)]
    print(f"\nJCS (RFC 8785): {len(passed)} of {len(_NAMES)} vectors passed")
    assert passed == _NAMES


@_SKIP
@pytest.mark.parametrize("name", _NAMES or ["absent"])
def test_canonical_bytes_are_the_published_ones(name):
    assert _published(name)


def _published(name: str) -> bool:
    data = canonical(json.loads((_VECTORS / "input" / f"{name}.json").read_text(encoding="utf-8")))
    octets = bytes.fromhex((_VECTORS / "outhex" / f"{name}.txt").read_text(encoding="ascii"))
    return data == (_VECTORS / "output" / f"{name}.json").read_bytes() == octets
