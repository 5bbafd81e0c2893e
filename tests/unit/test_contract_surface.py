# SPDX-License-Identifier: Apache-2.0
"""The package's public face: names resolve lazily, errors carry codes, reading needs only the base installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import policies
import policies.contract as package
from policies.contract import errors
from policies.errors import IriaiError


def test_every_public_name_resolves_and_has_a_docstring():
    assert sorted(package.__all__) == sorted(package._WHERE)
    for name in package.__all__:
        value = getattr(package, name)
        if not isinstance(value, str):
            assert value.__doc__, name
    with pytest.raises(AttributeError):
        package.nonsense  # noqa: B018


def test_every_error_has_its_own_code_and_exit_code():
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        assert issubclass(kind, IriaiError)
        assert kind.code.split(".")[0] in ("contract", "negotiation")
        assert kind.exit_code in (2, 3, 4, 6, 7)
        assert kind.code in errors.__doc__ or kind.code == "contract.error"


def test_importing_the_evaluator_loads_no_framework():
    code = (
        "import sys, policies.contract.decision, policies.contract.clauses, policies.contract.signatures;"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'pydantic','yaml','numpy','http_message_signatures'}))"
    )
    root = Path(policies.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"
