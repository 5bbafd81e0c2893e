# SPDX-License-Identifier: Apache-2.0
"""Project Wycheproof's Ed25519 cases (151), through `policies.identity.verify`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from policies.errors import SignatureInvalidError
from policies.identity import check_public_key, verify

_SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
_FILE = _SHARED / "vectors" / "wycheproof" / "ed25519_test.json"
_SKIP = pytest.mark.skipif(not _FILE.is_file(), reason=f"no vectors at {_FILE}")


@_SKIP
def test_all_cases_agree():
    suite = json.loads(_FILE.read_text(encoding="utf-8"))
    accepted, refused = 0, 0
    for group in suite["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        check_public_key(key)
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            if case["result"] == "valid":
                verify(key, signature, message)
                accepted += 1
            else:
                with pytest.raises(SignatureInvalidError):
                    verify(key, signature, message)
                refused += 1
    print(
        f"\nWycheproof Ed25519: {accepted + refused} of {suite['numberOfTests']} passed"
        f" ({accepted} valid accepted, {refused} invalid refused)"
    )
    assert accepted + refused == suite["numberOfTests"]
    assert (accepted, refused) == (88, 63)
