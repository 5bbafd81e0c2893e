# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from client.deploy import aasx as shells
from client.deploy.aasx import NAMEPLATE, TRAINED_ON, aas_installed, aasx_of
from client.deploy.errors import AasMissingError
from client.deploy.loader import open_package
from client.deploy.manifest import Manifest
from client.deploy.package import build_package
from policies.encoding import parse
from tests.packagesim import KEYS, NODE, exported, material, sound_package, taken_apart

ROOT = Path(__file__).parents[2]
needs_sdk = pytest.mark.skipif(not aas_installed(), reason="needs the extra [aas]")


def manifest() -> dict:
    return parse(taken_apart(sound_package())["manifest.json"])


@needs_sdk
def test_a_shell_is_opened_by_the_public_sdk_and_holds_the_graph():
    from basyx.aas import model
    from basyx.aas.adapter import aasx as basyx

    data = build_package(material(aasx=True), NODE)
    members = taken_apart(data)
    assert parse(members["manifest.json"])["graph"]["aas"] is True
    objects, files = model.DictIdentifiableStore(), basyx.DictSupplementaryFileContainer()
    with basyx.AASXReader(io.BytesIO(members["aas/model.aasx"])) as reader:
        reader.read_into(objects, files)
    held = io.BytesIO()
    files.write_file("/aasx/files/model.onnx", held)
    assert held.getvalue() == members["model.onnx"]
    kinds = {one.semantic_id.key[0].value: one for one in objects if isinstance(one, model.Submodel)}
    assert set(kinds) == {NAMEPLATE, TRAINED_ON}
    plate = kinds[NAMEPLATE]
    named = {one.id_short for one in plate.submodel_element}
    assert named >= {
        "URIOfTheProduct", "Version", "ContactInformation", "Storage", "KindOfLearning", "Inputs", "Outputs",
        "TrainingResults", "Details", "AITypeSpecificInformation",
    }  # fmt: skip
    assert len(list(plate.get_referable("Inputs").value)) == 1 + 4
    shell = next(one for one in objects if isinstance(one, model.AssetAdministrationShell))
    assert {one.resolve(objects).id_short for one in shell.submodel} == {"AIModelNameplate", "AIDataset"}
    open_package(data, KEYS)


@needs_sdk
def test_the_same_shell_has_the_same_bytes_also_in_another_process():
    document, graph = manifest(), exported().graph
    first = aasx_of(document, graph, b"card")
    assert first == aasx_of(document, graph, b"card")
    code = (
        "import json, sys, hashlib; from client.deploy.aasx import aasx_of;"
        "print(hashlib.sha256(aasx_of(json.load(sys.stdin), b'graph', b'card')).hexdigest())"
    )
    ran = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(document).encode(),
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(ran) == 1


def test_a_shell_without_its_library_is_a_named_refusal(monkeypatch):
    monkeypatch.setattr(shells, "aas_installed", lambda: False)
    with pytest.raises(AasMissingError, match=r"iriai\[aas\]"):
        build_package(material(aasx=True), NODE)
    assert Manifest.make(manifest()).graph.aas is False
