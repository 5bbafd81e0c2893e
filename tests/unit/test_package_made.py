# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from client.deploy.archive import read_archive, write_archive
from client.deploy.errors import PackageFileError, PackageFormError, PackageSizeError
from client.deploy.latency import measure, read_kept
from client.deploy.loader import load_package, open_package, session_of
from client.deploy.manifest import values
from client.deploy.package import build_package, privacy_of
from client.deploy.packaged import facts_of
from client.deploy.sbom import sbom, versions
from policies.encoding import digest, parse
from policies.limits import PACKAGE_MEMBERS
from sandbox.recipes import private_recipe
from tests.packagesim import (
    KEYS,
    NODE,
    exported,
    latency_of,
    material,
    sound_package,
    statement_of,
    taken_apart,
    with_graph,
)

ROOT = Path(__file__).parents[2]


def manifest() -> dict:
    return parse(taken_apart(sound_package())["manifest.json"])


# --- the package ---


def test_two_builds_are_byte_identical():
    assert build_package(material(), NODE) == build_package(material(), NODE) == sound_package()


def test_the_package_of_the_sandboxs_model_is_small_and_holds_what_it_should():
    members = taken_apart(sound_package())
    assert len(sound_package()) <= 200_000
    assert sorted(members) == [
        "MODEL_CARD.md", "latency.json", "manifest.json", "model.onnx", "recipe.json", "sbom.json",
        "signature.dsse", "statement.json",
    ]  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(sound_package())) as archive:  # any tool opens it
        assert archive.testzip() is None
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_loaded_package_answers_as_its_manifest_says():
    loaded = open_package(sound_package(), KEYS)
    example = loaded.manifest.example
    chunk = loaded.infer(values(example.observation))
    assert chunk.shape == (1, 4)
    assert np.abs(chunk.reshape(-1) - values(example.action_chunk)).max() <= 1e-5
    chunks, shares = loaded.infer_many(np.tile(values(example.observation), (3, 1)))
    assert chunks.shape == (3, 1, 4)
    assert shares.tolist() == [0, 0, 0]
    assert loaded.signer == NODE.public
    assert loaded.digest == digest(taken_apart(sound_package())["manifest.json"])
    assert loaded.safety.fallback == "hold"
    assert "advice to a controller" in loaded.card


def test_what_serving_needs_follows_from_the_manifest():
    facts = facts_of(open_package(sound_package(), KEYS).manifest)
    assert (facts.dof, facts.action_space, facts.input_size, facts.output_size) == (7, "ee-delta", 10, 4)


def test_an_individual_package_names_its_parent_and_says_not_to_pass_it_on():
    evaluation = {
        "metric": "mean loss on own held-out units",
        "better": "lower",
        "rows": [
            {"model": "individual", "own": {"value": "0.012", "low": None, "high": None}, "others": None}
        ],
    }
    loaded = open_package(build_package(material(individual=True, evaluation=evaluation), NODE), KEYS)
    assert loaded.manifest.model.parent == digest(b"the released one")
    assert loaded.manifest.model.tier == "private"
    assert "contains this site's data, do not pass on" in loaded.card
    assert "| individual | 0.012 | not measured |" in loaded.card
    assert "p50 7.0 µs" in loaded.card
    assert "vote.cast at 7 of log.example" in loaded.card
    assert "| local (before) | not measured | not measured |" in loaded.card
    assert "do not pass on" not in open_package(sound_package(), KEYS).card


def test_the_card_states_task_limits_privacy_and_what_was_not_tested():
    card = open_package(sound_package(), KEYS).card
    for words in (
        "pick-place (behaviour-cloning)",
        "7r-arm+parallel-gripper",
        "NOT PRIVATE",
        "-0.012 … 0.012",
        "What was not tested",
        "consortium only",
        "About 10 µs (p50)",
        "of a machine that is not told",
        "ask the log for the run",
        "not measured",
    ):
        assert words in card, words


def test_the_claim_of_a_private_model_is_the_largest_of_its_contributors():
    from policies.recipe import load

    recipe = load(private_recipe("8", 250))
    told = privacy_of(statement_of(recipe, digest(b"m")))
    assert told["verdict"] == "PRIVATE"
    assert float(told["epsilon"]) <= 8
    assert (told["unit"], told["delta"]) == ("episode", "0.00001")


def test_a_file_that_is_no_package_is_named(tmp_path):
    with pytest.raises(PackageFileError, match="No such file"):
        load_package(tmp_path / "none.iriai", KEYS)
    path = tmp_path / "one.iriai"
    path.write_bytes(sound_package())
    assert load_package(path, KEYS).size == len(sound_package())


def test_loading_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_package(sound_package(), KEYS)
    assert list(tmp_path.iterdir()) == []


def test_loading_and_inferring_need_no_torch():
    code = (
        "import sys;"
        "from client.deploy import loader, graphs, commands;"
        "assert not {'torch', 'onnxscript', 'basyx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_weights_in_the_second_file_of_the_package_are_taken_in_and_signed():
    def outside(model):
        offset = 0
        for one in model.graph.initializer:
            if one.name.endswith("weight"):
                size = len(one.raw_data)
                one.ClearField("raw_data")
                one.data_location = onnx.TensorProto.EXTERNAL
                for key, value in (("location", "model.onnx.data"), ("offset", offset), ("length", size)):
                    entry = one.external_data.add()
                    entry.key, entry.value = key, str(value)
                offset += size

    data = with_graph(outside, **{"model.onnx.data": _weights_of_graph()})
    raw = values(manifest()["example"]["observation"])
    assert np.array_equal(open_package(data, KEYS).infer(raw), open_package(sound_package(), KEYS).infer(raw))


def _weights_of_graph() -> bytes:
    graph = onnx.load_from_string(exported().graph).graph
    return b"".join(one.raw_data for one in graph.initializer if one.name.endswith("weight"))


# --- the archive ---


def test_the_archive_is_the_same_whatever_the_order_of_its_members():
    members = {"b": b"2", "a/c": b"3", "a": b"1"}
    data = write_archive(members)
    assert data == write_archive(dict(sorted(members.items())))
    assert {name: bytes(one.data) for name, one in read_archive(data).items()} == members
    assert read_archive(write_archive({})) == {}


@pytest.mark.parametrize("name", ["../a", "a/b/c", "", ".a", "a/", "ä", "a b"])
def test_no_archive_is_written_with_a_name_that_none_may_hold(name):
    with pytest.raises(PackageFormError):
        write_archive({name: b""})


def test_no_archive_is_written_with_too_many_members():
    with pytest.raises(PackageSizeError):
        write_archive({f"m{number}": b"" for number in range(PACKAGE_MEMBERS + 1)})


# --- latency and parts ---


def test_latency_is_measured_once_and_taken_over_for_the_same_graph(tmp_path):
    graph = exported().graph
    example = np.array([float(one) for one in manifest()["example"]["observation"]])
    document = parse(measure(graph, example, session=session_of(graph)))
    assert 0 < float(document["p50_us"]) <= float(document["p90_us"]) <= float(document["p99_us"])
    assert document["runs"] >= 500
    path = tmp_path / "latency.json"
    assert read_kept(path, graph) is None
    path.write_bytes(latency_of(graph).replace(b"1.32.0", document["runtime"].split()[1].encode()))
    assert read_kept(path, graph) == path.read_bytes()
    assert read_kept(path, b"another graph") is None
    path.write_bytes(b"{}")
    assert read_kept(path, graph) is None


def test_the_list_of_parts_names_versions_and_the_graph():
    document = json.loads(sbom(model=digest(b"w"), name="pick", graph=digest(b"g"), installed=versions()))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert {"numpy", "onnx", "onnxruntime", "torch", "python"} <= {
        one["name"] for one in document["components"]
    }
    assert document["metadata"]["component"]["hashes"][0]["content"] == digest(b"g")[7:]
    assert "serialNumber" not in document
