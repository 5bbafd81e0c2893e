# SPDX-License-Identifier: Apache-2.0
"""Quality of episodes and data sets: twelve checks, a report, a signed certificate, a page.

    failed_checks(frames, spec)                      # the importer: names of checks that exclude the episode
    refuse_personal(texts_of(series, signals))       # the importer: check 12, before anything is stored
    report = check_dataset(root, "kita/pick")        # all twelve over the store, for the owner
    accept(root, "kita/pick", report.findings, 10, by="A. Sato", clock=clock, sealed=False)
    envelope = certify(report, node=..., node_key=..., key=..., clock=...)
    save_certificate(root, "kita/pick", envelope)
    DataAdmission(root=root, ...).require("kita/pick", recipe, clause="recipe-1")     # the guard
    write_page(report, Path("quality.html"), "ja")

1 schema, 2 time, 3 frozen, 4 saturation, 5 lag, 6 tracking, 7 idle, 8 jumps and 11 limits judge one episode;
9 duplicates, 10 lengths and 12 personal the set. Names are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.data.quality.accepted import Accepted, accept, answers_of
    from client.data.quality.admitting import DataAdmission
    from client.data.quality.certificate import (
        certify,
        open_episode,
        read_certificate,
        save_certificate,
        verified,
    )
    from client.data.quality.checks import EXCLUDING, check_episode, failed_checks
    from client.data.quality.finding import CHECKS, Finding, Place, State
    from client.data.quality.page import write_page
    from client.data.quality.personal import check_personal, refuse_personal, texts_of
    from client.data.quality.report import QualityReport, check_dataset
    from client.data.quality.schema import check_schema
    from client.data.quality.spec import QualitySpec, Thresholds, spec_of
    from client.data.quality.timing import check_time

__all__ = [
    "CHECKS",
    "EXCLUDING",
    "Accepted",
    "DataAdmission",
    "Finding",
    "Place",
    "QualityReport",
    "QualitySpec",
    "State",
    "Thresholds",
    "accept",
    "answers_of",
    "certify",
    "check_dataset",
    "check_episode",
    "check_personal",
    "check_schema",
    "check_time",
    "failed_checks",
    "open_episode",
    "read_certificate",
    "refuse_personal",
    "save_certificate",
    "spec_of",
    "texts_of",
    "verified",
    "write_page",
]

_HOME = {
    "Accepted": "accepted",
    "CHECKS": "finding",
    "EXCLUDING": "checks",
    "Finding": "finding",
    "Place": "finding",
    "QualityReport": "report",
    "QualitySpec": "spec",
    "State": "finding",
    "Thresholds": "spec",
    "accept": "accepted",
    "answers_of": "accepted",
    "DataAdmission": "admitting",
    "certify": "certificate",
    "check_dataset": "report",
    "check_episode": "checks",
    "check_personal": "personal",
    "check_schema": "schema",
    "check_time": "timing",
    "failed_checks": "checks",
    "open_episode": "certificate",
    "read_certificate": "certificate",
    "refuse_personal": "personal",
    "save_certificate": "certificate",
    "spec_of": "spec",
    "texts_of": "personal",
    "verified": "certificate",
    "write_page": "page",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  PEP 562
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(import_module(f"client.data.quality.{_HOME[name]}"), name)
