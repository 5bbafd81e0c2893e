# SPDX-License-Identifier: Apache-2.0
"""``aas/model.aasx``: the model as an Asset Administration Shell, for tenders and asset registers.

    data = aasx_of(manifest_document, graph, card)      # AasMissingError without the extra [aas]
    aas_installed()                                     # whether it could be made here

Two submodels after the templates that the Industrial Digital Twin Association publishes
(github.com/admin-shell-io/submodel-templates, folder ``published``):

| submodel | template | semantic id, under https://admin-shell.io/idta |
|---|---|---|
| AIModelNameplate | IDTA 02060-1-0, revision 1 | /SubmodelTemplate/AIModelNameplate/1/0 |
| AIDataset | IDTA 02058-1-0, revision 2 | /SubmodelTemplate/AIDataset/1/0 |

- Every element that a template asks for (``One``) is there, with its semantic id. What this project does not
  state (numbers of recordings) says so; the contract stands for whom to ask.
- ``model.onnx`` and the card are supplementary files. Nothing else is in it that is not in the manifest.
- **It is a wrapper.** The loader of this project runs the package, never the shell in it.
- **The same manifest gives the same bytes** (`shell_of`, with the standard library alone): each part stored,
  in a fixed order, at one time, its JSON sorted. So the loader makes the shell anew and compares the bytes:
  no shell tells of another model, or of other figures, than the package that it comes in.
- Whoever packages has the public SDK read it once (`aasx_of`): a shell that others cannot open is not made.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

from client.deploy.errors import AasMissingError
from policies.errors import invariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["NAMEPLATE", "TRAINED_ON", "aas_installed", "aasx_of", "shell_of"]

Json = dict[str, Any]
_IDTA: Final = "https://admin-shell.io/idta"
NAMEPLATE: Final = f"{_IDTA}/SubmodelTemplate/AIModelNameplate/1/0"
TRAINED_ON: Final = f"{_IDTA}/SubmodelTemplate/AIDataset/1/0"
_URI: Final = "0112/2///61987#ABN590#002"
_VERSION: Final = "0173-1#02-AAS354#002"
_FILES: Final = "/aasx/files"
_XML: Final = "<?xml version='1.0' encoding='UTF-8'?>\n"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_RELATION: Final = "http://admin-shell.io/aasx/relationships/"
_SPEC: Final = "/aasx/data.json"
_ORIGIN: Final = "/aasx/aasx-origin"
_TYPES: Final = {
    "onnx": "application/octet-stream",
    "md": "text/markdown",
    "json": "application/json",
    "/aasx/aasx-origin": "text/plain",
    "rels": "application/vnd.openxmlformats-package.relationships+xml",
}
_OBJECTS: Final = 3  # the shell and its two submodels
_FIRST: Final = (1980, 1, 1, 0, 0, 0)
_NOT_STATED: Final = "not stated: no number of recordings leaves a site"
_LEARNING: Final = {
    True: "supervised, federated, then trained on at one site",
    False: "supervised, federated",
}


def aas_installed() -> bool:
    """Whether the SDK of the extra ``[aas]`` is here."""
    try:
        import basyx.aas.adapter.aasx  # noqa: F401
    except ImportError:
        return False
    return True


def aasx_of(manifest: Mapping[str, Any], graph: bytes, card: bytes) -> bytes:
    """The shell of a model, once the SDK has read it.

    Args:
        manifest: Its document; ``members`` may still be missing.
        graph: ``model.onnx``.
        card: ``MODEL_CARD.md``.

    Raises:
        AasMissingError: The SDK is not installed.
        InvariantError: The SDK reads something else.
    """
    if not aas_installed():
        raise AasMissingError(
            need="the library basyx-python-sdk",
            found="none",
            remedy="pip install 'iriai[aas]', or package without --aasx",
        )
    data = shell_of(manifest, graph, card)
    _read_back(data, graph)
    return data


def _read_back(data: bytes, graph: bytes) -> None:
    """As a reader of shells does."""
    from basyx.aas import model
    from basyx.aas.adapter import aasx

    objects: Any = model.DictIdentifiableStore()
    files: Any = aasx.DictSupplementaryFileContainer()  # type: ignore[no-untyped-call]
    held = io.BytesIO()
    with aasx.AASXReader(io.BytesIO(data), failsafe=False) as reader:
        reader.read_into(objects, files)
    files.write_file(f"{_FILES}/model.onnx", held)
    invariant(len(list(objects)) == _OBJECTS and held.getvalue() == graph, "a shell that others read")


def shell_of(manifest: Mapping[str, Any], graph: bytes, card: bytes) -> bytes:
    """The one byte form of a model's shell; see `aasx_of` for the arguments."""
    name = "urn:iriai:model:" + manifest["model"]["digest"].removeprefix("sha256:")
    submodels = sorted((_nameplate(manifest, name), _dataset(manifest, name)), key=lambda one: str(one["id"]))
    shell = {
        "id": name,
        "idShort": "Model",
        "modelType": "AssetAdministrationShell",
        "assetInformation": {"assetKind": "Instance", "globalAssetId": f"{name}:asset"},
        "submodels": [_reference("Submodel", one["id"]) for one in submodels],
    }
    document = {"assetAdministrationShells": [shell], "submodels": submodels}
    written = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    parts = {
        f"{_FILES}/model.onnx": graph,
        f"{_FILES}/MODEL_CARD.md": card,
        _SPEC: written.encode("utf-8"),
        _ORIGIN: b"",
        "/_rels/.rels": _relations((_ORIGIN, "aasx-origin")),
        "/aasx/_rels/aasx-origin.rels": _relations((_SPEC, "aas-spec")),
        "/aasx/_rels/data.json.rels": _relations(
            (f"{_FILES}/model.onnx", "aas-suppl"), (f"{_FILES}/MODEL_CARD.md", "aas-suppl")
        ),
    }
    return _packed({"[Content_Types].xml": _content_types(parts)} | {k[1:]: parts[k] for k in sorted(parts)})


def _relations(*targets: tuple[str, str]) -> bytes:
    """A part of the container that says what belongs to what."""
    rows = "".join(
        f'<Relationship Target="{target}" Id="r{number}" Type="{_RELATION}{kind}" TargetMode="Internal"/>'
        for number, (target, kind) in enumerate(targets)
    )
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{rows}</Relationships>'.encode()


def _content_types(names: Iterable[str]) -> bytes:
    rows = "".join(
        f'<Override PartName="{name}" ContentType="{_TYPES[name.rpartition(".")[2]]}"/>'
        for name in sorted(names)
    )
    return f'{_XML}<Types xmlns="{_PACKAGE}/content-types">{rows}</Types>'.encode()


def _packed(parts: Mapping[str, bytes]) -> bytes:
    """Parts in a zip, stored, at one time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as write:
        for name, data in parts.items():
            info = zipfile.ZipInfo(name, _FIRST)
            info.create_system = 3
            info.external_attr = 0o600 << 16
            write.writestr(info, data)
    return packed.getvalue()


def _reference(kind: str, target: str) -> Json:
    outer = "ExternalReference" if kind == "GlobalReference" else "ModelReference"
    return {"type": outer, "keys": [{"type": kind, "value": target}]}


def _element(kind: str, id_short: str, meaning: str, **rest: Any) -> Json:  # noqa: ANN401  JSON values
    told = {"semanticId": _reference("GlobalReference", meaning)}
    return {"modelType": kind, "idShort": id_short} | told | rest


def _text(id_short: str, meaning: str, value: str) -> Json:
    return _element("Property", id_short, meaning, value=value, valueType="xs:string")


def _words(id_short: str, meaning: str, value: str) -> Json:
    return _element("MultiLanguageProperty", id_short, meaning, value=[{"language": "en", "text": value}])


def _group(id_short: str, meaning: str, parts: list[Json]) -> Json:
    return _element("SubmodelElementCollection", id_short, meaning, value=parts)


def _refers(id_short: str, meaning: str, target: str) -> Json:
    return _element("ReferenceElement", id_short, meaning, value=_reference("GlobalReference", target))


def _file(id_short: str, kind: str, path: str) -> Json:
    return {"modelType": "File", "idShort": id_short, "contentType": kind, "value": path}


def _submodel(id_: str, id_short: str, meaning: str, parts: list[Json]) -> Json:
    return _element("Submodel", id_short, meaning, id=id_, submodelElements=parts)


def _nameplate(manifest: Mapping[str, Any], name: str) -> Json:
    at = f"{_IDTA}/AIModelNameplate"
    contract = "urn:iriai:contract:" + manifest["lineage"]["contract"].removeprefix("sha256:")
    specific = f"{at}/AITypeSpecificInformation"
    return _submodel(
        f"{name}:nameplate",
        "AIModelNameplate",
        NAMEPLATE,
        [
            _text("URIOfTheProduct", _URI, name),
            _text("Version", _VERSION, manifest["model"]["digest"]),
            _refers("ContactInformation", f"{at}/Contactinformation/1/0", contract),
            _text("Storage", f"{at}/Storage/1/0", f"{_FILES}/model.onnx"),
            _words("KindOfLearning", f"{at}/KindOfLearning/1/0", _LEARNING[manifest["model"]["individual"]]),
            _group("Inputs", f"{at}/Inputs/1/0", _inputs(manifest)),
            _group("Outputs", f"{at}/Outputs/1/0", _outputs(manifest)),
            _group("TrainingResults", f"{at}/TrainingResults/1/0", _results(manifest)),
            _group("Details", f"{at}/Details/1/0", _details(manifest)),
            _group(
                "AIDataset",
                f"{at}/AIDataset/1/0",
                [_refers("AIDatasetReference", f"{at}/AIDataset/DatasetReference/1/0", f"{name}:dataset")],
            ),
            _group(
                "AITypeSpecificInformation",
                f"{specific}/1/0",
                [_words("Type", f"{specific}/Type/1/0", "neural network, ONNX")],
            ),
        ],
    )


def _inputs(manifest: Mapping[str, Any]) -> list[Json]:
    at = f"{_IDTA}/AIModelNameplate/Inputs"
    found = [_text("KindOfInput", f"{at}/KindOfInput/1/0", "time series of robot signals, SI units")]
    for number, port in enumerate(manifest["inputs"], start=1):
        size = _text("Size", f"{at}/DimensionN/Size/1/0", str(port["shape"][0]))
        told = _text("Information", f"{at}/DimensionN/Information/1/0", _port(port))
        found.append(_group(f"Dimension{number}", f"{at}/DimensionN/1/0", [size, told]))
    return found


def _outputs(manifest: Mapping[str, Any]) -> list[Json]:
    at = f"{_IDTA}/AIModelNameplate/Outputs"
    found = []
    for number, port in enumerate(manifest["outputs"], start=1):
        size = _text("Size", f"{at}/DimensionN/Size/1/0", str(manifest["horizon"] * port["shape"][0]))
        told = _words("Result", f"{at}/DimensionN/Result/1/0", _port(port))
        found.append(_group(f"Dimension{number}", f"{at}/DimensionN/1/0", [size, told]))
    return found


def _port(port: Mapping[str, Any]) -> str:
    ends = zip(port["low"], port["high"], strict=True)
    return f"{port['name']} in {port['unit']}: " + ", ".join(f"{low} to {high}" for low, high in ends)


def _results(manifest: Mapping[str, Any]) -> list[Json]:
    meaning = f"{_IDTA}/AIModelNameplate/TrainingResults/Result/1/0"
    table = manifest["evaluation"]
    if table is None:
        return [_text("Result1", meaning, "not measured")]
    rows = [
        f"{row['model']}, {place} cell{'s' if place == 'others' else ''}: {row[place]['value']}"
        for row in table["rows"]
        for place in ("own", "others")
        if row[place] is not None
    ]
    told = [f"{table['metric']}; {table['better']} is better", *rows]
    return [_text(f"Result{number}", meaning, one) for number, one in enumerate(told, start=1)]


def _details(manifest: Mapping[str, Any]) -> list[Json]:
    at = f"{_IDTA}/AIModelNameplate/Details"
    versions = manifest["graph"]["versions"]
    return [
        _text("FileExtension", f"{at}/DataEnding/1/0", ".onnx"),
        _text("AIFramework", f"{at}/AIFramework/1/0", f"ONNX, opset {manifest['graph']['opset']}"),
        _text("ProgramLanguage", f"{at}/ProgramLanguage/1/0", f"Python {versions['python']}"),
        _file("ModelFile", "application/octet-stream", f"{_FILES}/model.onnx"),
        _file("ModelCard", "text/markdown", f"{_FILES}/MODEL_CARD.md"),
    ]


def _dataset(manifest: Mapping[str, Any], name: str) -> Json:
    at = f"{_IDTA}/AIDataset"
    contract = "urn:iriai:contract:" + manifest["lineage"]["contract"].removeprefix("sha256:")
    return _submodel(
        f"{name}:dataset",
        "AIDataset",
        TRAINED_ON,
        [
            _text("URIOfTheProduct", _URI, f"{name}:dataset"),
            _text("Version", _VERSION, manifest["lineage"]["run"]),
            _refers("ContactInformation", f"{at}/ContactInformation/1/0", contract),
            _text("Storage", f"{at}/Storage/1/0", "at the sites of the contract's parties"),
            _group(
                "SizeInformation",
                f"{at}/SizeInformation/1/0",
                # the doubled slash is the template's own
                [_text("CompleteSize", f"{at}//SizeInformation/CompleteSize/1/0", _NOT_STATED)],
            ),
            _group(
                "MetaData",
                f"{at}/MetaData/1/0",
                [_text("FileType", f"{at}/MetaData/FileType/1/0", "LeRobotDataset v3.0 (Parquet)")],
            ),
        ],
    )
