# SPDX-License-Identifier: Apache-2.0
"""``iriai-node data record``: a live source becomes a recording. Ctrl-C ends it and keeps what came."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from client.cli.episodes import data
from client.cli.options import command
from client.clock import SystemClock

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["data"]


@command(data, "record")
def data_record(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="opc.tcp://host:port/path")],
    *,
    signal_map: Annotated[Path, typer.Option("--map", help="TOML: which node is which field.")],
    out: Annotated[Path, typer.Option("--out", help="New file, *.parquet; its map goes beside it.")],
    for_s: Annotated[
        float | None, typer.Option("--for", min=0.1, help="Seconds; else until Ctrl-C or SIGTERM.")
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Node id or path where the map's paths begin.")] = "",
    sampling_ms: Annotated[
        float, typer.Option("--sampling-ms", min=1, help="How often the server looks at its values.")
    ] = 10.0,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="This client's certificate, PEM or DER.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key.")] = None,
    server_certificate: Annotated[
        Path | None, typer.Option("--server-certificate", help="The one that the server must show.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="Else the certificate is who you are.")] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the user's password.")
    ] = None,
    policy: Annotated[
        Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"],
        typer.Option("--policy", help="Security policy; always signed and encrypted."),
    ] = "Basic256Sha256",
    insecure: Annotated[
        bool,
        typer.Option("--insecure-no-security", help="No encryption and no proof of who answers; noted."),
    ] = False,
) -> Answer:
    """Records the nodes of a live OPC UA server that a map names; `data add` imports the file."""
    from client.data.live.opcua_access import Access
    from client.recording import data_record as record
    from client.recording import password_of, until_told

    access = Access(
        certificate=certificate,
        key=key,
        server_certificate=server_certificate,
        user=user,
        password=password_of(password_file),
        policy=policy,
        insecure=insecure,
    )
    with until_told() as stop:
        return record(
            endpoint,
            signal_map=signal_map,
            out=out,
            access=access,
            stop=stop,
            clock=SystemClock(),
            for_s=for_s,
            base=base,
            sampling_ms=sampling_ms,
        )
