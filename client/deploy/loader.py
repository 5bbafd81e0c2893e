# SPDX-License-Identifier: Apache-2.0
"""Opens a model package, or refuses it by name: the one way from a file to a model that may act.

    package = load_package(path, [own_key, broker_key])     # raw Ed25519 public keys that this site pins
    chunk = package.infer(observation)                      # [n] raw, SI, order of manifest.inputs → [H, a]

Steps, in this order; the first that fails refuses, and nothing is extracted:
1. structure and bounds of the archive (`client.deploy.archive`);
2. a signature by one of the pinned keys over exactly the bytes of ``manifest.json``;
3. the members are exactly the listed ones, and each has the size and SHA-256 that were signed;
4. the manifest's schema; limits of every input, output and guard; a privacy statement about this model; and
   whatever is said twice, or follows from the recipe inside, is the same (`client.deploy.agreement`);
5. the graph (`client.deploy.graphs`): operators, weights, ports, and what memory and work it may ask for;
6. a session from bytes, one thread;
7. the example of the manifest is answered as it should be, and at 64 corners of the input limits, always the
   same, every answer is finite and within the output limits; after `limits.PACKAGE_TEST_S` it is ended.

A limit, a guard or a tolerance thus comes from the recipe that the parties signed, never from the packager.
**Every refusal is a `PackageError`**: what the runtime throws at a graph is one too.

Before step 3 is done, no bytes but those of manifest and signature are parsed. ``statement_signed`` says
whether one of the pinned keys also signed the privacy statement: where only a site's key is pinned, the
statement rests on the site's word.

`LoadedPackage` keeps no memory of observations and lets NaN through, as ONNX does: finite values are the
business of the guards around it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.deploy.agreement import check_agreement
from client.deploy.archive import read_archive
from client.deploy.errors import (
    PackageFileError,
    PackageOpError,
    PackageSelfTestError,
    PackageSizeError,
    PackageStatementError,
)
from client.deploy.graph_size import BATCHES
from client.deploy.graphs import INPUT, OUTPUTS, WEIGHTS, check_graph
from client.deploy.manifest import Manifest, values
from client.deploy.signed_members import (
    CARD,
    GRAPH,
    LATENCY,
    MANIFEST,
    SBOM,
    STATEMENT,
    check_members,
    signer_of,
)
from policies.encoding import digest, parse
from policies.errors import EncodingError
from policies.limits import PACKAGE_BYTES, PACKAGE_TEST_S
from policies.privacy.statement import PAYLOAD_TYPE as STATEMENT_TYPE
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from client.deploy.archive import Stored
    from client.deploy.blocks import Safety

__all__ = ["LoadedPackage", "load_package", "open_package", "session_of"]

Array32 = npt.NDArray[np.float32]
AnyArray = npt.NDArray[np.floating[Any]]

_REMEDY: Final = "get the package again from whoever made it; it never runs like this"
_CORNERS: Final = 64
_HALF: Final = 0.5
_ROUNDING: Final = 1e-5  # float32 against decimal limits, as a part of the limits' width


class LoadedPackage:
    """A model that passed all seven steps, and what its manifest says; not thread-safe.

    Attributes:
        manifest: What was signed.
        signer: Raw public key that signed it.
        statement: The privacy statement.
        statement_signed: Whether a pinned key signed that one.
        card: ``MODEL_CARD.md``.
        texts: ``latency.json`` and ``sbom.json`` as JSON values.
        size: Of the file in bytes.
    """

    def __init__(
        self,
        *,
        manifest: Manifest,
        signer: bytes,
        statement: Mapping[str, Any],
        statement_signed: bool,
        members: Mapping[str, Stored],
        size: int,
        graph: bytes,
    ) -> None:
        self.manifest = manifest
        self.signer = signer
        self.statement = statement
        self.statement_signed = statement_signed
        self.size = size
        # what `check_agreement` compared
        self.card = bytes(members[CARD].data).decode("utf-8")
        self.latency, self.sbom = (parse(bytes(members[name].data)) for name in (LATENCY, SBOM))
        self._session = session_of(graph)

    @property
    def digest(self) -> str:
        """Of the manifest: names the package in every record."""
        return self.manifest.digest

    @property
    def safety(self) -> Safety:
        """Numbers of the guards."""
        return self.manifest.safety

    def infer(self, observation: AnyArray) -> Array32:
        """The next actions ``[H, a]``, SI, of one raw observation ``[n]``."""
        return self.infer_flagged(observation)[0]

    def infer_flagged(self, observation: AnyArray) -> tuple[Array32, float]:
        """Actions as `infer`, and the share of features beyond the clip (0 to 1)."""
        chunks, shares = self.infer_many(np.asarray(observation, dtype=np.float32).reshape(1, -1))
        return chunks[0], float(shares[0])

    def infer_many(self, observations: AnyArray) -> tuple[Array32, Array32]:
        """Chunks ``[batch, H, a]`` and shares ``[batch]`` of observations ``[batch, n]``."""
        return self._answers(observations, None)

    def _answers(self, observations: AnyArray, options: Any) -> tuple[Array32, Array32]:  # noqa: ANN401
        asked = np.asarray(observations, dtype=np.float32)
        chunks, shares = self._session.run(OUTPUTS, {INPUT: asked}, options)
        return chunks, shares

    def test(self) -> None:
        """Step 7: answers the example and the corners as it should, in bounded time.

        Raises:
            PackageSelfTestError: It does not.
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        stop = threading.Timer(PACKAGE_TEST_S, setattr, (options, "terminate", True))
        stop.daemon = True
        stop.start()
        try:
            _self_test(self.manifest, lambda asked: self._answers(asked, options))
        except _runtime_errors() as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise _failed("answers of the runtime", ascii(first)[1:-1][:160]) from error
        finally:
            stop.cancel()


def load_package(path: Path, keys: Sequence[bytes]) -> LoadedPackage:
    """The model of a package in a file; the steps are in the module's docstring.

    Args:
        path: The ``.iriai`` file.
        keys: Raw public keys that are pinned here; one of them must have signed the package.

    Raises:
        PackageFileError: It cannot be read.
        PackageError: A step fails; each has its class.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= PACKAGE_BYTES else b""
    except OSError as error:
        raise PackageFileError(
            need=f"a package at {path}",
            found=error.strerror or type(error).__name__,
            remedy="name the file; iriai-node models package MODEL --out FILE makes one",
        ) from error
    if size > PACKAGE_BYTES:
        raise PackageSizeError(
            need=f"at most {PACKAGE_BYTES} bytes", found=f"{size} bytes", remedy="name a package"
        )
    return open_package(data, keys)


def open_package(data: bytes, keys: Sequence[bytes]) -> LoadedPackage:
    """`load_package` for bytes that are here."""
    members = read_archive(data)  # 1.
    signer = signer_of(members, keys)  # 2.
    check_members(members)  # 3.
    manifest = Manifest.read(bytes(members[MANIFEST].data))  # 4.
    statement, signed = _statement(members, manifest, keys)
    check_agreement(members, manifest, statement)
    graph = check_graph(  # 5.
        members[GRAPH].data,
        members[WEIGHTS].data if WEIGHTS in members else None,
        observation=manifest.observation_size,
        chunk=(manifest.horizon, manifest.action_size),
        opset=manifest.graph.opset,
    )
    package = LoadedPackage(  # 6.
        manifest=manifest,
        signer=signer,
        statement=statement,
        statement_signed=signed,
        members=members,
        size=len(data),
        graph=graph,
    )
    package.test()  # 7.
    return package


def _statement(
    members: Mapping[str, Stored], manifest: Manifest, keys: Sequence[bytes]
) -> tuple[dict[str, Any], bool]:
    """Step 4: the privacy statement, if it is about this model, and whether a pinned key signed it."""
    data = bytes(members[STATEMENT].data)
    try:
        envelope = Envelope.from_bytes(data)
        document = parse(envelope.payload)
        subject, verdict = document["subject"], document["verdict"]
        said = {name: subject[name] for name in ("model", "contract", "recipe", "run")}
    except (EncodingError, KeyError, TypeError) as error:
        raise _no_statement("a privacy statement", "another document") from error
    lineage, model = manifest.lineage, manifest.model
    wanted = {
        "model": model.parent or model.digest,
        "contract": lineage.contract,
        "recipe": lineage.recipe,
        "run": lineage.run,
    }
    for name, value in wanted.items():
        if said[name] != value:
            raise _no_statement(f"a statement about {name} {value}", ascii(said[name])[:90])
    if verdict != manifest.privacy.verdict or digest(data) != manifest.privacy.statement:
        raise _no_statement("the statement that the manifest tells of", "another")
    signed = envelope.payload_type == STATEMENT_TYPE and any(envelope.signed_by(key) for key in keys)
    return document, signed


def _no_statement(need: str, found: str) -> PackageStatementError:
    return PackageStatementError(need=need, found=found, remedy=_REMEDY)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime throws at a graph; its own classes share no root but `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    own = [one for one in vars(states).values() if isinstance(one, type) and issubclass(one, Exception)]
    return (*own, MemoryError, ValueError, RuntimeError)


def session_of(graph: bytes) -> Any:  # noqa: ANN401  the library's own type
    """Step 6: a session on a graph, one thread.

    Raises:
        PackageOpError: ONNX Runtime does not load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise PackageOpError(
            need="a graph that ONNX Runtime loads", found=ascii(first)[1:-1][:160], remedy=_REMEDY
        ) from error


def _self_test(manifest: Manifest, answers: Callable[[AnyArray], tuple[Array32, Array32]]) -> None:
    """Step 7, in the batches that the graph's size was bounded for."""
    example = manifest.example
    shape = (manifest.horizon, manifest.action_size)
    chunks, shares = answers(values(example.observation)[None])
    _check_shapes(chunks, shares, (1, *shape))
    expected = values(example.action_chunk).reshape(shape)
    width = manifest.action_high - manifest.action_low
    if not np.all(np.abs(chunks[0] - expected) <= float(example.tolerance) * width):  # a NaN is not within
        raise _failed("the manifest's example, answered to " + example.tolerance, "another answer")
    slack = _ROUNDING * width
    for corners in np.split(_corners(manifest), _CORNERS // BATCHES[-1]):
        chunks, shares = answers(corners)
        _check_shapes(chunks, shares, (len(corners), *shape))
        inside = (chunks >= manifest.action_low - slack) & (chunks <= manifest.action_high + slack)
        if not inside.all() or not ((shares >= 0) & (shares <= 1)).all():
            raise _failed("actions within their limits at the limits of the inputs", "others")


def _check_shapes(chunks: Array32, shares: Array32, wanted: tuple[int, ...]) -> None:
    if chunks.shape != wanted or shares.shape != wanted[:1]:
        raise _failed(f"answers of shape {wanted}", f"{chunks.shape} and {shares.shape}")


def _corners(manifest: Manifest) -> Array32:
    """All lower, all upper limits, and other corners of the inputs' limits, always the same ``[64, n]``."""
    upper = np.random.Generator(np.random.PCG64(0)).random((_CORNERS, manifest.observation_size)) < _HALF
    upper[0], upper[1] = False, True
    return np.where(upper, manifest.high, manifest.low).astype(np.float32)


def _failed(need: str, found: str) -> PackageSelfTestError:
    return PackageSelfTestError(need=need, found=found, remedy=_REMEDY)
