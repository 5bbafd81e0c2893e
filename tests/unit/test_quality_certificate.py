# SPDX-License-Identifier: Apache-2.0
"""The certificate: bound to the data, the same in any order, void when anything changed, opened leaf by leaf."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from client.data.errors import CertificateVoidError, DatasetUnknownError, QualityRefusedError
from client.data.quality import (
    DataAdmission,
    QualityReport,
    Thresholds,
    accept,
    certify,
    check_dataset,
    open_episode,
    read_certificate,
    save_certificate,
    verified,
)
from client.data.store import Store
from policies.errors import SignatureInvalidError
from policies.identity import SigningKey
from policies.log.errors import ProofError
from policies.quality_certificate import (
    CERTIFICATE_TYPE,
    CHECKS,
    CertificateInvalidError,
    QualityCertificate,
    check_opening,
    open_certificate,
    unmet,
)
from policies.recipe import Recipe
from policies.signing import Envelope
from tests.learnsim import small_recipe
from tests.qualitysim import KEY, NODE, SimClock, arm, imported, planted

NAME = "kita/pick"
NODE_KEY = SigningKey.from_seed(b"n" * 32)


def certified(root: Path, *, save: bool = True, clock: SimClock | None = None) -> QualityCertificate:
    envelope = certify(
        check_dataset(root, NAME), node=NODE, node_key=KEY, key=NODE_KEY, clock=clock or SimClock()
    )
    if save:
        save_certificate(root, NAME, envelope)
    return open_certificate(envelope, NODE_KEY.public)


def asking(**quality: object) -> Recipe:
    block = {"require": ["schema", "jumps"], "accept_undetermined": [], "tracking_p95": None, **quality}
    recipe = small_recipe()
    from policies.recipe.blocks import Quality

    return recipe.model_copy(update={"quality": Quality.model_validate(block)})


def admission(root: Path) -> DataAdmission:
    return DataAdmission(root=root, node_key=KEY, keys=(NODE_KEY.public,), clock=SimClock())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return imported(tmp_path, [arm(i) for i in range(9)])[0]


def test_a_certificate_says_one_word_per_check_and_is_the_same_on_another_day(root: Path) -> None:
    first, later = certified(root), certified(root, clock=SimClock(1_799_000_000_000))
    assert set(first.states) == set(CHECKS)
    assert (first.verdict, first.excluded, first.checks) == ("admitted", "none", "iriai-quality/1")
    assert first.at != later.at
    assert first.says_the_same(later)
    assert first.digest != later.digest


def test_the_same_files_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    files = [*enumerate([*(arm(i) for i in range(4)), planted("lag", arm(11))])]
    roots = []
    for where, order in (("a", files), ("b", files[::-1])):
        (tmp_path / where).mkdir()
        for number, episode in order:
            root, _ = imported(
                tmp_path / where, [episode], name=f"f{number}", first=number, root=tmp_path / where / "store"
            )
        roots.append(root)
    first, second = (certified(root) for root in roots)
    assert first.canonical == second.canonical


def test_data_that_grew_void_the_certificate(tmp_path: Path, root: Path) -> None:
    kept = certified(root)
    assert verified(kept, check_dataset(root, NAME), node_key=KEY, clock=SimClock()) == kept
    (tmp_path / "more").mkdir()
    imported(tmp_path / "more", [arm(50)], root=root)
    with pytest.raises(CertificateVoidError, match="data_root"):
        verified(kept, check_dataset(root, NAME), node_key=KEY, clock=SimClock())


def test_one_stamp_one_label_or_one_map_else_and_it_is_void(root: Path) -> None:
    report = check_dataset(root, NAME)
    kept = certified(root)
    for key in report.facts[0]:
        other = ({**report.facts[0], key: "0" * 64}, *report.facts[1:])
        with pytest.raises(CertificateVoidError, match="data_root"):
            verified(kept, replace(report, facts=other), node_key=KEY, clock=SimClock())


def test_other_thresholds_are_other_checks(root: Path) -> None:
    from client.data.quality import QualitySpec, spec_of

    entry = Store(root).catalogue().dataset(NAME)
    loose = QualitySpec(thresholds=Thresholds(gap_share=0.5), embodiment=spec_of(entry.embodiment).embodiment)
    with pytest.raises(CertificateVoidError, match="thresholds"):
        verified(certified(root), check_dataset(root, NAME, spec=loose), node_key=KEY, clock=SimClock())


def test_an_answer_changes_the_verdict_and_so_the_certificate(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [*(arm(i) for i in range(9)), arm(30, frames=1200)])
    before = certified(root)
    assert before.verdict == "refused"
    accept(root, NAME, check_dataset(root, NAME).findings, 10, by="A. Sato", clock=SimClock(), sealed=False)
    with pytest.raises(CertificateVoidError, match="verdict"):
        verified(before, check_dataset(root, NAME), node_key=KEY, clock=SimClock())
    assert certified(root).verdict == "admitted"


def test_a_single_episode_is_shown_to_an_auditor(root: Path) -> None:
    certificate, report = certified(root), check_dataset(root, NAME)
    digest = report.facts[3]["episode"]
    opening = open_episode(report, digest, node_key=KEY)
    assert check_opening(certificate, opening)["episode"] == digest
    assert opening.size == 1024  # a round number: how many there are does not show


@pytest.mark.parametrize("change", ["facts", "key", "index", "size", "proof", "other"])
def test_an_opening_of_anything_else_proves_nothing(root: Path, change: str) -> None:
    certificate, report = certified(root), check_dataset(root, NAME)
    opening = open_episode(report, report.facts[3]["episode"], node_key=KEY)
    changed = {
        "facts": {"facts": {**opening.facts, "clock": "controller"}},
        "key": {"key": bytes(32)},
        "index": {"index": (opening.index + 1) % 1024},
        "size": {"size": 512},
        "proof": {"proof": opening.proof[:-1]},
        "other": {"facts": {"episode": opening.facts["episode"]}},
    }[change]
    with pytest.raises(ProofError):
        check_opening(certificate, replace(opening, **changed))


def test_an_unknown_episode_cannot_be_opened(root: Path) -> None:
    with pytest.raises(DatasetUnknownError):
        open_episode(check_dataset(root, NAME), "0" * 64, node_key=KEY)


def test_a_certificate_of_another_key_type_or_form_is_none(root: Path) -> None:
    envelope = certify(check_dataset(root, NAME), node=NODE, node_key=KEY, key=NODE_KEY, clock=SimClock())
    with pytest.raises(SignatureInvalidError):
        open_certificate(envelope, SigningKey.from_seed(b"x" * 32).public)
    document = json.loads(envelope.payload)
    for bad in (
        {**document, "episodes": 9},
        {**document, "states": {**document["states"], "time": "FINE"}},
        {**document, "states": {"time": "PASS"}},
        {**document, "signal_maps": []},
        {**document, "signal_maps": document["signal_maps"] * 2},
        {**document, "excluded": "5"},
    ):
        with pytest.raises(CertificateInvalidError):
            QualityCertificate.parse(bad)
    with pytest.raises(CertificateInvalidError):
        open_certificate(Envelope.seal(b"x" * 20_000, CERTIFICATE_TYPE, NODE_KEY), NODE_KEY.public)


def test_only_this_nodes_certificate_of_this_data_set_is_read(root: Path) -> None:
    with pytest.raises(CertificateVoidError):
        read_certificate(root, NAME, [NODE_KEY.public])
    kept = certified(root)
    former = SigningKey.from_seed(b"f" * 32).public
    assert read_certificate(root, NAME, [former, NODE_KEY.public])[0] == kept
    with pytest.raises(CertificateVoidError, match="signature"):
        read_certificate(root, NAME, [former])
    folder = root / "quality/kita+pick/certificate.dsse"
    (root / "quality/kita+other").mkdir()
    (root / "quality/kita+other/certificate.dsse").write_bytes(folder.read_bytes())
    with pytest.raises(CertificateVoidError, match="another data set"):
        read_certificate(root, "kita/other", [NODE_KEY.public])
    folder.write_bytes(b"{}")
    with pytest.raises(CertificateVoidError):
        read_certificate(root, NAME, [NODE_KEY.public])


def with_states(certificate: QualityCertificate, **states: str) -> QualityCertificate:
    return certificate.model_copy(update={"states": {**certificate.states, **states}})


@pytest.mark.parametrize("state", ["FAIL", "UNDETERMINED", "NOT_APPLICABLE"])
def test_what_is_not_a_pass_admits_only_where_the_recipe_lists_it(root: Path, state: str) -> None:
    certificate = with_states(certified(root), time=state)
    assert unmet(certificate, require=["time", "schema"]) == ("time",)
    open_to = unmet(certificate, require=["time", "schema"], accept_undetermined=["time"])
    assert open_to == (("time",) if state == "FAIL" else ())


def test_a_refused_certificate_or_a_check_of_a_later_version_grants_nothing(root: Path) -> None:
    certificate = certified(root)
    refused = certificate.model_copy(update={"verdict": "refused"})
    assert unmet(refused, require=["schema"]) == ("schema",)
    assert unmet(refused, require=[]) == ("verdict",)
    assert unmet(certificate, require=["schema", "smell"]) == ("smell",)


def test_a_recipe_without_the_block_asks_for_nothing(root: Path) -> None:
    admission(root).require(NAME, small_recipe(), clause="recipe-1")


def test_a_data_set_is_admitted_by_its_certificate_and_not_without(root: Path) -> None:
    with pytest.raises(CertificateVoidError):
        admission(root).require(NAME, asking(), clause="recipe-1")
    certified(root)
    looking = admission(root)
    looking.require(NAME, asking(), clause="recipe-1")
    looking.require(NAME, asking(), clause="recipe-1")
    with pytest.raises(QualityRefusedError) as caught:
        looking.require(NAME, asking(require=["tracking"]), clause="recipe-1")
    assert caught.value.clause == "recipe-1"


def test_a_change_of_the_data_is_seen_at_the_next_look(tmp_path: Path, root: Path) -> None:
    certified(root)
    looking = admission(root)
    looking.require(NAME, asking(), clause="recipe-1")
    (tmp_path / "more").mkdir()
    imported(tmp_path / "more", [arm(50)], root=root)
    with pytest.raises(CertificateVoidError):
        looking.require(NAME, asking(), clause="recipe-1")


def test_the_tracking_error_is_judged_by_the_recipes_own_bound(root: Path) -> None:
    certified(root)
    looking = admission(root)
    looking.require(NAME, asking(require=["tracking"], tracking_p95="0.2"), clause="recipe-1")
    with pytest.raises(QualityRefusedError, match="tracking"):
        looking.require(NAME, _tight(), clause="recipe-1")
    with pytest.raises(QualityRefusedError, match="tracking"):
        looking.require(NAME, asking(require=["tracking"]), clause="recipe-1")


def _tight() -> Recipe:
    recipe = asking(require=["tracking"], tracking_p95="0.0001")
    recipe._canonical = b"another digest"
    return recipe


def test_a_report_of_no_episodes_has_a_root_all_the_same(root: Path) -> None:
    empty: QualityReport = replace(check_dataset(root, NAME), facts=())
    found = certify(empty, node=NODE, node_key=KEY, key=NODE_KEY, clock=SimClock())
    assert open_certificate(found, NODE_KEY.public).data_root != certified(root).data_root
