# SPDX-License-Identifier: Apache-2.0
"""Packages that somebody changed, and packages that a pinned key signed by mistake: each refused by its own name."""

from __future__ import annotations

import io
import struct
import zipfile

import onnx
import pytest

from client.deploy.errors import (
    PackageDigestError,
    PackageFormError,
    PackageLimitsError,
    PackageManifestError,
    PackageMemberError,
    PackageOpError,
    PackageSelfTestError,
    PackageSignerError,
    PackageSizeError,
    PackageStatementError,
    PackageUnsignedError,
    PackageWeightsError,
)
from client.deploy.loader import load_package, open_package
from policies.encoding import canonical, parse
from policies.identity import SigningKey
from policies.limits import PACKAGE_BYTES
from tests.packagesim import (
    BROKER,
    KEYS,
    NODE,
    STRANGER,
    pick_recipe,
    signed_again,
    sound_package,
    statement_of,
    taken_apart,
    with_bytes,
    with_graph,
)

SIGNED = ("MODEL_CARD.md", "latency.json", "model.onnx", "sbom.json", "statement.json")


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _refused(data: bytes, kind: type[Exception], keys=KEYS) -> str:
    with pytest.raises(kind) as caught:
        open_package(data, keys)
    assert type(caught.value) is kind
    return str(caught.value)


# --- somebody without a key ---


@pytest.mark.parametrize("name", SIGNED)
def test_one_flipped_byte_of_a_member_is_refused_before_anything_is_parsed(name, monkeypatch):
    data = sound_package()
    body = taken_apart(data)[name]
    at = data.index(body) + len(body) // 2
    for place in ("check_graph", "session_of"):
        monkeypatch.setattr(f"client.deploy.loader.{place}", None)  # would fail if it were called
    assert name in _refused(_flipped(data, at), PackageDigestError)


@pytest.mark.parametrize("name", ["manifest.json", "signature.dsse"])
def test_one_flipped_byte_of_manifest_or_signature_is_an_unsigned_package(name):
    data = sound_package()
    body = taken_apart(data)[name]
    _refused(_flipped(data, data.index(body) + len(body) // 2), PackageUnsignedError)


def test_every_byte_of_the_archive_counts():
    data = sound_package()
    for at in range(0, len(data), max(1, len(data) // 400)):
        with pytest.raises((PackageFormError, PackageDigestError, PackageUnsignedError, PackageSizeError)):
            open_package(_flipped(data, at), KEYS)
    for at in range(1, 400):  # the directory, and records of members
        with pytest.raises((PackageFormError, PackageUnsignedError, PackageSizeError, PackageSignerError)):
            open_package(_flipped(data, len(data) - at), KEYS)


def test_a_package_that_ends_early_or_goes_on_is_no_package():
    data = sound_package()
    for other in (b"", b"PK", data[:-1], data[: len(data) // 2], data + b"\0", b"\0" + data):
        _refused(other, PackageFormError)


def test_a_member_beside_the_listed_ones_is_refused():
    from client.deploy.archive import write_archive

    members = taken_apart(sound_package())
    assert "setup.py" in _refused(write_archive(members | {"setup.py": b"print()"}), PackageMemberError)


def test_a_member_that_is_gone_is_refused():
    from client.deploy.archive import write_archive

    members = taken_apart(sound_package())
    del members["MODEL_CARD.md"]
    assert "MODEL_CARD.md" in _refused(write_archive(members), PackageMemberError)


def test_a_package_without_signature_or_with_that_of_another_is_unsigned():
    from client.deploy.archive import write_archive

    members = taken_apart(sound_package())
    other = taken_apart(signed_again(dict(members), edit=lambda one: one.update(task="other")))
    _refused(write_archive(members | {"signature.dsse": other["signature.dsse"]}), PackageUnsignedError)
    _refused(write_archive(members | {"signature.dsse": b"{}"}), PackageUnsignedError)
    del members["signature.dsse"]
    _refused(write_archive(members), PackageUnsignedError)


def test_another_signer_is_named_and_refused():
    data = signed_again(taken_apart(sound_package()), key=STRANGER)
    assert "signatures hinting at" in _refused(data, PackageSignerError)
    assert open_package(data, [STRANGER.public]).signer == STRANGER.public
    _refused(sound_package(), PackageSignerError, keys=[SigningKey.from_seed(b"x" * 32).public])


def test_a_strangers_signature_under_a_pinned_hint_does_not_count():
    members = taken_apart(signed_again(taken_apart(sound_package()), key=STRANGER))
    envelope = parse_envelope(members["signature.dsse"])
    envelope["signatures"][0]["keyid"] = parse_envelope(taken_apart(sound_package())["signature.dsse"])[
        "signatures"
    ][0]["keyid"]
    from client.deploy.archive import write_archive

    _refused(write_archive(members | {"signature.dsse": canonical(envelope)}), PackageUnsignedError)


def parse_envelope(data: bytes):
    import json

    return json.loads(data)


# --- archives that a lenient reader would take ---


def _zip(*parts: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return packed.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_twice_is_refused():
    parts = sorted(taken_apart(sound_package()).items())
    _refused(_zip(*parts, parts[-1]), PackageFormError)


def test_a_zip_bomb_is_refused_without_inflating_a_byte():
    bomb = _zip(("manifest.json", b"\0" * 50_000_000), method=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    _refused(bomb, PackageFormError)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/model.onnx", "a/b/model.onnx", "mödel", "a\\b", "", "a/", "x" * 130]
)
def test_a_name_that_leaves_the_folder_or_the_alphabet_is_refused(name):
    _refused(_zip((name, b"x")), PackageFormError)


def test_repacked_by_a_common_tool_it_is_refused():
    parts = sorted(taken_apart(sound_package()).items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    _refused(packed.getvalue(), PackageFormError)


def test_absurd_sizes_are_refused_by_the_numbers_alone(tmp_path):
    end = struct.Struct("<4sHHHHIIH")
    _refused(end.pack(b"PK\x05\x06", 0, 0, 60_000, 60_000, 0, 0, 0), PackageSizeError)
    _refused(end.pack(b"PK\x05\x06", 0, 0, 1, 1, 2**32 - 2, 0, 0), PackageFormError)
    record = bytearray(sound_package())
    at = record.rindex(b"PK\x01\x02")
    record[at + 20 : at + 28] = struct.pack("<II", 2**32 - 1, 2**32 - 1)
    _refused(bytes(record), PackageFormError)
    large = tmp_path / "large.iriai"
    with large.open("wb") as file:
        file.truncate(PACKAGE_BYTES + 1)  # sparse: nothing is written, and nothing must be read
    with pytest.raises(PackageSizeError):
        load_package(large, KEYS)


# --- signed by a pinned key, and refused all the same ---


def _edited(path: str, value) -> bytes:
    def edit(document):
        at = document
        *parents, last = path.split(".")
        for one in parents:
            at = at[int(one)] if isinstance(at, list) else at[one]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return signed_again(taken_apart(sound_package()), edit=edit)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inputs.0.low", None),
        ("inputs.2.high", []),
        ("outputs.1.high", None),
        ("outputs.0.low", ["0", "0"]),
        ("outputs.0.high", ["-1", "-1", "-1"]),
        ("safety", None),
        ("safety.max_delta_per_tick", None),
        ("safety.max_delta_per_tick", ["0", "1", "1", "1"]),
        ("safety.watchdog_ms", None),
        ("safety.fallback", None),
        ("safety.ood", None),
        ("safety.clamp", None),
        ("safety.ood.max", "1.5"),
    ],
)
def test_a_signed_manifest_without_a_limit_never_runs(path, value):
    _refused(_edited(path, value), PackageLimitsError)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "iriai-model/2"),
        ("task", None),
        ("note", "another key"),
        ("execute", 9),
        ("model.parent", "sha256:" + "0" * 64),
        ("example.observation", ["0"]),
        ("graph.window", 2),
    ],
)
def test_a_signed_manifest_that_contradicts_itself_is_refused(path, value):
    _refused(_edited(path, value), PackageManifestError)


def test_a_statement_about_another_model_or_of_another_verdict_is_refused():
    members = taken_apart(sound_package())
    recipe = pick_recipe()
    other = statement_of(recipe, "sha256:" + "1" * 64)
    _refused(signed_again(members | {"statement.json": other}), PackageStatementError)
    _refused(signed_again(members | {"statement.json": canonical({})}), PackageStatementError)
    _refused(_edited("privacy.verdict", "PRIVATE"), PackageStatementError)
    del members["statement.json"]
    _refused(signed_again(members), PackageStatementError)


def test_a_statement_that_no_pinned_key_signed_shows():
    members = taken_apart(sound_package())
    model = parse(members["manifest.json"])["model"]["digest"]
    other = statement_of(pick_recipe(), model, key=STRANGER)

    def edit(document):
        from policies.encoding import digest

        document["privacy"]["statement"] = digest(other)

    data = signed_again(members | {"statement.json": other}, edit=edit)
    assert not open_package(data, KEYS).statement_signed
    assert open_package(sound_package(), KEYS).statement_signed
    assert not open_package(sound_package(), [NODE.public]).statement_signed
    assert BROKER.public in KEYS


def test_weights_outside_the_package_are_never_opened():
    def outside(location: str):
        def change(model):
            one = model.graph.initializer[0]
            one.ClearField("raw_data")
            one.ClearField("float_data")
            one.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", "4")):
                entry = one.external_data.add()
                entry.key, entry.value = key, value

        return change

    for location in ("../x", "/etc/passwd", "model.onnx", "weights.bin"):
        assert "weights at" in _refused(with_graph(outside(location)), PackageWeightsError)
    _refused(with_graph(outside("model.onnx.data")), PackageWeightsError)  # no such member
    _refused(with_graph(outside("model.onnx.data"), **{"model.onnx.data": b"1234"}), PackageWeightsError)


def test_operators_outside_the_list_are_refused():
    def custom(model):
        model.graph.node[0].domain = "com.example"
        model.opset_import.add(domain="com.example", version=1)

    def loop(model):
        model.graph.node[0].op_type = "Loop"

    def random(model):
        model.graph.node[0].op_type = "RandomNormalLike"

    def hidden(model):
        model.graph.node[0].domain = "com.example"

    def function(model):
        model.functions.add(name="f", domain="com.example")

    def other_opset(model):
        model.opset_import[0].version = 12

    for change in (custom, loop, random, hidden, function, other_opset):
        _refused(with_graph(change), PackageOpError)


def test_a_graph_of_other_ports_or_bytes_is_refused():
    def one_output(model):
        del model.graph.output[1]

    def fixed_batch(model):
        dim = model.graph.input[0].type.tensor_type.shape.dim[0]
        dim.ClearField("dim_param")
        dim.dim_value = 1

    def broken(model):
        model.graph.node[1].input[0] = "nothing"

    for change in (one_output, fixed_batch, broken):
        _refused(with_graph(change), PackageOpError)
    _refused(with_bytes(b"\xff\xff no graph"), PackageOpError)


def test_a_graph_that_answers_otherwise_than_it_was_checked_is_refused():
    def scaled(model):
        for one in model.graph.initializer:
            if one.name == "action_centre":
                one.raw_data = struct.pack("<4f", 0.001, 0, 0, 0)

    _refused(with_graph(scaled), PackageSelfTestError)


def test_a_graph_without_its_clamp_is_refused():
    import numpy as np
    from onnx import numpy_helper

    def unclamped(model):
        for one in model.graph.initializer:
            if one.name in {"low", "high"}:
                wide = np.full(4, 1e6, dtype=np.float32) * (1 if one.name == "high" else -1)
                one.CopyFrom(numpy_helper.from_array(wide, one.name))

    assert "at the limits of the inputs" in _refused(with_graph(unclamped), PackageSelfTestError)


def test_a_foreign_member_that_is_listed_is_refused_all_the_same():
    members = taken_apart(sound_package())
    assert "setup.py" in _refused(signed_again(members | {"setup.py": b"print()"}), PackageMemberError)
