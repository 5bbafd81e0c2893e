# SPDX-License-Identifier: Apache-2.0
"""``sbom.json``: the model and the programs that made it and run it, as CycloneDX 1.6 JSON.

No serial number, no time: the same installation and the same graph give the same bytes. Versions are those
of the installed distributions; one that is not installed is left out. A common package, which goes to
others, names the first two numbers of each (`shared_versions`): what is needed to judge it, and not the patch
level of a site's machine.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["minor", "sbom", "shared_versions", "versions"]

_VERSION: Final = re.compile(r"([0-9]+\.[0-9]+)[0-9A-Za-z.+-]*", re.ASCII)
_MADE_WITH: Final = ("iriai", "numpy", "onnx", "onnxruntime", "onnxscript", "torch")


def versions() -> dict[str, str]:
    """Names and versions of what exports, checks and runs a graph, Python with them."""
    found = {"python": platform.python_version()}
    for name in _MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def minor(text: str) -> str:
    """A text in which every version has its first two numbers alone."""
    return _VERSION.sub(r"\1", text)


def shared_versions(installed: Mapping[str, str]) -> dict[str, str]:
    """Names and versions as a common package tells them."""
    return {name: minor(told) for name, told in installed.items()}


def sbom(*, model: str, name: str, graph: str, installed: Mapping[str, str]) -> bytes:
    """Canonical bytes of the list.

    Args:
        model: Digest of the weights.
        name: Of the model.
        graph: Digest of ``model.onnx``.
        installed: As `versions` gives them.
    """
    libraries: list[dict[str, Any]] = [
        {
            "type": "platform" if library == "python" else "library",
            "name": library,
            "version": told,
            "bom-ref": f"{library}@{told}",
        }
        | ({} if library == "python" else {"purl": f"pkg:pypi/{library}@{told.replace('+', '%2B')}"})
        for library, told in sorted(installed.items())
    ]
    return canonical(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "machine-learning-model",
                    "bom-ref": model,
                    "name": name,
                    "version": model,
                    "hashes": [{"alg": "SHA-256", "content": graph.removeprefix("sha256:")}],
                }
            },
            "components": libraries,
            "dependencies": [{"ref": model, "dependsOn": [one["bom-ref"] for one in libraries]}],
        }
    )
