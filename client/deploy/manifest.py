# SPDX-License-Identifier: Apache-2.0
"""The manifest of a model package (``iriai-model/1``): what a model takes, gives, may do, and comes from.

    manifest = Manifest.read(data)             # canonical JSON; PackageManifestError, PackageLimitsError
    manifest.low, manifest.high                # [n] of the raw observation, SI, in the order of `inputs`
    manifest.action_low, manifest.action_high  # [a]; the graph clamps to them, the guards check them again
    manifest.safety.max_delta_per_tick         # [a] float64: most change of an action from tick to tick
    manifest.digest                            # names the package in every record of what it did

- **Signed.** Its canonical bytes are what ``signature.dsse`` signs; it lists every other member with size and
  SHA-256, so they are signed with it. It is read strictly: an unknown or missing key refuses.
- **Order is meaning.** The observation is the inputs side by side in the order of ``inputs``, raw and in SI
  units; an action is the outputs side by side. Normaliser, features, clamp and a site's adapter are in the
  graph.
- **Limits are complete.** Every coordinate of every input and output has a lower and an upper limit, lower
  below upper, and every guard has its number; without one the model never runs (`PackageLimitsError`).
- Numbers are decimal strings (`policies.encoding`); `values` gives them as arrays.
- ``frame`` and ``rate_hz`` are null where nobody stated them: the package does not guess.
- ``example`` is one observation within limits and the chunk that the model answers: the loader's self-test.
- ``log`` is what this site knows of the public log when it packages: the entry of its own vote or receipt
  under the run, and the checkpoint that proves it; null where it knows nothing. **In individual packages
  alone**: a common one is signed with the site's key and goes to others, and the place of its vote would say
  which of the votes, cast under pseudonyms, was this site's. For the same reason it names no adapter.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  pydantic reads annotations at run time
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, ValidationError

from client.deploy.blocks import (
    Block,
    Count,
    Embodiment,
    Evaluation,
    Example,
    Graph,
    Licence,
    Lineage,
    Member,
    ModelName,
    Normalisation,
    Port,
    Privacy,
    Safety,
    Word,
    values,
)
from client.deploy.errors import PackageLimitsError, PackageManifestError
from policies.encoding import canonical, digest, parse
from policies.errors import EncodingError
from policies.limits import PACKAGE_MANIFEST_BYTES, PACKAGE_RATE_HZ, PACKAGE_SI_MOST

__all__ = ["PAYLOAD_TYPE", "SCHEMA", "Manifest", "values"]

SCHEMA: Final = "iriai-model/1"
PAYLOAD_TYPE: Final = "application/vnd.iriai.model.v1+json"
_REMEDY: Final = "get the package again from whoever made it; it cannot be mended here"


Array64 = npt.NDArray[np.float64]


class Manifest(Block):
    """A manifest that holds; make it with `Manifest.read`."""

    schema_: Literal["iriai-model/1"] = Field(alias="schema")
    model: ModelName
    task: Word
    embodiment: Embodiment
    inputs: Annotated[Sequence[Port], Field(min_length=1, max_length=64)]
    outputs: Annotated[Sequence[Port], Field(min_length=1, max_length=64)]
    normaliser: Normalisation
    safety: Safety
    horizon: Count
    execute: Count
    lineage: Lineage
    privacy: Privacy
    evaluation: Evaluation | None
    licence: Licence
    graph: Graph
    example: Example
    members: Annotated[Sequence[Member], Field(min_length=1, max_length=16)]

    _canonical: bytes = PrivateAttr(default=b"")

    @classmethod
    def read(cls, data: bytes) -> Manifest:
        """The manifest behind canonical bytes.

        Checks, in this order: size and canonical form; limits are there; schema; what belongs together fits.

        Raises:
            PackageManifestError: Another form.
            PackageLimitsError: Limits of an input, an output or a guard are missing or empty.
        """
        if len(data) > PACKAGE_MANIFEST_BYTES:
            raise _wrong(f"a manifest of at most {PACKAGE_MANIFEST_BYTES} bytes", f"{len(data)} bytes")
        try:
            document = parse(data)
        except EncodingError as error:
            raise _wrong(error.need, error.found) from error
        _require_limits(document)
        try:
            manifest = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise _wrong(f"{where}: {first['msg']}", ascii(first["input"])[:80]) from error
        manifest._canonical = data  # noqa: SLF001  its own
        _check_ports(manifest)
        _check_rest(manifest)
        return manifest

    @classmethod
    def make(cls, document: dict[str, Any]) -> Manifest:
        """The manifest of a document that this program wrote."""
        return cls.read(canonical(document))

    @property
    def canonical(self) -> bytes:
        """The bytes that are signed."""
        return self._canonical

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes: the name of the package."""
        return digest(self._canonical)

    @property
    def observation_size(self) -> int:
        """Values of one raw observation."""
        return sum(port.size for port in self.inputs)

    @property
    def action_size(self) -> int:
        """Values of one action."""
        return sum(port.size for port in self.outputs)

    @cached_property
    def low(self) -> Array64:
        """Lower limits of the observation ``[n]``."""
        return np.concatenate([values(port.low) for port in self.inputs])

    @cached_property
    def high(self) -> Array64:
        """Upper limits of the observation ``[n]``."""
        return np.concatenate([values(port.high) for port in self.inputs])

    @cached_property
    def action_low(self) -> Array64:
        """Lower limits of an action ``[a]``."""
        return np.concatenate([values(port.low) for port in self.outputs])

    @cached_property
    def action_high(self) -> Array64:
        """Upper limits of an action ``[a]``."""
        return np.concatenate([values(port.high) for port in self.outputs])

    def member(self, name: str) -> Member | None:
        """What is listed under a name."""
        return next((one for one in self.members if one.name == name), None)


def _wrong(need: str, found: str) -> PackageManifestError:
    return PackageManifestError(need=need, found=found, remedy=_REMEDY)


def _missing(where: str, found: str) -> PackageLimitsError:
    return PackageLimitsError(
        need=f"{where}: finite limits, lower below upper, for every coordinate", found=found, remedy=_REMEDY
    )


def _require_limits(document: Any) -> None:  # noqa: ANN401  a JSON value, before the schema speaks
    """Limits that are missing get their own name, before the schema says "Field required"."""
    if not isinstance(document, dict):
        raise _wrong("a JSON object", type(document).__name__)
    for side in ("inputs", "outputs"):
        ports = document.get(side)
        for port in ports if isinstance(ports, list) else []:
            for end in ("low", "high"):
                if isinstance(port, dict) and not port.get(end):
                    raise _missing(f"{side} {ascii(port.get('name'))[:40]}", f"no {end}")
    safety = document.get("safety")
    for key in ("clamp", "max_delta_per_tick", "watchdog_ms", "fallback", "ood"):
        if not isinstance(safety, dict) or not safety.get(key):
            raise _missing("safety", f"no {key}")


def _check_ports(manifest: Manifest) -> None:
    for side, ports in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        if len({port.name for port in ports}) != len(ports):
            raise _wrong(f"{side}: each name once", "one twice")
        for port in ports:
            low, high = values(port.low), values(port.high)
            if len(low) != port.size or len(high) != port.size:
                raise _missing(f"{side} {port.name}", f"{len(low)} and {len(high)} of {port.size}")
            if not (low < high).all():
                raise _missing(f"{side} {port.name}", "an empty interval")
            if max(np.abs(low).max(), np.abs(high).max()) > PACKAGE_SI_MOST:
                raise _missing(f"{side} {port.name}, at most {PACKAGE_SI_MOST}", "a limit that is none")
            if port.rate_hz is not None and not 0 < float(port.rate_hz) <= PACKAGE_RATE_HZ:
                raise _wrong(f"a rate above 0, at most {PACKAGE_RATE_HZ} Hz", port.rate_hz)


def _check_rest(manifest: Manifest) -> None:
    delta = manifest.safety.max_delta_per_tick
    if len(delta) != manifest.action_size or not (delta > 0).all():
        raise _missing("safety.max_delta_per_tick", f"{len(delta)} of {manifest.action_size}, above 0")
    if not 0 <= manifest.safety.ood_share_max <= 1:
        raise _missing("safety.ood.max", f"{manifest.safety.ood.max}, from 0 to 1")
    if manifest.execute > manifest.horizon:
        raise _wrong("execute at most horizon", f"{manifest.execute} of {manifest.horizon}")
    if manifest.model.individual != (manifest.model.parent is not None):
        raise _wrong("a parent for an individual model and for no other", "otherwise")
    if not manifest.model.individual and (manifest.embodiment.adapter or manifest.lineage.log):
        raise _wrong("a common package without an adapter and without a place in the log", "one of a site")
    example = manifest.example
    sizes = (len(example.observation), len(example.action_chunk))
    if sizes != (manifest.observation_size, manifest.horizon * manifest.action_size):
        raise _wrong("an example of the model's sizes", f"{sizes[0]} and {sizes[1]} values")
    names = [one.name for one in manifest.members]
    if names != sorted(set(names)):
        raise _wrong("members once each, sorted by name", ", ".join(names)[:120])
