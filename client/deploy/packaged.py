# SPDX-License-Identifier: Apache-2.0
"""A loaded package as the `Model` that is served: its manifest's numbers as facts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from client.deploy.manifest import values
from client.deploy.ports import Channel, Facts, Safety

if TYPE_CHECKING:
    from client.data.embodiment import Adapter
    from client.deploy.blocks import Port
    from client.deploy.loader import LoadedPackage
    from client.deploy.manifest import Manifest
    from client.deploy.ports import Array32

__all__ = ["PackageModel", "facts_of"]

_SPACES: Final = {
    "tcp_pose_delta": "ee-delta",
    "joint_pos": "joint-pos",
    "joint_vel": "joint-vel",
    "joint_torque": "joint-torque",
}
_JOINTS: Final = re.compile(r"([1-9][0-9]?)r-", re.ASCII)


class PackageModel:
    """`client.deploy.ports.Model` of a package."""

    def __init__(self, loaded: LoadedPackage, adapter: Adapter | None = None) -> None:
        self.facts = facts_of(loaded.manifest, adapter)
        self._loaded = loaded

    def infer_flagged(self, observation: Array32) -> tuple[Array32, float]:
        """The package's own answer."""
        return self._loaded.infer_flagged(observation)


def facts_of(manifest: Manifest, adapter: Adapter | None = None) -> Facts:
    """What a manifest states, as serving reads it; ``adapter`` is the one whose digest it names."""
    outputs = tuple(_channel(one) for one in manifest.outputs)
    joints = _JOINTS.match(manifest.embodiment.class_)
    rates = {float(one.rate_hz) for one in manifest.inputs if one.rate_hz is not None}
    safety = manifest.safety
    return Facts(
        model=manifest.model.digest,
        package=manifest.digest,
        title=manifest.model.id,
        task=manifest.task,
        embodiment_class=manifest.embodiment.class_,
        dof=int(joints[1]) if joints else 1,
        action_space=next((_SPACES[one.field] for one in outputs if one.field in _SPACES), "none"),
        rate_hz=min(rates) if rates else None,
        inputs=tuple(_channel(one) for one in manifest.inputs),
        outputs=outputs,
        horizon=manifest.horizon,
        execute=manifest.execute,
        safety=Safety(
            max_delta_per_tick=tuple(safety.max_delta_per_tick.tolist()),
            watchdog_ms=safety.watchdog_ms,
            fallback=safety.fallback,
            ood_max=safety.ood_share_max,
        ),
        adapter=None if adapter is None else adapter.model_dump(mode="json", exclude_none=True),
    )


def _channel(port: Port) -> Channel:
    return Channel(
        name=port.name,
        field=port.field,
        unit=port.unit,
        low=tuple(values(port.low).tolist()),
        high=tuple(values(port.high).tolist()),
    )
