# SPDX-License-Identifier: Apache-2.0
"""From a released model to the robot: package, loader, serving, recording. Imports no torch.

    loaded = load_package(Path("pick.iriai"), [own_key, broker_key])
    chunk = loaded.infer(observation)               # [n] raw, SI, in the manifest's order → [H, a]

Names are resolved when they are first used, so that importing `client.deploy.errors` loads no onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.deploy.loader import LoadedPackage, load_package
    from client.deploy.manifest import Manifest
    from client.deploy.package import Material, build_package

__all__ = ["LoadedPackage", "Manifest", "Material", "build_package", "load_package"]

_HOME = {
    "LoadedPackage": "loader",
    "Manifest": "manifest",
    "Material": "package",
    "build_package": "package",
    "load_package": "loader",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(import_module(f"client.deploy.{_HOME[name]}"), name)
