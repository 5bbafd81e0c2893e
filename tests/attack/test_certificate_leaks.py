# SPDX-License-Identifier: Apache-2.0
"""What leaves about quality tells nobody how much data there is, what is in it, or whose it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from client.data.quality import certify, check_dataset, open_episode
from client.data.store import Store
from policies.encoding import canonical
from policies.identity import SigningKey
from policies.log.merkle import leaf_hash, root_from_leaves
from tests.qualitysim import KEY, NODE, SimClock, arm, changed, imported, planted

NAME = "kita/pick"
NODE_KEY = SigningKey.from_seed(b"n" * 32)


def payload(root: Path, key: bytes = KEY) -> bytes:
    report = check_dataset(root, NAME)
    return certify(report, node=NODE, node_key=key, key=NODE_KEY, clock=SimClock()).payload


def words(data: bytes) -> object:
    """The document with every digest replaced."""

    def blank(value: object) -> object:
        if isinstance(value, dict):
            return {key: blank(one) for key, one in value.items()}
        if isinstance(value, list):
            return [blank(one) for one in value]
        return "digest" if isinstance(value, str) and value.startswith("sha256:") else value

    return blank(json.loads(data))


def test_data_sets_that_differ_by_a_hundredth_give_certificates_that_differ_in_digests_only(
    tmp_path: Path,
) -> None:
    episodes = [arm(i, frames=120) for i in range(20)]
    longer = [
        changed(
            arm(i, frames=121),
            "observation.joint_pos",
            arm(i, frames=121).columns["observation.joint_pos"] * np.float32(1.01),
        )
        for i in range(20)
    ]
    roots = []
    for name, recorded in (("a", episodes), ("b", [*longer, arm(99, frames=121)])):
        (tmp_path / name).mkdir()
        roots.append(imported(tmp_path / name, recorded)[0])
    first, second = (payload(root) for root in roots)
    assert len(first) == len(second)
    assert words(first) == words(second)
    assert first != second


def test_a_tenfold_data_set_and_its_excluded_episodes_do_not_show(tmp_path: Path) -> None:
    few, many = [arm(i, frames=60) for i in range(8)], [arm(i, frames=60) for i in range(80)]
    roots = []
    for name, recorded in (
        ("a", few),
        ("b", [*many, planted("jumps", arm(200)), planted("jumps", arm(201))]),
    ):
        (tmp_path / name).mkdir()
        roots.append(imported(tmp_path / name, recorded)[0])
    first, second = (payload(root) for root in roots)
    assert len(first) == len(second)
    assert words(first) == words(second)


def test_no_figure_name_count_or_episode_is_in_the_certificate(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [*(arm(i) for i in range(9)), planted("jumps", arm(20))])
    told = payload(root)
    report = check_dataset(root, NAME)
    figures = {value for one in report.findings for value in one.figures.values() if len(value) > 2}
    strings = json.dumps(words(told))
    for secret in (
        *figures,
        *report.excluded,
        report.lineage,
        *(one.meta.digest for one in Store(root).episodes(NAME)),
        *(one.meta.file_sha256 for one in Store(root).episodes(NAME)),
        "q0",
        "pick-place",
        "6r-arm",
    ):
        assert secret.encode() not in told, secret
    assert not [one for one in json.loads(told).values() if isinstance(one, int | float)]
    assert str(len(report.facts)) not in strings.replace("2026-11-18", "").replace(
        json.loads(told)["tool"], ""
    ).replace("/1", "")


def test_who_knows_every_episode_cannot_recognise_the_root_without_the_sites_key(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i) for i in range(4)])
    target = json.loads(payload(root))["data_root"]
    facts = check_dataset(root, NAME).facts  # the attacker has the very same files and the same program
    guesses = [
        [leaf_hash(bytes.fromhex(one["episode"])) for one in facts],
        [leaf_hash(canonical(dict(one))) for one in facts],
        [leaf_hash(hashlib.sha256(canonical(dict(one))).digest()) for one in facts],
    ]
    for leaves in guesses:
        assert f"sha256:{root_from_leaves(sorted(leaves)).hex()}" != target
    for key in (bytes(32), b"\1" * 32, NODE_KEY.public):
        assert json.loads(payload(root, key))["data_root"] != target


def test_one_opened_episode_says_nothing_about_another(tmp_path: Path) -> None:
    """An auditor who was shown one leaf still cannot test whether a second known episode is in the set."""
    root, _ = imported(tmp_path, [arm(i) for i in range(4)])
    report = check_dataset(root, NAME)
    shown, hidden = (open_episode(report, report.facts[at]["episode"], node_key=KEY) for at in (0, 1))
    assert shown.key != hidden.key
    tested = leaf_hash(hashlib.sha256(shown.key + canonical(dict(hidden.facts))).digest())
    assert tested not in set(shown.proof)
    assert report.facts[1]["episode"] not in repr(shown)


def test_the_same_episodes_under_another_name_or_at_another_site_have_nothing_in_common(
    tmp_path: Path,
) -> None:
    root, _ = imported(tmp_path, [arm(i) for i in range(4)])
    other, _ = imported(tmp_path, [arm(i) for i in range(4)], dataset="kita/copy", root=tmp_path / "copy")
    one = json.loads(payload(root))
    report = check_dataset(other, "kita/copy")
    two = json.loads(certify(report, node=NODE, node_key=KEY, key=NODE_KEY, clock=SimClock()).payload)
    three = json.loads(payload(root, b"\2" * 32))
    assert len({one["data_root"], two["data_root"], three["data_root"]}) == 3
