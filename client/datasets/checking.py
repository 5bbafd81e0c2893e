# SPDX-License-Identifier: Apache-2.0
"""``data check``: the twelve checks over a data set, the owner's answers, the certificate, the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, plain
from client.budgets import is_opened
from client.data.errors import CertificateVoidError, DataError
from client.datasets.origins import origins
from client.datasets.outputs import check_out, writing
from client.datasets.published import was_published
from client.datasets.wording import verdict_lines
from client.settings import write_durably
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.data.quality import QualityReport
    from client.data.quality.finding import Finding
    from client.datasets.origins import Origin
    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.ports import Clock
    from policies.recipe import Recipe

__all__ = ["certified", "data_check", "finding_rows", "last_findings"]

_FAILED: Final = 3


def certified(
    home: Home, identity: NodeIdentity, dataset: str, *, clock: Clock, recipe: Recipe | None = None
) -> tuple[QualityReport, dict[str, Any]]:
    """Checks a data set and keeps its certificate: the one that is there if it says the same, else a new one.

    What was found is kept beside it, for `data show`; it stays on the site as the data do.

    Raises:
        DatasetUnknownError: No such data set.
        StoreDamagedError: The files are not what was imported.
    """
    from client.data.quality import certify, check_dataset, read_certificate, save_certificate, verified

    report = check_dataset(home.data, dataset, recipe=recipe)
    keys = [identity.key.public, *identity.former]
    try:
        found, _ = read_certificate(home.data, dataset, keys)
        kept = verified(found, report, node_key=identity.unit_key, clock=clock)
    except CertificateVoidError:
        sealed = certify(
            report, node=identity.node, node_key=identity.unit_key, key=identity.key, clock=clock
        )
        save_certificate(home.data, dataset, sealed)
        kept, _ = read_certificate(home.data, dataset, keys)
    rows = finding_rows(report, origins_of(home, dataset))
    write_durably(_findings_of(home, dataset), canonical(rows))
    facts = {"verdict": kept.verdict, "digest": kept.digest, "states": dict(kept.states), "at": kept.at}
    return report, facts


def _findings_of(home: Home, dataset: str) -> Path:
    from client.data.quality.accepted import folder_of

    return folder_of(home.data, dataset) / "findings.json"


def last_findings(home: Home, dataset: str) -> list[dict[str, Any]]:
    """What the last check of a data set found; nothing where none was made, or its note cannot be read."""
    try:
        found: list[dict[str, Any]] = json.loads(_findings_of(home, dataset).read_bytes())
    except (OSError, ValueError):
        return []
    return found


def origins_of(home: Home, dataset: str) -> dict[str, Origin]:
    """Where the episodes of a data set came from, by their ids."""
    from client.data import Store

    return origins(home.data, dataset, (one.meta for one in Store(home.data).episodes(dataset)))


def finding_rows(report: QualityReport, found: Mapping[str, Origin]) -> list[dict[str, Any]]:
    """Findings for programs, each with a short code, its source and who accepted it beside what it says."""
    return [
        {"code": _code(one), "count": len(one.episodes), **one.as_dict(), **_behind(one, report, found)}
        for one in report.findings
    ]


def _behind(finding: Finding, report: QualityReport, found: Mapping[str, Origin]) -> dict[str, Any]:
    """Where the first episode of a finding lies in its source, and who accepted the finding."""
    from client.data.quality.accepted import is_answered

    origin = found.get(finding.episodes[0]) if finding.episodes else None
    by = next((one.by for one in report.accepted if is_answered(finding, (one,))), None)
    if origin is None:
        return {"source": None, "accepted_by": by}
    place = finding.place
    rows = None if place is None else origin.rows_of(place.first, place.last)
    first, last = rows or (origin.first_row, origin.last_row)
    return {"source": {"file": origin.file, "first_row": first, "last_row": last}, "accepted_by": by}


def _code(finding: Finding) -> str:
    return f"{finding.check}.{finding.why}" if finding.why else finding.check


def data_check(
    home: Home,
    identity: NodeIdentity,
    dataset: str,
    *,
    clock: Clock,
    recipe: Recipe | None,
    page: Path | None,
    lang: str,
    accept: str | None,
    by: str,
) -> Answer:
    """Runs the checks and keeps the certificate that follows from them; exit 3 where it says ``refused``.

    Args:
        home: The node's folder.
        identity: Signs the certificate.
        dataset: Of this site.
        clock: Dates it.
        recipe: Whose normalisers are compared with the site's own spread.
        page: Where the page with pictures is written.
        lang: Of the page.
        accept: 9 or 10, or the check's name: a finding that a person accepts first.
        by: Who accepts it.

    Raises:
        DatasetUnknownError: No such data set.
        DataError: Nothing of the kind to accept.
        SealedError: The data were used already.
    """
    from client.data.quality import write_page

    if page is not None:
        check_out(page)
    before = _certificate_digest(home, identity, dataset)
    answered = [] if accept is None else _accept(home, dataset, accept, recipe=recipe, by=by, clock=clock)
    report, certificate = certified(home, identity, dataset, clock=clock, recipe=recipe)
    facts = {**report.as_dict(), "dataset_id": dataset, "certificate": certificate, "page": None}
    found = origins_of(home, dataset)
    facts["findings"] = finding_rows(report, found)
    lines = [f"data set   {dataset}", _episodes_line(home, dataset, report)]
    lines += answered
    lines += [*verdict_lines(report, found), f"signed     {certificate['digest']}"]
    if certificate["digest"] != before and was_published(home, dataset):
        lines += ["published  others still see the certificate before this one, until it is published again:"]
        lines += [f'next       iriai-node data publish {dataset} --again "REASON"']
    lines += [
        f"WARNING    scale of {plain(one.feature)} {one.part}: {one.ratio:.1f} times this site's own spread"
        for one in report.ratios
        if one.warns
    ]
    if page is not None:
        with writing(page):
            facts["page"] = str(write_page(report, page, lang))
        lines.append(f"page       {page}")
    return Answer(data=facts, text=tuple(lines), exit_code=_FAILED if report.reasons else 0)


def _episodes_line(home: Home, dataset: str, report: QualityReport) -> str:
    """Episodes by what is done with them, as `data add` and `data show` count them."""
    from client.data import Store
    from client.datasets.showing import counts

    store = Store(home.data)
    metas = [one.meta for one in store.episodes(dataset)]
    found = counts(home, dataset, store.catalogue().dataset(dataset), metas)
    fails = {one.episode_id for one in metas if not one.excluded and one.episode_id in report.excluded}
    donated = f", {found['donated']} donated" if found["donated"] else ""
    failing = f"; {len(fails)} of them fail a check" if fails else ""
    return (
        f"episodes   {report.episodes}: {found['train']} train, {found['held_out']} held out, "
        f"{found['excluded']} excluded{donated}{failing}"
    )


def _certificate_digest(home: Home, identity: NodeIdentity, dataset: str) -> str | None:
    """The certificate that is there; None where none is, or it does not hold."""
    from client.data.quality import read_certificate

    try:
        found, _ = read_certificate(home.data, dataset, [identity.key.public, *identity.former])
    except CertificateVoidError:
        return None
    return found.digest


def _accept(
    home: Home, dataset: str, asked: str, *, recipe: Recipe | None, by: str, clock: Clock
) -> list[str]:
    """Records that a person accepts a finding; of one that somebody accepted, says who did."""
    from client.data.quality import accept, check_dataset
    from client.data.quality.accepted import is_answered

    before = check_dataset(home.data, dataset, recipe=recipe)
    check = int(asked) if asked.isdigit() else asked
    sealed = is_opened(home, before.lineage)
    there = [one for one in before.findings if one.state == "FAIL" and check in (one.check, _number(one))]
    answer = next((a for a in before.accepted for one in there if is_answered(one, (a,))), None)
    if answer is not None:
        if not by.strip():
            raise DataError(need="the name of who accepts it", found="none", remedy="name a person with --by")
        return [f"answered   it was accepted before: by {plain(answer.by)} on {answer.at}, which stays"]
    record = accept(home.data, dataset, before.findings, check, by=by, clock=clock, sealed=sealed)
    return [f"answered   {record.check}, by {plain(record.by)}"]


def _number(finding: Finding) -> int:
    from policies.quality_certificate import CHECKS

    return CHECKS.index(finding.check) + 1
