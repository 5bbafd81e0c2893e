# SPDX-License-Identifier: Apache-2.0
"""The auditor's own witness: what it cosigns, what is on disk before, and what it makes of a log that lies."""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.tls import make_certificate
from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, VerifierKey, open_note, sign_checkpoint
from policies.log.equivocation import parse_evidence
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import policy_text
from policies.log.tiles import TileTree, parse_tile_path, tile_root
from policies.log.witness import REQUEST_BYTES, Cosign, checkpoint_path, request_text
from policies.log.witness_keys import open_statement
from policies.signing import Envelope
from policies.verify.cli import main
from policies.verify.commands.witness import follow
from policies.verify.errors import InputError, UnknownWitnessError, UnreachableError
from policies.verify.system import SystemClock
from policies.verify.witnessing.pull import Pinned, pull
from policies.verify.witnessing.push import answer, server
from policies.verify.witnessing.store import WitnessStore
from tests.auditsim import ORIGIN, PoolSim, seeded
from tests.nodesim import SeedEntropy

LOG = SigningKey.from_seed(seeded("log key"))
VKEY = VerifierKey(ORIGIN, LOG.public)
NOW_MS = 1_796_600_000_000


class HandClock:
    """Moves when it is told to, and when somebody waits."""

    def __init__(self) -> None:
        self.ms = NOW_MS
        self.waited = 0

    def now_ms(self) -> int:
        return self.ms

    def pause_ms(self, milliseconds: int) -> None:
        self.ms += milliseconds
        self.waited += 1


class LogSim:
    """A log that may lie: leaves of one history, notes and tiles over them, and a record of what it was sent."""

    def __init__(self, size: int, kind: bytes = b"honest") -> None:
        self.kind, self.size = kind, size
        self.posted: list[tuple[str, Mapping[str, Any]]] = []
        self.offered: str | None = ""
        self.deaf = False

    @property
    def tree(self) -> MemoryTree:
        return MemoryTree(leaf_hash(self.kind + b" %d" % number) for number in range(self.size))

    @property
    def note(self) -> str:
        return sign_checkpoint(LOG, Checkpoint(ORIGIN, self.size, self.tree.root()))

    def request(self, old: int) -> bytes:
        proof = self.tree.consistency(old) if 0 < old < self.size else []
        return request_text(old_size=old, proof=proof, note=self.note).encode()

    def get(self, path: str, most: int) -> bytes:
        if self.deaf:
            raise UnreachableError(need="an answer", found="none", remedy="wait")
        if path.startswith("/api/v1/log/head"):
            note = self.note if self.offered == "" else self.offered
            return json.dumps({"size": self.size, "note": note, "checkpoint": None}).encode()
        tile = parse_tile_path(path.removeprefix("/log/"))
        tree, start = self.tree, tile.n * 256
        if tile.level == 0:
            data = b"".join(tree.leaf(index) for index in range(start, start + tile.width))
        else:
            full = [b"".join(tree.leaf(at * 256 + one) for one in range(256)) for at in range(tile.width)]
            data = b"".join(map(tile_root, full))
        assert len(data) <= most
        return data

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        self.posted.append((path, body))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def opened(tmp_path: Path, clock: HandClock):
    stores: list[WitnessStore] = []

    def start(folder: str = "w") -> WitnessStore:
        stores.append(
            WitnessStore(
                tmp_path / folder,
                name="auditor/witness",
                log_keys=[VKEY],
                clock=clock,
                entropy=SeedEntropy(b"witness"),
            )
        )
        return stores[-1]

    yield start
    for one in stores:
        one.close()


# --- push ---


def test_a_log_that_grows_is_cosigned_and_can_be_read_back(opened) -> None:
    store = opened()
    assert answer(store, "GET", "/" + checkpoint_path(ORIGIN), b"").status == 404
    old = 0
    for size in (3, 8, 8, 300):
        log = LogSim(size)
        told = answer(store, "POST", "/add-checkpoint", log.request(old))
        assert told.status == 200
        note = log.note + told.body.decode()
        assert open_note(note, [store.vkey]).times == {"auditor/witness": NOW_MS // 1000}
        assert answer(store, "GET", "/" + checkpoint_path(ORIGIN), b"").body.decode() == note
        old = size


def test_every_refusal_has_its_status(opened) -> None:
    store = opened()
    log = LogSim(10)
    assert answer(store, "POST", "/add-checkpoint", log.request(0)).status == 200

    def asked(body: bytes) -> tuple[int, bytes, str]:
        told = answer(store, "POST", "/add-checkpoint", body)
        return told.status, told.body, told.media

    stale = asked(LogSim(20).request(0))
    assert stale == (409, b"10\n", "text/x.tlog.size")
    assert asked(LogSim(20, b"fork").request(10))[0] == 422
    assert asked(LogSim(20).request(10).replace(b"old 10", b"old 30"))[0] == 400
    assert asked(b"")[0] == 400
    assert asked(b"\xff")[0] == 400
    stranger = SigningKey.from_seed(seeded("stranger"))
    head = Checkpoint(ORIGIN, 20, LogSim(20).tree.root())
    assert asked(request_text(old_size=10, proof=[], note=sign_checkpoint(stranger, head)).encode())[0] == 403
    other = sign_checkpoint(LOG, Checkpoint("other.example/log", 20, bytes(32)))
    assert asked(request_text(old_size=10, proof=[], note=other).encode())[0] == 404
    assert answer(store, "POST", "/add", b"").status == 404
    assert answer(store, "GET", "/../state.json", b"").status == 404
    assert store.size(ORIGIN) == 10


def test_two_roots_of_one_size_are_kept_as_evidence(opened, tmp_path, capsys) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(10).request(0))
    for _ in range(2):
        answer(store, "POST", "/add-checkpoint", LogSim(10, b"fork").request(10))
    (kept,) = (tmp_path / "w").glob("*.proof")
    assert "two roots for 10 entries" in parse_evidence(kept.read_text("utf-8")).check([VKEY])
    assert capsys.readouterr().err.count("EVIDENCE") == 1
    answer(store, "POST", "/add-checkpoint", LogSim(8).request(10))  # an old note proves nothing
    assert len(list((tmp_path / "w").glob("*.proof"))) == 1


def test_what_was_cosigned_survives_a_restart_and_a_crash_after_the_answer(opened, tmp_path) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(10).request(0))
    shutil.copytree(tmp_path / "w", tmp_path / "after", ignore=shutil.ignore_patterns("lock"))
    store.close()
    for folder in ("w", "after"):
        again = opened(folder)
        assert again.size(ORIGIN) == 10
        assert again.vkey == store.vkey
        assert answer(again, "POST", "/add-checkpoint", LogSim(20, b"fork").request(10)).status == 422


def test_nothing_is_signed_that_is_not_on_disk(opened, tmp_path, monkeypatch) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(10).request(0))
    before = (tmp_path / "w" / "state.json").read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policies.verify.witnessing.store.os.fsync", full)
    told = answer(store, "POST", "/add-checkpoint", LogSim(20).request(10))
    assert (told.status, store.size(ORIGIN)) == (500, 10)
    assert (tmp_path / "w" / "state.json").read_bytes() == before
    monkeypatch.undo()
    assert answer(store, "POST", "/add-checkpoint", LogSim(20).request(10)).status == 200


def test_a_key_without_its_state_is_refused(opened, tmp_path) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(10).request(0))
    store.close()
    state = tmp_path / "w" / "state.json"
    kept = json.loads(state.read_bytes())
    for planted in (None, b"{}", b"[]", b"\xff", _altered(kept, size=9), _altered(kept, note="x")):
        state.unlink(missing_ok=True)
        if planted is not None:
            state.write_bytes(planted)
        with pytest.raises(InputError, match="lost or altered"):
            opened()


def _altered(kept: dict[str, Any], **changes: Any) -> bytes:
    from policies.encoding import canonical

    return canonical({"v": 1, "logs": {ORIGIN: kept["logs"][ORIGIN] | changes}})


def test_one_folder_has_one_witness(opened) -> None:
    opened()
    with pytest.raises(InputError, match="two witnesses on one key"):
        opened()


def test_of_two_forks_at_once_one_is_cosigned(opened) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(4).request(0))
    ready = threading.Barrier(8)
    statuses: list[int] = []

    def ask(kind: bytes) -> None:
        log = LogSim(9)
        log.size = 9 + (kind == b"b")
        body = log.request(4)
        ready.wait()
        statuses.append(answer(store, "POST", "/add-checkpoint", body).status)

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in (b"a", b"b") * 4]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert statuses.count(200) == 1
    assert statuses.count(409) == 7


def test_a_clock_that_went_back_signs_nothing(opened, clock) -> None:
    store = opened()
    answer(store, "POST", "/add-checkpoint", LogSim(4).request(0))
    clock.ms -= 3_600_000
    told = answer(store, "POST", "/add-checkpoint", LogSim(5).request(4))
    assert (told.status, store.size(ORIGIN)) == (503, 4)


@pytest.mark.enable_socket
def test_the_server_answers_as_the_protocol_does(opened) -> None:
    store = opened()
    listening = server(store, "127.0.0.1", 0)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        one = http.client.HTTPConnection("127.0.0.1", listening.server_address[1], timeout=5)
        for body, status in ((LogSim(3).request(0), 200), (LogSim(5).request(0), 409), (b"x", 400)):
            one.request("POST", "/add-checkpoint", body)
            told = one.getresponse()
            assert (told.status, len(told.read()) > 0) == (status, True)
        one.request("GET", "/" + checkpoint_path(ORIGIN))
        assert one.getresponse().read().decode().startswith(ORIGIN + "\n3\n")
        one.request("POST", "/add-checkpoint", b"", {"Content-Length": str(REQUEST_BYTES + 1)})
        assert one.getresponse().status == 400
        one.close()
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


# --- pull ---


def test_a_head_is_pulled_proven_from_tiles_and_answered(opened, clock) -> None:
    store, log = opened(), LogSim(5)
    for size in (5, 300, 700):
        log.size = size
        assert pull(store, log, ORIGIN, clock).size == size
        path, body = log.posted[-1]
        assert (path, body["size"]) == ("/api/v1/witness/cosignatures", size)
        assert open_note(log.note + body["lines"][0], [store.vkey]).times
    assert len(log.posted) == 3


def test_an_idle_log_is_cosigned_again_after_a_minute(opened, clock) -> None:
    store, log = opened(), LogSim(5)
    pull(store, log, ORIGIN, clock)
    assert pull(store, log, ORIGIN, clock).what == "idle"
    clock.ms += 61_000
    assert pull(store, log, ORIGIN, clock).what == "cosigned"
    log.offered = None
    assert pull(store, log, ORIGIN, clock).what == "idle"


@pytest.mark.parametrize("size", [5, 9, 300])
def test_a_log_that_changed_its_past_is_convicted_and_told_so(opened, clock, tmp_path, size, capsys) -> None:
    store, log = opened(), LogSim(5)
    pull(store, log, ORIGIN, clock)
    first = log.note
    clock.ms += 61_000
    lying = LogSim(size, b"fork")
    assert follow(store, lying, ORIGIN, clock, once=False) == 3
    assert lying.posted == [("/api/v1/witness/complaints", {"notes": [first]})]
    (kept,) = (tmp_path / "w").glob("*.proof")
    assert "signed" in parse_evidence(kept.read_text("utf-8")).check([VKEY])
    assert "EVIDENCE" in capsys.readouterr().err
    assert store.size(ORIGIN) == 5


def test_a_smaller_head_is_complained_of_and_proves_nothing(opened, clock, tmp_path) -> None:
    store, log = opened(), LogSim(9)
    pull(store, log, ORIGIN, clock)
    note, log.size = log.note, 4
    found = pull(store, log, ORIGIN, clock)
    assert (found.what, found.evidence) == ("refused", None)
    assert log.posted[-1] == ("/api/v1/witness/complaints", {"notes": [note]})
    assert not list((tmp_path / "w").glob("*.proof"))


def test_a_log_that_gives_no_sense_is_refused_and_asked_again(opened, clock) -> None:
    store, log = opened(), LogSim(5)
    pull(store, log, ORIGIN, clock)
    for text in ("no note", "x" * 100):
        log.offered = text
        assert pull(store, log, ORIGIN, clock).what == "refused"
    log.offered, log.size = "", 9
    log.get = lambda path, most: b"[]" if "head" in path else b""  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        pull(store, log, ORIGIN, clock)
    with pytest.raises(UnreachableError):
        follow(store, log, ORIGIN, clock, once=True)


def test_a_deaf_log_is_asked_again_after_a_while(opened, clock) -> None:
    store, log = opened(), LogSim(5)
    log.deaf = True
    asked = log.get

    def get(path: str, most: int) -> bytes:
        log.deaf = clock.waited < 3
        if clock.waited == 4:
            log.kind = b"fork"  # ends the loop
        return asked(path, most)

    log.get = get  # type: ignore[method-assign]
    log.post = lambda path, body: log.posted.append((path, body)) or clock.pause_ms(61_000)  # type: ignore[assignment]
    assert follow(store, log, ORIGIN, clock, once=False) == 3
    assert store.size(ORIGIN) == 5


def test_a_witness_that_was_removed_ends_and_one_not_yet_registered_asks_again(opened, clock, capsys) -> None:
    store, log = opened(), LogSim(5)
    taken = iter([False, True, False])

    def post(path: str, body: Mapping[str, Any]) -> None:
        clock.ms += 61_000
        if not next(taken):
            raise UnknownWitnessError(need="a registered witness", found="none", remedy="ask")

    log.post = post  # type: ignore[method-assign]
    with pytest.raises(UnknownWitnessError) as caught:
        follow(store, log, ORIGIN, clock, once=False)
    assert caught.value.found == "your witness was removed"
    assert caught.value.exit_code == 6
    assert "back again" in capsys.readouterr().err


def test_tiles_that_lie_convince_nobody(opened, clock) -> None:
    store, log = opened(), LogSim(5)
    pull(store, log, ORIGIN, clock)
    log.size, asked = 9, log.get
    log.get = lambda path, most: asked(path, most) if "head" in path else bytes(9 * 32)  # type: ignore[assignment]
    found = pull(store, log, ORIGIN, clock)
    assert (found.what, found.evidence) == ("refused", None)
    assert store.size(ORIGIN) == 5


def test_the_tree_of_a_log_is_that_of_its_tiles() -> None:
    log = LogSim(300)
    tree = TileTree(300, lambda level, n, width: b"".join(log.tree.leaf(n * 256 + at) for at in range(width)))
    assert isinstance(tree.root(200), bytes)


@pytest.mark.enable_socket
def test_only_the_pinned_certificate_is_asked(tmp_path) -> None:
    made = make_certificate("https://127.0.0.1:1", clock=SystemClock(), entropy=SeedEntropy(b"tls"))
    (tmp_path / "tls.pem").write_bytes(made.chain_pem)
    (tmp_path / "tls.key").write_bytes(made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    got: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.path)
            moved = self.path == "/moved"
            self.send_response(302 if moved else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200 if self.path == "/taken" else 400)
            self.send_header("Content-Length", "12")
            self.end_headers()
            self.wfile.write(b'{"c":"\x1b[2J"}')

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    listening.handle_error = lambda *_: None  # whoever only looks at the certificate hangs up
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"https://127.0.0.1:{listening.server_address[1]}"
    try:
        remote = Pinned(address, made.pin)
        assert remote.get("/api/v1/log/head", 100) == b"{}"
        with pytest.raises(UnreachableError, match="more than 1 bytes"):
            remote.get("/long", 1)
        with pytest.raises(UnreachableError, match="status 302"):
            remote.get("/moved", 100)
        with pytest.raises(InputError, match="telephone the operator"):
            Pinned(address, "0" * 64)
        assert got == ["/api/v1/log/head", "/long", "/moved"]
        remote.post("/taken", {"size": 3, "lines": ["— w"]})
        assert got[-1] == '{"lines":["— w"],"size":3}'  # canonical: a broker takes no other spelling
        with pytest.raises(UnreachableError, match="status 400") as refused:
            remote.post("/refused", {})
        assert "\x1b" not in str(refused.value)
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
    with pytest.raises(UnreachableError):
        Pinned(address, made.pin)


@pytest.mark.parametrize("url", ["http://a", "https://", "https://a/b", "ftp://a", "a"])
def test_a_url_that_is_no_brokers_is_refused(url) -> None:
    with pytest.raises(InputError):
        Pinned(url, "0" * 64)


# --- the command ---


def test_the_command_states_whose_witness_it_is(tmp_path, capsys) -> None:
    policy = tmp_path / "policy.txt"
    policy.write_text(policy_text(PoolSim().policy), encoding="utf-8")
    assert main(["key", str(tmp_path / "auditor.pem")]) == 0
    asked = ["witness", "--policy", str(policy), "--dir", str(tmp_path / "w"), "--name", "auditor"]
    statement = tmp_path / "statement.json"
    assert main([*asked, "--key", str(tmp_path / "auditor.pem"), "--statement", str(statement)]) == 0
    key = SigningKey.from_pem((tmp_path / "auditor.pem").read_bytes())
    said = open_statement(Envelope.from_bytes(statement.read_bytes()), key.public, log=ORIGIN)
    assert (said.org, said.key.name, said.proven) == ("auditor", "auditor/witness", True)
    assert said.key.text() in capsys.readouterr().err
    assert main([*asked, "--key", str(tmp_path / "auditor.pem"), "--statement", str(statement)]) == 2
    assert "never overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--statement", "s.json"],
        ["--key", "k.pem"],
        ["--pull", "https://127.0.0.1:1"],
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1:99999"],
        ["--pull", "https://127.0.0.1:1", "--tls-sha256", "00", "--origin", "other"],
    ],
)
def test_options_that_do_not_fit_are_usage_errors(tmp_path, monkeypatch, capsys, options) -> None:
    monkeypatch.chdir(tmp_path)
    policy = tmp_path / "policy.txt"
    policy.write_text(policy_text(PoolSim().policy), encoding="utf-8")
    assert main(["witness", "--policy", str(policy), *options]) in (2, 5)
    assert "Remedy" in capsys.readouterr().err


def test_cosign_is_what_the_store_gives(opened) -> None:
    log = LogSim(2)
    assert isinstance(opened().step(log.note, old_size=0, proof=[]), Cosign)
