# SPDX-License-Identifier: Apache-2.0
"""``data list`` and ``data show``: what this site has. Nothing of these tables leaves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, plain, short, table
from client.data.errors import CertificateVoidError
from client.data.judging import judgements
from client.data.quality.accepted import answers_of
from client.datasets.certificates_asked import certificate_asked
from client.datasets.checking import last_findings
from client.datasets.origins import names_of, origin_of, started
from client.datasets.published import standing
from client.seeds.donated import is_given, withheld

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.data.catalogue import Dataset
    from client.data.episodes import EpisodeMeta
    from client.identity import NodeIdentity
    from client.settings import Home

__all__ = ["counts", "data_list", "data_show"]

_EPISODES: Final = 20  # shown to people; --json has all
_FIELDS: Final = 4
_FILE_CHARS: Final = 32
_NO_ROBOT: Final = "not said; to publish, say embodiment in the signal map and add the recording again"
_IN_CATALOGUE: Final = {
    "published": "published; iriai-node data withdraw takes it back out",
    "withdrawn": "withdrawn: other members do not find it",
    "never": "never published: other members do not find it",
    "unknown": "the note of what was published cannot be read; iriai-node catalogue search shows it",
}


def data_list(home: Home, identity: NodeIdentity | None = None, *, now_ms: int | None = None) -> Answer:
    """Data sets of this site, with the word of each certificate where the node's keys are there.

    With ``now_ms``, also whether a contract asks for it.
    """
    from client.data import Store

    store = Store(home.data)
    rows = [
        counts(home, name, entry, [one.meta for one in store.episodes(name)])
        | {
            "certificate": None if identity is None else _certificate(home, identity, name)["verdict"],
            "certificate_asked": _asked(home, identity, name, now_ms),
        }
        for name, entry in sorted(store.catalogue().datasets.items())
    ]
    names = ("train", "held_out", "donated", "excluded")
    lines = table(
        ("data set", "train", "held out", "donated", "excluded", "certificate", "fields"),
        [
            (
                one["dataset"],
                *(one[name] for name in names),
                one["certificate"] or "-",
                _some(one["fields"]),
            )
            for one in rows
        ],
    )
    if not rows:
        lines = ("no data set yet: iriai-node data add PATH --dataset NAME",)
    return Answer(data={"datasets": rows}, text=lines)


def _some(fields: list[str]) -> str:
    more = len(fields) - _FIELDS
    return ", ".join(fields[:_FIELDS]) + (f" and {more} more" if more > 0 else "")


def counts(home: Home, name: str, entry: Dataset, metas: list[EpisodeMeta]) -> dict[str, Any]:
    """A data set in numbers: its episodes by what is done with them, its fields, its contracts."""
    away = withheld(home)
    usable = [one for one in metas if not one.excluded and not is_given(one, away)]
    return {
        "dataset_id": name,
        "dataset": name,
        "lineage": entry.lineage,
        "contracts": sorted({right for one in metas for right in one.rights}),
        "catalogue": standing(home, name),
        "without_contract": sum(not one.rights for one in metas),
        "episodes": len(metas),
        "frames": sum(one.length for one in metas),
        "train": sum(one.split == "train" for one in usable),
        "held_out": sum(one.split == "held-out" for one in usable),
        "donated": sum(is_given(one, away) for one in metas),
        "excluded": sum(bool(one.excluded) for one in metas),
        "deployed": sum(one.source_kind == "deployed" for one in metas),
        "fields": sorted({column.split(".", 1)[1] for column in entry.columns}),
    }


def _asked(home: Home, identity: NodeIdentity | None, name: str, now_ms: int | None) -> bool | None:
    if identity is None or now_ms is None:
        return None
    return certificate_asked(home, identity, name, now_ms=now_ms)


def data_show(home: Home, identity: NodeIdentity, name: str, *, now_ms: int | None = None) -> Answer:
    """One data set: robot, fields, episodes with their sources, blocks, certificate.

    With ``now_ms``, also whether a contract asks for the certificate.

    Raises:
        DatasetUnknownError: No such data set.
    """
    from client.data import Store

    store = Store(home.data)
    entry = store.catalogue().dataset(name)
    metas = [one.meta for one in store.episodes(name)]
    robot = entry.embodiment or {}
    names = names_of(home.data, name)
    facts = counts(home, name, entry, metas) | {
        "rate_hz": entry.rate_hz,
        "unit": entry.unit,
        "labels": list(entry.labels),
        "embodiment": dict(robot),
        "certificate": _certificate(home, identity, name) | {"asked": _asked(home, identity, name, now_ms)},
        "findings": last_findings(home, name),
        "blocks": dict(Counter(f"{one.split}-{one.block}" for one in metas)),
        "sources": _sources(metas, names),
        "signal_maps": dict(Counter(one.signal_map for one in metas)),
        "accepted": [one.as_dict() for one in answers_of(home.data, name)],
        "left_out": judgements(home.data, name),
        "episode_rows": [_episode(one, names) for one in metas],
    }
    certificate = facts["certificate"]
    lines = [
        f"data set    {name}",
        f"robot       {plain(str(robot.get('class', _NO_ROBOT)))}",
        f"episodes    {facts['train']} train, {facts['held_out']} held out, {facts['excluded']} excluded",
        f"frames      {facts['frames']} at {entry.rate_hz} Hz",
        f"fields      {', '.join(facts['fields'])}",
        f"labels      {', '.join(entry.labels) or 'none'}",
        f"unit        {entry.unit}",
        f"catalogue   {_IN_CATALOGUE[facts['catalogue']]}",
        *_maps(metas),
        *_rights(metas),
        f"certificate {_verdict(name, certificate)}",
        *(
            f"accepted    {plain(one['check'])} by {plain(one['by'])} on {one['at']}"
            for one in facts["accepted"]
        ),
        *_waiting(name, metas),
        "",
        *_table(name, metas, names),
    ]
    return Answer(data=facts, text=tuple(lines))


def _verdict(name: str, certificate: dict[str, Any]) -> str:
    if certificate["verdict"] == "admitted":
        return "admitted"
    why = f" ({certificate['why']})" if certificate["why"] else ""
    if certificate["asked"] is False:
        why += ", which no contract asks about: it is trained on all the same"
    return f"{certificate['verdict']}{why}; iriai-node data check {name} says more"


def _certificate(home: Home, identity: NodeIdentity, name: str) -> dict[str, Any]:
    """What was certified last; whether it still holds is `data check`'s to say."""
    from client.data.quality import read_certificate

    try:
        found, _ = read_certificate(home.data, name, [identity.key.public, *identity.former])
    except CertificateVoidError as error:
        return {"verdict": "none", "digest": None, "why": error.found}
    return {"verdict": found.verdict, "digest": found.digest, "why": "", "states": dict(found.states)}


def _maps(metas: list[EpisodeMeta]) -> Iterator[str]:
    """Several maps in one data set may say different units, or the same: only a person knows."""
    maps = Counter(one.signal_map for one in metas)
    if len(maps) > 1:
        said = ", ".join(f"{short(one)} ({count} episodes)" for one, count in sorted(maps.items()))
        yield f"maps        {len(maps)}: {said}; do they say the same units?"


def _sources(metas: list[EpisodeMeta], names: Mapping[str, str]) -> list[dict[str, Any]]:
    files: dict[str, list[EpisodeMeta]] = {}
    for one in metas:
        files.setdefault(one.file_sha256, []).append(one)
    return [
        {
            "file": names.get(name),
            "file_sha256": name,
            "reader": found[0].reader,
            "episodes": len(found),
            "kind": found[0].source_kind,
        }
        for name, found in files.items()
    ]


def _episode(meta: EpisodeMeta, names: Mapping[str, str]) -> dict[str, Any]:
    origin = origin_of(meta, names)
    return {
        "file": origin.file,
        "file_sha256": meta.file_sha256,
        "first_row": origin.first_row,
        "last_row": origin.last_row,
        "start": started(meta) or None,
        "signal_map": meta.signal_map,
        "episode": meta.episode_id,
        "digest": meta.digest,
        "split": meta.split,
        "block": meta.block,
        "task": meta.task,
        "outcome": meta.outcome,
        "outcome_by": meta.outcome_by or None,
        "frames": meta.length,
        "clock": meta.clock,
        "source_kind": meta.source_kind,
        "model": meta.model or None,
        "excluded": [one for one in meta.excluded.split(",") if one],
        "contracts": list(meta.rights),
    }


def _rights(metas: list[EpisodeMeta]) -> Iterator[str]:
    """Rights are of an episode: what was stored without a contract is trained on under none."""
    rights = Counter(right for one in metas for right in one.rights)
    said = [f"{short(right)} ({count})" for right, count in sorted(rights.items())]
    yield f"contracts   {', '.join(said) or 'none: nothing may be trained on it'}"
    without = sum(not one.rights for one in metas)
    if rights and without:
        yield f"            {without} episodes under none: nothing may be trained on these"


def _waiting(name: str, metas: list[EpisodeMeta]) -> Iterator[str]:
    """Attempts of a model whose end nobody has judged: they are not imitated."""
    count = sum(_waits(one) for one in metas)
    if count:
        yield f"to judge    {count} attempts of a model; only what a person calls a success is imitated:"
        yield f'            iriai-node data mark {name} EPISODE ... --outcome success --by "YOUR NAME"'


def _waits(meta: EpisodeMeta) -> bool:
    return meta.source_kind == "deployed" and not meta.outcome_by


def _table(name: str, metas: list[EpisodeMeta], names: Mapping[str, str]) -> tuple[str, ...]:
    rows = []
    for one in sorted(metas, key=lambda one: not _waits(one))[:_EPISODES]:
        origin = origin_of(one, names)
        own = (one.episode_id, one.split, one.length, one.clock, one.outcome, one.source_kind)
        place = (origin.file[-_FILE_CHARS:], f"{origin.first_row}-{origin.last_row}", started(one) or "-")
        rows.append((*own, one.excluded or "-", *place))
    head = ("episode", "split", "frames", "clock", "outcome", "from", "excluded by", "file", "rows", "start")
    lines = table(head, rows)
    more = len(metas) - _EPISODES
    if more > 0:
        lines = (*lines, f"and {more} more: iriai-node data show {name} --json lists all")
    return lines
