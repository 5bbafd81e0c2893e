# SPDX-License-Identifier: Apache-2.0
"""``models serve``, ``ask``, ``status``, ``resume``, ``judge``: a package acts, its owner looks after it.

    serving/<name>/     service.json while it runs, two tokens, the open episode
    deployed/…/         closed episodes (`client.deploy.episode_files`)

`serve` is the process of the service itself. It ends at SIGTERM or SIGINT, with exit code 7 if it ended in
its fallback. With ``record`` the data set and its contract are looked up before anything is served
(`can_record`), and what was recorded is imported into it at the end, as ``data add`` does: what was served is
said in every case, also where the import is refused. Nothing is published, and a recording that is refused
stays in its folder: where one file cannot be imported, it is named, and the others are imported one by one.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx

from client.answers import Answer, plain
from client.deploy import episode_files
from client.deploy.commands import pinned_keys
from client.deploy.loader import load_package
from client.deploy.opcua import OpcUaOptions
from client.deploy.packaged import PackageModel
from client.deploy.refusals import (
    FallbackError,
    HostError,
    NotAdmittedError,
    NotServingError,
    RecordingError,
    RequestError,
    RequestSizeError,
    RouteError,
    ServeError,
)
from client.deploy.running import ServeOptions, read_service
from client.deploy.running import serve as serve_model
from client.deploy.token import CELL_FILE, OWNER_FILE, PROOF, fresh_nonce, proves, read_token, signed
from client.entropy import SystemEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.cli.options import Open
    from client.data.embodiment import Adapter
    from client.deploy.ports import ServeClock
    from client.deploy.serving import Outcome
    from client.deploy.states import ClockKind
    from client.settings import Home
    from policies.errors import IriaiError
    from policies.ports import Clock, Entropy

__all__ = [
    "add_recorded",
    "ask",
    "can_record",
    "judge",
    "not_imported",
    "resume",
    "serve",
    "serve_options",
    "status",
]

_ANSWER_S = 5.0
# What a service refuses under its own code; any other word of it counts as one that does not serve.
_REFUSALS: dict[object, type[ServeError]] = {
    one.code: one
    for one in (FallbackError, HostError, NotAdmittedError, RequestError, RequestSizeError, RouteError)
}


def serve_options(
    home: Home,
    *,
    name: str,
    port: int,
    clock_kind: ClockKind,
    record: bool,
    opcua: str | None,
    clients: Sequence[Path],
) -> ServeOptions:
    """Where a service of this folder keeps its things.

    Raises:
        RecordingError: A name that is none.
    """
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 40):  # noqa: PLR2004
        raise RecordingError(
            need="a name of letters, digits, - and _, at most 40",
            found=ascii(name)[:60],
            remedy="name another",
        )
    serving, deployed = home.serving.absolute(), home.deployed.absolute()
    folder, door = serving / name, None
    if opcua is not None:
        door = OpcUaOptions(
            url=opcua, certificate=folder / "opcua.der", key=folder / "opcua.pem", clients=tuple(clients)
        )
    return ServeOptions(
        serving=serving,
        deployed=deployed,
        name=name,
        port=port,
        clock_kind=clock_kind,
        record=record,
        opcua=door,
        seal_key=_seal_key(home),
    )


def _seal_key(home: Home) -> bytes:
    """The node's secret under which recordings are sealed; empty in a folder without a node."""
    from client.identity import load_identity

    return load_identity(home).unit_key if (home.keys / "node.key").exists() else b""


def serve(
    home: Home,
    package: Path,
    options: ServeOptions,
    *,
    keys: Sequence[str],
    clock: ServeClock,
    entropy: Entropy,
) -> Answer:
    """Serves a package until the process is told to end.

    Args:
        home: Its folder holds what the service writes; where it holds a node, its keys count.
        package: The file.
        options: See `serve_options`.
        keys: Signers' keys that count beside those of the node.
        clock: Of the machine.
        entropy: Of the tokens.

    Raises:
        PackageError: The package is refused; nothing was served.
        ServeError: See `client.deploy.refusals`.
    """
    loaded = load_package(package, pinned_keys(home, keys))
    named = loaded.manifest.embodiment.adapter
    adapter = _adapter_here(home, named)
    if options.record and named is not None and adapter is None:
        raise RecordingError(
            need="the adapter that is inside this package, so that recordings come back into SI",
            found="no data set of this node with it",
            remedy="serve it at the node that made it, or with --no-record",
        )
    model = PackageModel(loaded, adapter)
    found, refused = serve_model(model, options, clock=clock, entropy=entropy, tell=_tell)
    recorder = found["recorder"]
    return Answer(
        data=found,
        text=(
            f"stopped    after {found['counts']['questions']} questions",
            f"episodes   {recorder.get('episodes', 0)} kept, {_dropped(recorder)} dropped",
            *([f"attempts   {recorder['folder']}"] if recorder.get("folder") else []),
        ),
        error=refused,
    )


def can_record(one: Open, dataset: str) -> None:
    """Refuses a data set that recordings could not be imported into, before anything is served.

    Raises:
        NoSuchThingError: No contract is signed, or it lists no such data set for this party.
        NotExecutedError: The contract is a draft.
    """
    from client.contract.reading import signed
    from client.datasets.adding import recipes_of

    recipes_of(one.shelf, signed(one.member, one.shelf, None), dataset)


def not_imported(served: Answer, error: IriaiError, *, dataset: str) -> Answer:
    """What was served, then why its recordings were not imported; a fallback stays the exit code."""
    lines = [f"to import  iriai-node data add {served.data['recorder']['folder']} --dataset {plain(dataset)}"]
    if served.error is not None:
        lines.insert(0, f"no import  {plain(error.code)}: {plain(error.found)}")
    return Answer(
        data={**served.data, "imported": None},
        text=(*served.text, *lines),
        error=served.error or error,
    )


def _adapter_here(home: Home, named: str | None) -> Adapter | None:
    """The adapter of a digest, from the data sets of this site."""
    from client.data.embodiment import Embodiment
    from client.data.store import Store

    for entry in Store(home.data).catalogue().datasets.values() if named is not None else ():
        robot = None if entry.embodiment is None else Embodiment.model_validate(dict(entry.embodiment))
        if robot is not None and robot.adapter is not None and robot.adapter.digest == named:
            return robot.adapter
    return None


def add_recorded(one: Open, served: Answer, folder: Path, *, dataset: str) -> Answer:
    """Imports the recorded episodes of a service that has ended; they stay in their folder.

    Where the folder is refused as a whole, it is imported file by file, and those that cannot be are named.

    Raises:
        DataError: No file of it can be imported.
        NoSuchThingError: The contract lists no such data set for this party.
    """
    from client.data.errors import DataError
    from policies.privacy.errors import LineageUnknownError

    skipped: dict[str, str] = {}
    try:
        added = _add(one, folder, folder, dataset)
    except (DataError, LineageUnknownError) as whole:
        done: Answer | None = None
        episodes = 0
        for file in sorted(folder.glob("*.parquet")):
            try:
                done = _add(one, file, folder, dataset)
                episodes += done.data["episodes_added"]
            except (DataError, LineageUnknownError) as error:
                skipped[file.name] = f"{error.code}: {error.found}"
        if done is None:
            raise whole from None
        rest = [line for line in done.text if not line.startswith("episodes ")]
        every = (f"episodes   {episodes} added, from files one by one", *rest)
        added = Answer(data={**done.data, "episodes_added": episodes}, text=every)
    lines = [f"skipped    {plain(name)}: {plain(why)}" for name, why in skipped.items()]
    return Answer(
        data={**served.data, "imported": added.data, "skipped": skipped},
        text=(*served.text, *added.text, *lines),
        error=served.error,
    )


def _add(one: Open, source: Path, folder: Path, dataset: str) -> Answer:
    from client.datasets.adding import data_add
    from client.settings import load_settings

    return data_add(
        one.member,
        one.shelf,
        one.outbox,
        source,
        dataset=dataset,
        signal_map=folder / episode_files.MAP_FILE,
        contract=None,
        rules=load_settings(one.home).local,
        publish=False,
    )


def _dropped(recorder: dict[str, Any]) -> int:
    return sum(recorder.get("dropped", {}).values())


def _tell(facts: dict[str, Any]) -> None:
    """Lines that whoever started the process can wait for."""
    lines = [
        f"serving    {facts['url']}",
        f"model      {facts['model']}",
        f"cell token {facts['cell_token']}",
        f"owner's    {facts['owner_token']}",
    ]
    lines += [f"opc ua     {facts['opcua']}"] if "opcua" in facts else []
    for line in lines:
        print(plain(line), file=sys.stderr, flush=True)  # noqa: T201  the output of a command


def _ask(
    home: Home, name: str, method: str, path: str, body: bytes = b"", *, file: str = OWNER_FILE
) -> dict[str, Any]:
    """Asks a service of this folder with its owner's token, or the cell's.

    Raises:
        ServeError: It refuses, under its own code.
        NotServingError: It does not run, does not answer, or cannot prove that it is the service.
        TokenFileError: Its token cannot be read.
    """
    facts = read_service(home.serving, name)
    token, nonce = read_token(home.serving / name / file), fresh_nonce(SystemEntropy())
    try:
        with httpx.Client(trust_env=False, timeout=_ANSWER_S) as client:
            headers = {"authorization": signed(token, method, path, body, nonce=nonce)}
            answer = client.request(method, facts["url"] + path, headers=headers, content=body)
        given = answer.headers.get(PROOF, "")
        if not proves(token, nonce, answer.status_code, answer.content, given=given):
            raise NotServingError(
                need=f"an answer that proves to be of the service {name}",
                found="one without its proof: another process listens at its port, or it was started anew",
                remedy="look which process listens there; start the service again",
            )
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotServingError(
            need=f"an answer of the service {name}",
            found=type(error).__name__,
            remedy="look whether it runs; start it again: iriai-node models serve PACKAGE",
        ) from error
    if answer.is_error:
        raise _REFUSALS.get(found.get("code"), NotServingError)(
            need=str(found.get("need"))[:200],
            found=str(found.get("found"))[:200],
            remedy=str(found.get("remedy"))[:200],
        )
    return found


def ask(home: Home, name: str, observation: str | None, *, clock: Clock) -> Answer:
    """Asks a service once, as its cell would, and ends the attempt; without an observation, for its schema.

    In the fallback the answer is shown with its cause, and the refusal says what its owner does.

    Raises:
        RequestError: The observation is none that the model could answer.
        NotServingError: It does not run.
        TokenFileError: The cell's token cannot be read.
    """
    if observation is None:
        schema = _ask(home, name, "GET", "/v1/schema", file=CELL_FILE)
        rows = [(role, one) for role in ("observation", "action") for one in schema[role]]
        lines = [f"{role:11} {one['name']} {one['size']} {one['unit']}" for role, one in rows]
        return Answer(data=schema, text=tuple(map(plain, lines)))
    now_ms = clock.now_ms()
    values = _numbers_of(observation)
    told = {"observation": values, "stamp_ns": now_ms * 1_000_000, "seq": now_ms}
    found = _ask(home, name, "POST", "/v1/infer", json.dumps(told).encode("ascii"), file=CELL_FILE)
    _ask(home, name, "POST", "/v1/episode/end", b"{}", file=CELL_FILE)
    cause = f" ({', '.join(found['cause'])})" if found["cause"] else ""
    problem = found.get("problem")
    return Answer(
        data=found,
        text=(
            f"action     {json.dumps(found['action_chunk'])}",
            f"flags      {', '.join(found['flags']) or 'none'}",
            f"state      {found['state']}{cause}",
        ),
        error=None if problem is None else _fallback(problem),
    )


def _fallback(problem: dict[str, Any]) -> FallbackError:
    need, found, remedy = (str(problem.get(name))[:200] for name in ("need", "found", "remedy"))
    return FallbackError(need=need, found=found, remedy=remedy)


def _numbers_of(text: str) -> list[float]:
    words = text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    try:
        values = [float(one) for one in words]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise RequestError(
            need="an observation as numbers, such as '0.01, 0.72'",
            found=ascii(text)[:60],
            remedy="iriai-node models ask shows names, order and units",
        )
    return values


def status(home: Home, name: str) -> Answer:
    """What a service says of itself.

    Raises:
        NotServingError: It does not run.
    """
    found = _ask(home, name, "GET", "/v1/status")
    counts, latency, recorder = found["counts"], found["latency_us"], found["recorder"]
    cause = f" ({', '.join(found['cause'])})" if found["cause"] else ""
    times = (
        "no question yet" if latency["p50"] is None else f"p50 {latency['p50']:.0f}, p99 {latency['p99']:.0f}"
    )
    return Answer(
        data=found,
        text=(
            f"state      {found['state']}{cause}",
            f"questions  {counts['questions']}, {counts['fallbacks']} answered by the fallback",
            f"flags      {', '.join(f'{k} {v}' for k, v in counts['flags'].items()) or 'none'}",
            f"latency us {times}",
            f"recorder   {recorder['state']}",
            f"episodes   {recorder.get('episodes', 0)} kept, {_dropped(recorder)} dropped",
        ),
    )


def resume(home: Home, name: str, *, dry_run: bool = False) -> Answer:
    """Lets a service go on that answers its fallback: its owner has looked. A dry run asks where it stands.

    Raises:
        NotServingError: It does not run.
        TokenFileError: The owner's token cannot be read.
    """
    if dry_run:
        stands = status(home, name)
        return Answer(
            data={**stands.data, "dry_run": True},
            text=("dry run: this service would act again; nothing was changed", *stands.text),
        )
    found = _ask(home, name, "POST", "/v1/resume")
    return Answer(data=found, text=(f"state      {found['state']}",))


def judge(home: Home, path: Path, outcome: Outcome, *, dry_run: bool = False) -> Answer:
    """Writes into a recorded episode how a person saw it end.

    Args:
        home: The node that recorded it.
        path: Of the file; its bare name does where no other service of this node has one of that name.
        outcome: As the person saw it.
        dry_run: Writes into a copy that is gone again.

    Raises:
        RecordingError: No episode that this node recorded.
        NotInitialisedError: No node in this folder.
    """
    path = episode_files.find_episode(home.need().deployed.absolute(), path)
    if dry_run:
        with TemporaryDirectory() as folder:
            copy = Path(shutil.copy2(path, folder))
            model = episode_files.judge(copy, outcome, key=_seal_key(home))
        told = {"dry_run": True, "file": str(path), "outcome": outcome, "model": model}
        return Answer(data=told, text=(f"{path.name} would be judged {outcome}; nothing was changed",))
    model = episode_files.judge(path, outcome, key=_seal_key(home))
    told = {"file": str(path), "outcome": outcome, "model": model}
    return Answer(
        data=told,
        text=(f"{path.name}: {outcome}", f"next: iriai-node data add {path.parent} --dataset NAME"),
    )
