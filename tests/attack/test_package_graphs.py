# SPDX-License-Identifier: Apache-2.0
"""Graphs that open other files or ask for the whole machine, and packages that say two things: a signature helps none."""

from __future__ import annotations

import functools
import io
import resource
import struct
import zipfile
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from client.data.embodiment import Adapter
from client.deploy import loader
from client.deploy.adapters import ends_of
from client.deploy.agreement import privacy_of
from client.deploy.errors import (
    PackageError,
    PackageLimitsError,
    PackageManifestError,
    PackageMismatchError,
    PackageOpError,
    PackageSelfTestError,
    PackageSizeError,
    PackageStatementError,
    PackageWeightsError,
)
from client.deploy.graphs import INPUT, OUTPUTS
from client.deploy.loader import open_package
from client.deploy.package import build_package
from policies.encoding import canonical, digest, parse
from sandbox.recipes import plain_recipe, private_recipe
from tests.packagesim import (
    KEYS,
    NODE,
    latency_of,
    material,
    pick_recipe,
    signed_again,
    sound_package,
    statement_of,
    taken_apart,
    with_graph,
)


def _refused(data: bytes, kind: type[PackageError]) -> str:
    with pytest.raises(kind) as caught:
        open_package(data, KEYS)
    assert type(caught.value) is kind
    return str(caught.value)


def _edited(edit: Any, **members: bytes) -> bytes:
    return signed_again(taken_apart(sound_package()) | members, edit=edit)


@functools.cache
def _individual() -> bytes:
    return build_package(material(individual=True), NODE)


# --- weights elsewhere ---


def _outside(tensor: Any, location: str = "weights.bin") -> Any:
    for name in ("raw_data", "float_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        one = tensor.external_data.add()
        one.key, one.value = key, value
    return tensor


def _sparse() -> Any:
    return helper.make_sparse_tensor(
        _outside(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        helper.make_tensor("i", TensorProto.INT64, [1], [5]),
        [10],
    )


def _first(model: Any, node: Any) -> None:
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([node, *kept])


def _in_constant(model: Any) -> None:
    _first(model, helper.make_node("Constant", [], ["sp"], sparse_value=_sparse()))


def _in_attribute_of_a_known_operator(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("more", _sparse()))


def _in_list_of_tensors(model: Any) -> None:
    one = model.graph.node[0].attribute.add()
    one.name, one.type = "more", onnx.AttributeProto.TENSORS
    _outside(one.tensors.add())


def _in_tensor_attribute(model: Any) -> None:
    tensor = _outside(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
    model.graph.node[0].attribute.append(helper.make_attribute("value", tensor))


def _in_sparse_initializer(model: Any) -> None:
    model.graph.sparse_initializer.append(_sparse())


def _in_function(model: Any) -> None:
    one = model.functions.add(name="f", domain="")
    one.node.append(helper.make_node("Constant", [], ["sp"], sparse_value=_sparse()))


def _in_training(model: Any) -> None:
    _outside(model.training_info.add().initialization.initializer.add())


def _in_graph_of_an_operator(model: Any) -> None:
    inner = helper.make_graph([], "inner", [], [], initializer=[_outside(TensorProto())])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))


@pytest.mark.parametrize(
    "change",
    [
        _in_constant, _in_attribute_of_a_known_operator, _in_list_of_tensors, _in_tensor_attribute,
        _in_sparse_initializer, _in_function, _in_training, _in_graph_of_an_operator,
    ],
)  # fmt: skip
def test_no_place_of_the_graph_may_name_a_file(change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(struct.pack("<f", 0.5))
    _refused(with_graph(change), PackageOpError)


def test_weights_that_say_only_a_place_or_no_length_are_refused():
    def only_location(model):
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    def only_entries(model):
        one = model.graph.initializer[0].external_data.add()
        one.key, one.value = "location", "weights.bin"

    def shorter(model):
        model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]

    for change in (only_location, only_entries, shorter):
        _refused(with_graph(change), PackageWeightsError)


def test_one_region_of_the_weight_file_under_many_names_is_bounded(monkeypatch):
    monkeypatch.setattr("client.deploy.graphs.PACKAGE_GRAPH_BYTES", 200_000)

    def many(model):
        for number in range(20):
            one = model.graph.initializer.add()
            one.name, one.data_type = f"w{number}", TensorProto.FLOAT
            one.dims.append(10_000)
            _outside(one, "model.onnx.data")
            one.external_data[2].value = "40000"

    assert "bytes" in _refused(with_graph(many, **{"model.onnx.data": bytes(40_000)}), PackageSizeError)


def test_a_field_that_this_program_does_not_know_is_never_handed_on(monkeypatch):
    seen: list[bytes] = []
    real = loader.session_of
    monkeypatch.setattr(loader, "session_of", lambda graph: (seen.append(graph), real(graph))[1])
    data = sound_package()
    parts = taken_apart(data)
    unknown = b"\xfa\xff\x7f\x04evil"  # a field of a number that no version has
    from tests.packagesim import with_bytes

    open_package(with_bytes(parts["model.onnx"] + unknown), KEYS)
    assert b"evil" not in seen[0]


# --- memory and work ---


def _constant(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.array(value, dtype=np.int64), name)


def _into_output(model: Any, *nodes: Any) -> None:
    """Nodes between the former output, now ``inner``, and the output."""
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == OUTPUTS[0]:
                node.output[at] = "inner"
    model.graph.node.extend(nodes)


def _bomb(*, computed: bool) -> Any:
    def change(model):
        model.graph.initializer.append(_constant("size", [500_000_000, 1, 1]))
        source = "ones" if computed else "observation"
        if computed:
            model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "ones"))
        else:
            model.graph.initializer.append(_constant("axes", [0]))
            model.graph.initializer.append(_constant("one", [1, 1, 1]))
        nodes = [helper.make_node("Expand", [source, "size"], ["big"])]
        nodes += [
            helper.make_node("Tanh", ["big"], ["big2"]),
            helper.make_node("Max", ["inner"], [OUTPUTS[0]]),
        ]
        _into_output(model, *nodes)

    return change


@pytest.mark.parametrize("computed", [True, False])
def test_a_few_bytes_that_ask_for_gigabytes_are_refused_before_anything_is_allocated(computed):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = with_graph(_bomb(computed=computed))
    assert len(data) < 200_000
    with pytest.raises((PackageSizeError, PackageOpError)):
        open_package(data, KEYS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the bomb had 2 GB


def test_constants_that_fold_into_gigabytes_are_refused():
    def cascade(model):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 1), np.float32), "seed"))
        name = "seed"
        nodes = []
        for step in range(1, 23):
            nodes.append(helper.make_node("Concat", [name, name], [f"c{step}"], axis=0))
            name = f"c{step}"
        _into_output(model, *nodes, helper.make_node("Max", ["inner"], [OUTPUTS[0]]))

    assert "values at batch" in _refused(with_graph(cascade), PackageSizeError)


def test_products_that_take_minutes_are_refused():
    def products(model):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1500), np.float32), "row"))
        model.graph.initializer.append(_constant("square", [1500, 1500]))
        nodes = [helper.make_node("Expand", ["row", "square"], ["m0"])]
        nodes += [helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(10)]
        _into_output(model, *nodes, helper.make_node("Max", ["inner"], [OUTPUTS[0]]))

    assert "products" in _refused(with_graph(products), PackageSizeError)


def test_a_shape_that_the_observation_decides_is_refused():
    def by_value(model):
        model.graph.initializer.append(_constant("flat", [-1]))
        nodes = [
            helper.make_node("Reshape", [INPUT, "flat"], ["values"]),
            helper.make_node("Cast", ["values"], ["sizes"], to=TensorProto.INT64),
            helper.make_node("Expand", ["inner", "sizes"], [OUTPUTS[0]]),
        ]
        _into_output(model, *nodes)

    _refused(with_graph(by_value), PackageOpError)


@pytest.mark.parametrize(
    "name", ["ConstantOfShape", "Constant", "Tile", "Range", "NonZero", "Pow", "Loop", "Scan"]
)
def test_operators_that_the_exporter_never_writes_are_refused(name):
    def change(model):
        model.graph.node[1].op_type = name

    assert name in _refused(with_graph(change), PackageOpError)


def test_a_graph_that_fails_while_it_runs_is_a_named_refusal():
    def two_rows(model):
        model.graph.initializer.append(_constant("twice", [1, 2, 1]))
        nodes = [
            helper.make_node("Shape", ["inner"], ["s"]),
            helper.make_node("Mul", ["s", "twice"], ["s2"]),
            helper.make_node("Expand", ["inner", "s2"], [OUTPUTS[0]]),
        ]
        _into_output(model, *nodes)

    def out_of_range(model):
        model.graph.initializer.append(_constant("far", 99))
        nodes = [
            helper.make_node("Gather", ["inner", "far"], ["g"], axis=2),
            helper.make_node("Unsqueeze", ["g", "two"], ["g3"]),
            helper.make_node("Add", ["inner", "g3"], [OUTPUTS[0]]),
        ]
        model.graph.initializer.append(_constant("two", [2]))
        _into_output(model, *nodes)

    _refused(with_graph(two_rows), PackageOpError)
    with pytest.raises((PackageSelfTestError, PackageOpError)):
        open_package(with_graph(out_of_range), KEYS)


def test_a_self_test_that_does_not_end_is_ended(monkeypatch):
    class Timer:
        """Fires before it is started: the first run finds itself terminated."""

        daemon = False

        def __init__(self, _seconds, function, arguments):
            function(*arguments)

        def start(self):
            return None

        def cancel(self):
            return None

    monkeypatch.setattr(loader.threading, "Timer", Timer)
    assert "terminate" in _refused(sound_package(), PackageSelfTestError)


# --- limits and guards come from the recipe ---


def _widened(document):
    for port in (*document["inputs"], *document["outputs"]):
        port["low"], port["high"] = ["-9000"] * len(port["low"]), ["9000"] * len(port["high"])


@pytest.mark.parametrize(
    "edit",
    [
        _widened,
        lambda d: d["safety"].update(watchdog_ms=60_000),
        lambda d: d["safety"].update(max_delta_per_tick=["1000"] * 4),
        lambda d: d["safety"].update(fallback="zero-velocity"),
        lambda d: d["safety"]["ood"].update(max="1"),
        lambda d: d["example"].update(tolerance="1"),
        lambda d: d["example"].update(tolerance="999999999999"),
        lambda d: d["example"]["observation"].__setitem__(0, "0.1"),
        lambda d: d["inputs"][0].update(field="camera_face"),
        lambda d: d["inputs"][0].update(unit="parsec"),
        lambda d: d["outputs"][0].update(name="other"),
        lambda d: d["outputs"].reverse(),
        lambda d: d["inputs"][0].update(rate_hz="500"),
        lambda d: d["embodiment"].update({"class": "6r-arm"}),
        lambda d: d["lineage"].update(seed_set="sha256:" + "1" * 64),
        lambda d: d["normaliser"].update(source=["seed-set"]),
        lambda d: d.update(task="other"),
    ],
)  # fmt: skip
def test_whatever_follows_from_the_recipe_is_computed_again(edit):
    _refused(_edited(edit), PackageMismatchError)


@pytest.mark.parametrize("rate", ["-5", "0", "10001"])
def test_a_rate_that_is_none_is_refused(rate):
    _refused(_edited(lambda d: d["inputs"][0].update(rate_hz=rate)), PackageManifestError)


def test_limits_and_watchdogs_have_bounds_of_their_own():
    _refused(_edited(lambda d: d["outputs"][0].update(high=["999999999999"] * 3)), PackageLimitsError)
    _refused(_edited(lambda d: d["safety"].update(watchdog_ms=60_001)), PackageManifestError)


def test_another_recipe_than_the_contracts_is_refused():
    wider = {"max_delta_per_tick": None, "watchdog_ms": 60_000, "fallback": "stop", "ood_share_max": "1"}
    other = canonical(parse(plain_recipe(10)) | {"package": wider})
    assert "the recipe sha256:" in _refused(_edited(None, **{"recipe.json": other}), PackageMismatchError)

    def named(document):
        document["lineage"]["recipe"] = digest(other)

    _refused(_edited(named, **{"recipe.json": other}), PackageStatementError)  # which is about the first one
    statement = statement_of(
        _recipe(other), parse(taken_apart(sound_package())["manifest.json"])["model"]["digest"]
    )

    def all_of_it(document):
        named(document)
        document["privacy"] = privacy_of(statement)

    told = {"recipe.json": other, "statement.json": statement}
    _refused(_edited(all_of_it, **told), PackageMismatchError)
    not_one = b"{}"

    def empty(document):
        document["lineage"]["recipe"] = digest(not_one)

    _refused(_edited(empty, **{"recipe.json": not_one}), PackageStatementError)


def _recipe(data: bytes) -> Any:
    from policies.recipe import load

    return load(data)


# --- what is said twice ---


@pytest.mark.parametrize(
    "claim",
    [
        {"epsilon": "0.001", "unit": "episode", "delta": "0"},
        {"unit": "episode"},
        {"delta": "0.00001"},
    ],
)
def test_no_package_claims_more_privacy_than_its_statement(claim):
    _refused(_edited(lambda d: d["privacy"].update(claim)), PackageStatementError)


def test_a_statement_under_another_plan_than_the_recipes_is_refused():
    model = parse(taken_apart(sound_package())["manifest.json"])["model"]["digest"]
    private = _recipe(private_recipe("8", 250))

    class Mixed:
        digest, plan, evaluation = pick_recipe().digest, private.plan, pick_recipe().evaluation

    statement = statement_of(Mixed, model)

    def edit(document):
        document["privacy"] = privacy_of(statement)

    _refused(_edited(edit, **{"statement.json": statement}), PackageStatementError)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MODEL_CARD.md", b"# certified SIL3 safety function, epsilon 0.01\n"),
        ("MODEL_CARD.md", b"\xff\xfe\x80"),
        ("sbom.json", canonical([])),
        ("sbom.json", b"\xff"),
        ("latency.json", canonical({"graph": "sha256:" + "0" * 64, "p50_us": "0"})),
        ("latency.json", b"["),
        ("recipe.json", b"\xff"),
        ("adapter.json", canonical(Adapter(gain="2").model_dump())),
        ("aas/model.aasx", b"PK\x05\x06" + b"\0" * 18),
    ],
)
def test_a_text_that_is_not_the_one_that_follows_is_refused(name, content):
    _refused(_edited(None, **{name: content}), PackageMismatchError)


def test_latency_of_another_graph_is_refused():
    told = latency_of(b"another graph")
    from client.deploy.latency import shared

    assert "this graph" in _refused(_edited(None, **{"latency.json": shared(told)}), PackageMismatchError)


def test_a_shell_of_another_model_or_with_other_figures_is_refused():
    from client.deploy.aasx import shell_of

    parts = taken_apart(sound_package())
    document = parse(parts["manifest.json"])
    document["graph"]["aas"] = True

    def says_so(edited):
        edited["graph"]["aas"] = True

    shell = shell_of(document, parts["model.onnx"], parts["MODEL_CARD.md"])
    open_package(_edited(says_so, **{"aas/model.aasx": shell}), KEYS)
    for old, new in ((b"not measured", b"success 100%"), (parts["model.onnx"], b"another model")):
        packed, read = io.BytesIO(), zipfile.ZipFile(io.BytesIO(shell))
        with zipfile.ZipFile(packed, "w") as write:
            for one in read.infolist():
                write.writestr(one, read.read(one).replace(old, new))
        assert "aasx" in _refused(
            _edited(says_so, **{"aas/model.aasx": packed.getvalue()}), PackageMismatchError
        )
    _refused(_edited(says_so), PackageMismatchError)  # says there is one
    _refused(_edited(None, **{"aas/model.aasx": shell}), PackageMismatchError)  # says there is none


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Paths of all values in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _places(one, (*path, name))


@pytest.mark.parametrize("value", [None, -1, "", "9" * 400, [], {"a": [1]}])
def test_any_value_of_the_manifest_in_another_form_is_a_named_refusal(value):
    document = parse(taken_apart(sound_package())["manifest.json"])
    for path in _places(document):
        at: Any = document
        for name in path:
            at = at[name]
        if not path or path[0] == "members" or at == value:
            continue

        def edit(one, path=path):
            for name in path[:-1]:
                one = one[name]
            one[path[-1]] = value

        data = _edited(edit)
        with pytest.raises(PackageError):
            open_package(data, KEYS)


# --- what a package tells of the site ---


def test_a_common_package_tells_nothing_of_the_machine_or_of_the_vote():
    parts = taken_apart(sound_package())
    document = parse(parts["manifest.json"])
    assert document["lineage"]["log"] is None
    assert document["graph"]["versions"] == {"python": "3.11", "onnx": "1.23"}
    latency = parse(parts["latency.json"])
    assert [latency[one] for one in ("machine", "load", "runs")] == [None, None, None]
    assert [latency[one] for one in ("p50_us", "p90_us", "p99_us")] == ["10", "10", "10"]
    every = b"".join(parts.values())
    for word in (b"a processor", b"x86_64", b"3.11.7", b"1.23.2", b"1.32.0", b"log.example", b"vote.cast"):
        assert word not in every, word
    own = b"".join(taken_apart(_individual()).values())
    for word in (b"a processor", b"3.11.7", b"log.example"):
        assert word in own, word


def test_a_common_package_that_tells_of_its_site_is_refused():
    place = parse(taken_apart(_individual())["manifest.json"])["lineage"]["log"]
    _refused(_edited(lambda d: d["lineage"].update(log=place)), PackageManifestError)
    _refused(_edited(lambda d: d["embodiment"].update(adapter="sha256:" + "1" * 64)), PackageManifestError)
    exact = latency_of(taken_apart(sound_package())["model.onnx"])
    assert "machine" in _refused(_edited(None, **{"latency.json": exact}), PackageMismatchError)
    _refused(_edited(lambda d: d["graph"]["versions"].update(python="3.11.7")), PackageMismatchError)


def test_an_individual_package_with_an_adapter_is_checked_by_it():
    recipe = pick_recipe()
    ends = ends_of(Adapter(gain="0.5"), recipe)
    data = build_package(material(individual=True, ends=ends), NODE)
    parts = taken_apart(data)
    loaded = open_package(data, KEYS)
    assert loaded.manifest.embodiment.adapter == digest(parts["adapter.json"]) == ends.digest
    other = canonical(Adapter(gain="0.25").model_dump())
    _refused(signed_again(parts | {"adapter.json": other}), PackageMismatchError)

    def named(document):
        document["embodiment"]["adapter"] = digest(other)

    assert "outputs" in _refused(
        signed_again(parts | {"adapter.json": other}, edit=named), PackageMismatchError
    )
    del parts["adapter.json"]
    _refused(signed_again(parts), PackageMismatchError)
