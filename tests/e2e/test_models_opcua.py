# SPDX-License-Identifier: Apache-2.0
"""The OPC UA door on loopback: who gets in, what is written there, and that the guards are the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from client.deploy.opcua import OpcUaDoor, OpcUaOptions
from client.deploy.refusals import OpcUaError
from client.deploy.token import draw_tokens
from tests.learnsim import SeededEntropy
from tests.servesim import MODEL, START_MS, MovedClock, SaidModel, TimedServing, facts, question

asyncua = pytest.importorskip("asyncua", reason="the extra [opcua] is not installed")
from asyncua import Client, ua  # noqa: E402
from asyncua.crypto.cert_gen import setup_self_signed_certificate  # noqa: E402
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: E402

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]
APP = "urn:iriai.example:plc"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Plant:
    """A served model with an OPC UA door, and a client's own certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, MovedClock()
        self.model = SaidModel(facts=facts(fallback="stop"))
        self.serving = TimedServing(self.model, clock=self.clock)
        self.tokens = draw_tokens(folder, SeededEntropy())
        self.url = f"opc.tcp://127.0.0.1:{free_port()}/"
        self.cert, self.key = folder / "plc.der", folder / "plc.pem"

    def options(self, *clients: Path) -> OpcUaOptions:
        certificate, key = self.folder / "opcua.der", self.folder / "opcua.pem"
        return OpcUaOptions(url=self.url, certificate=certificate, key=key, clients=clients)

    def door(self, *clients: Path) -> OpcUaDoor:
        return OpcUaDoor(self.serving, self.options(*clients), self.tokens)

    async def client(self, *, user: str | None = "cell", password: str | None = None) -> Client:
        """A client whose channel is encrypted; user None goes without a name."""
        if not self.cert.exists():
            await setup_self_signed_certificate(
                self.key,
                self.cert,
                APP,
                "127.0.0.1",
                [ExtendedKeyUsageOID.CLIENT_AUTH],
                {"commonName": "plc"},
            )
        made = Client(self.url, timeout=10)
        made.application_uri = APP
        await made.set_security(
            SecurityPolicyBasic256Sha256,
            certificate=str(self.cert),
            private_key=str(self.key),
            mode=ua.MessageSecurityMode.SignAndEncrypt,
        )
        if user is not None:
            made.set_user(user)
            made.set_password(password or self.tokens.cell)
        return made


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def house(tmp_path_factory) -> AsyncIterator[tuple[Plant, OpcUaDoor]]:
    """One server for all tests: its standard nodes take two seconds to load."""
    made = Plant(tmp_path_factory.mktemp("plant"))
    async with made.door() as door:
        yield made, door


@pytest.fixture
async def plant(house) -> Plant:
    """The plant as it was at the start."""
    made, door = house
    made.clock.ms = START_MS
    made.serving.resume(now_ns=START_MS * 1_000_000)
    made.serving.end_episode("unknown")
    made.model.asked.clear()
    await door._put(None)
    await door._show()
    return made


async def nodes(client: Client) -> dict[str, object]:
    """Every node below Model, Inputs and Outputs by its path."""
    found = {}
    for child in await client.nodes.objects.get_children():
        name = (await child.read_browse_name()).Name
        if name in {"Model", "Inputs", "Outputs"}:
            for leaf in await child.get_children():
                found[f"{name}/{(await leaf.read_browse_name()).Name}"] = leaf
        elif name == "EndEpisode":
            found[name] = child
    return found


async def ask(client: Client, leaves: dict, tick: int, *, observation: np.ndarray | None = None) -> None:
    """Writes the inputs of a tick, ``Seq`` last, in one request."""
    one = question(tick)
    values = one.observation if observation is None else observation
    fields = {"tcp_pos": (0, 3), "gripper_width": (3, 4), "object_pos": (4, 7), "goal_pos": (7, 10)}
    names = [f"Inputs/{name}" for name in fields]
    variants = [ua.Variant(values[a:b].tolist(), ua.VariantType.Double) for a, b in fields.values()]
    names += ["Inputs/StampNs", "Inputs/Seq"]
    variants += [ua.Variant(n, ua.VariantType.Int64) for n in (one.stamp_ns, one.seq)]
    await client.write_values([leaves[name] for name in names], variants)


async def test_a_client_writes_inputs_and_reads_the_action(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        assert await leaves["Model/Digest"].read_value() == MODEL
        assert await leaves["Model/State"].read_value() == "ready"
        before = await leaves["Outputs/tcp_pose_delta"].read_data_value(raise_on_bad_status=False)
        assert not before.StatusCode.is_good()
        await ask(client, leaves, 0)
        assert await leaves["Outputs/tcp_pose_delta"].read_value() == pytest.approx([0.01] * 3)
        assert await leaves["Outputs/gripper_cmd"].read_value() == pytest.approx([0.01])
        assert await leaves["Model/State"].read_value() == "active"


async def test_every_field_has_its_unit_and_its_range(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        found = {}
        for name in ("Inputs/tcp_pos", "Outputs/gripper_cmd"):
            properties = {
                (await one.read_browse_name()).Name: await one.read_value()
                for one in await leaves[name].get_properties()
            }
            unit = properties["EngineeringUnits"]
            found[name] = (unit.DisplayName.Text, unit.UnitId, properties["EURange"].High)
        assert found == {"Inputs/tcp_pos": ("m", 5067858, 2.0), "Outputs/gripper_cmd": ("1", 4404786, 1.0)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, 9.0])
async def test_the_guards_are_those_of_the_other_door_and_no_action_is_a_bad_status(plant, bad):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await ask(client, leaves, 0)
        await ask(client, leaves, 1, observation=np.array([bad] + [0.1] * 9))
        told = await leaves["Outputs/tcp_pose_delta"].read_data_value(raise_on_bad_status=False)
        assert told.StatusCode.value == ua.StatusCodes.BadNoData
        assert await leaves["Model/State"].read_value() == "fallback"
        assert await leaves["Model/Flags"].read_value() == "input-range" if bad == 9.0 else "input-not-finite"
        assert len(plant.model.asked) == 1


async def test_an_input_of_another_size_is_refused_and_the_service_stays_as_it_was(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await leaves["Inputs/tcp_pos"].write_value([0.1] * 4, ua.VariantType.Double)
        await leaves["Inputs/Seq"].write_value(1, ua.VariantType.Int64)
        assert await leaves["Model/Flags"].read_value() == "serve.request"
        assert not plant.model.asked


async def test_silence_is_written_though_nobody_asks(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await ask(client, leaves, 0)
        plant.clock.ms += 10_000
        for _ in range(2_000):
            if await leaves["Model/State"].read_value() == "fallback":
                break
        told = await leaves["Outputs/gripper_cmd"].read_data_value(raise_on_bad_status=False)
        assert (await leaves["Model/Flags"].read_value(), told.StatusCode.is_good()) == ("watchdog", False)


async def test_the_end_of_an_episode_is_a_method(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await ask(client, leaves, 0)
        assert await client.nodes.objects.call_method(leaves["EndEpisode"].nodeid, "success") is False
        assert plant.serving.status(now_ns=0)["counts"]["episodes"]["success"] == 1
        with pytest.raises(ua.UaStatusCodeError):
            await client.nodes.objects.call_method(leaves["EndEpisode"].nodeid, "won")


async def test_after_the_end_and_after_a_resume_no_old_action_stays(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await ask(client, leaves, 0)
        await client.nodes.objects.call_method(leaves["EndEpisode"].nodeid, "unknown")
        told = await leaves["Outputs/tcp_pose_delta"].read_data_value(raise_on_bad_status=False)
        assert told.StatusCode.value == ua.StatusCodes.BadNoData


@pytest.mark.parametrize("value", [-1, None])
async def test_a_number_that_is_none_leaves_no_old_action(plant, value):
    async with await plant.client() as client:
        leaves = await nodes(client)
        await ask(client, leaves, 0)
        bad = ua.StatusCode(ua.StatusCodes.BadNoCommunication if value is None else ua.StatusCodes.Good)
        number = ua.Variant(5 if value is None else value, ua.VariantType.Int64)
        await leaves["Inputs/Seq"].write_value(ua.DataValue(number, StatusCode=bad))
        told = await leaves["Outputs/tcp_pose_delta"].read_data_value(raise_on_bad_status=False)
        assert told.StatusCode.value == ua.StatusCodes.BadNoData


async def test_connections_without_a_session_never_shut_the_cell_out(plant):
    port = int(plant.url.split(":")[2].strip("/"))
    async with await plant.client() as client:
        leaves = await nodes(client)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        await ask(client, leaves, 0)
        async with await plant.client() as second:
            assert await (await nodes(second))["Model/State"].read_value() == "active"
        for reader, _ in idle[:50]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        for _, writer in idle:
            writer.transport.abort()


async def test_a_message_without_end_is_not_read_without_end(plant):
    port = int(plant.url.split(":")[2].strip("/"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"MSGF" + (2**31).to_bytes(4, "little"))
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            writer.write(b"a" * 65_536)
            await writer.drain()
        assert await reader.read() == b""
    writer.transport.abort()


async def test_only_inputs_can_be_written(plant):
    async with await plant.client() as client:
        leaves = await nodes(client)
        for name, value in (("Outputs/gripper_cmd", [1.0]), ("Model/State", "active"), ("Model/Digest", "x")):
            with pytest.raises(ua.UaStatusCodeError):
                await leaves[name].write_value(value)


async def refused(client: Client) -> str:
    """The status code by which a client is turned away."""
    try:
        async with client:
            return "admitted"
    except (TimeoutError, ua.UaError, OSError) as error:
        return type(error).__name__


async def test_nobody_is_anonymous(plant):
    assert await refused(await plant.client(user=None)) == "BadIdentityTokenRejected"


async def test_another_password_or_user_is_refused(plant):
    for user, password in (("cell", "x" * 43), ("admin", plant.tokens.cell), ("cell", " ")):
        assert await refused(await plant.client(user=user, password=password)) == "BadUserAccessDenied"


async def test_a_channel_without_encryption_finds_no_endpoint(plant):
    bare = Client(plant.url, timeout=10)
    bare.set_user("cell")
    bare.set_password(plant.tokens.cell)
    assert await refused(bare) != "admitted"
    async with contextlib.AsyncExitStack() as stack:
        client = await plant.client()
        await stack.enter_async_context(client)
        modes = {(one.SecurityMode, one.SecurityPolicyUri) for one in await client.get_endpoints()}
    assert {mode for mode, _ in modes} == {ua.MessageSecurityMode.SignAndEncrypt}
    assert not any(uri.endswith("#None") for _, uri in modes)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4840/", "opc.tcp://:4840/", "opc.tcp://127.0.0.1/", "x"])
def test_an_address_that_is_none_is_refused_before_anything_starts(tmp_path, url):
    plant = Plant(tmp_path)
    plant.url = url
    with pytest.raises(OpcUaError):
        plant.door()


async def test_a_certificate_that_cannot_be_read_is_refused(tmp_path):
    plant = Plant(tmp_path)
    with pytest.raises(OpcUaError):
        async with plant.door(tmp_path / "none.der"):
            pass
