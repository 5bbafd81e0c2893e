# SPDX-License-Identifier: Apache-2.0
"""The data room: from a recording as it exists to clean episodes under a contract. Imports no torch.

    report = import_path(root, Path("recordings"), dataset="kita/pick", allow=fields,
                         rights=contract.digest, node_key=key, clock=clock)
    view = open_view(root, "kita/pick", contract_fields=fields, recipe_inputs=needed, local_allow=mine)
    for episode in view.episodes("train"):
        episode.fields["tcp_pos"]            # [T, 3] float32, metres: what learning gets
    for own in open_dataset(root / "datasets/kita+pick"):
        own.columns["observation.tcp_pos"]   # everything, for the owner
    descriptor = describe(root, "kita/pick", node=node_id, allow=fields, clock=clock)

Names are resolved when they are first used, so that importing `client.data.errors` loads no pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.data.dataset import EpisodeStore, OwnEpisode, open_dataset
    from client.data.describing import describe, seal, task_words
    from client.data.exporting import ExportReport, export_lerobot
    from client.data.fields import Episode, EpisodeView, open_view
    from client.data.importing import Finding, ImportReport, Progress, import_path
    from client.data.store import Store

__all__ = [
    "Episode",
    "EpisodeStore",
    "EpisodeView",
    "ExportReport",
    "Finding",
    "ImportReport",
    "OwnEpisode",
    "Progress",
    "Store",
    "describe",
    "export_lerobot",
    "import_path",
    "open_dataset",
    "open_view",
    "seal",
    "task_words",
]

_HOME = {
    "Episode": "fields",
    "EpisodeStore": "dataset",
    "EpisodeView": "fields",
    "ExportReport": "exporting",
    "Finding": "importing",
    "ImportReport": "importing",
    "OwnEpisode": "dataset",
    "Progress": "importing",
    "Store": "store",
    "describe": "describing",
    "export_lerobot": "exporting",
    "import_path": "importing",
    "open_dataset": "dataset",
    "open_view": "fields",
    "seal": "describing",
    "task_words": "describing",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(import_module(f"client.data.{_HOME[name]}"), name)
