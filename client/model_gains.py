# SPDX-License-Identifier: Apache-2.0
"""What training on at home gained: a row per model that was trained on here, from its own file.

The figures are those that were kept when it was made (`client.models.Tuning`): half of the held-out units
chose between common and individual models, the other half chose nothing and reports. Nothing is measured
again, and nothing leaves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table

if TYPE_CHECKING:
    from client.settings import Home

__all__ = ["gains", "models_report"]

_NAMES = (
    "model",
    "recipe",
    "mode",
    "kept",
    "selection_units",
    "report_units",
    "held_out_loss_common",
    "held_out_loss",
    "gain",
    "warnings",
)


def gains(home: Home) -> tuple[dict[str, Any], ...]:
    """What is known of each model that was trained on here, newest file first; unreadable files say so."""
    try:
        folders = [one for one in home.models.iterdir() if one.name.startswith("individual-")]
    except OSError:
        return ()
    files = [one / "model.json" for one in folders if (one / "model.json").is_file()]
    return tuple(_row(one) for one in sorted(files, key=lambda one: -one.stat().st_mtime_ns))


def _row(path: Any) -> dict[str, Any]:  # noqa: ANN401  a path
    model = "sha256:" + path.parent.name.removeprefix("individual-")
    try:
        facts = json.loads(path.read_bytes())
        return {name: facts.get(name) for name in _NAMES} | {"readable": True}
    except (ValueError, AttributeError, OSError):
        return dict.fromkeys(_NAMES) | {"model": model, "warnings": [], "readable": False}


def models_report(home: Home) -> Answer:
    """The table of gains, and a sentence on how to read it."""
    rows = gains(home)
    if not rows:
        words = "nothing was trained on here yet: iriai-node models personalise MODEL"
        return Answer(data={"models": []}, text=(words,))
    lines = table(
        ("model", "kept", "mode", "loss common", "loss kept", "gain", "reported on"),
        [_line(one) for one in rows],
    )
    notes = [f"WARNING  {short(str(one['model']))}: {text}" for one in rows for text in one["warnings"] or ()]
    return Answer(
        data={"models": list(rows)},
        text=(
            *lines,
            *notes,
            "losses are on held-out units that chose nothing; a gain of `-` was not measured",
        ),
    )


def _line(one: dict[str, Any]) -> tuple[object, ...]:
    if not one["readable"]:
        return (short(one["model"]), "UNREADABLE", "-", "-", "-", "-", "-")
    gain = "-" if one["gain"] is None else f"{100 * float(one['gain']):+.1f} %"
    return (
        short(str(one["model"])),
        one["kept"],
        one["mode"],
        one["held_out_loss_common"] or "-",
        one["held_out_loss"] or "-",
        gain,
        f"{one['report_units']} units",
    )
