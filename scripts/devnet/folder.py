"""Makes, opens and clears a network's folder: genesis, keys, secrets, settings. What it did not write it never deletes."""

import json
import os
import secrets
import shutil
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from node.leaving import has_left
from node.protocol import keys
from node.protocol.crypto import KeyPair
from node.protocol.genesis import Asset, Genesis, Parameters, read_genesis, write_genesis
from scripts.devnet.layout import LOOPBACK, MAX_GATEWAYS, MAX_NODES, ROOT, Devnet, Folder, Ports

PROFILE = ROOT / "config" / "devnet.toml"


class FolderError(Exception):
    """The folder cannot be used as asked; the text says why and what to do."""


class DevnetState(Struct, forbid_unknown_fields=True):
    """``devnet.json``: what the folder's network was started with."""

    port_base: Annotated[int, Meta(ge=1, le=65535)]
    broker: str | None = None
    """redis:// URL of a broker that is not ours to start."""
    host: str = LOOPBACK
    nodes: bool = True
    """Whether the nodes run here."""
    shop: bool = False
    """Whether the example shop does."""
    gateways: int = 1
    """Gateway processes."""
    keep_blocks: Annotated[int, Meta(ge=0)] = 0
    """How many final blocks nodes keep at least; 0: all."""
    joined: Annotated[int, Meta(ge=0)] = 0
    """Nodes that ``scripts/launch`` added."""


def read_state(folder: Folder) -> DevnetState | None:
    """What is known of the folder, or None when there is no network in it. Raises FolderError."""
    try:
        return msgspec.json.decode(folder.state.read_bytes(), type=DevnetState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise FolderError(f"cannot read {folder.state}: {error}") from None


def open_devnet(folder: Folder) -> Devnet:
    """The network that lives in a folder. Raises FolderError when there is none."""
    state = read_state(folder)
    if state is None or not folder.genesis.exists():
        raise FolderError(f"no network in {folder.data}: start one with ./scripts/up --data {folder.data}")
    return _devnet(folder, state)


def short_epochs(seconds: int) -> dict[str, int]:
    """The times of a network whose epochs last so long; those that are missing stay as they are by default."""
    pause, handoff = min(max(seconds * 1_000 // 6, 2_000), 10_000), min(max(seconds * 2_000, 30_000), 300_000)
    times = {"epoch_time": seconds * 1_000, "epoch_pause": pause, "reveal_time": pause, "handoff_time": handoff}
    return times | ({"commit_timeout": 5_000, "settle_time": 15_000} if seconds < 120 else {})


ONE_EPOCH = {"epoch_pause": 86_400_000}
"""Of a network whose committees stay as they are for a day, whatever happens to its nodes."""


def add_nodes(folder: Folder, count: int) -> Devnet:
    """The network with so many nodes more, which are not started. Raises FolderError when there is no network, or no room."""
    open_devnet(folder)
    state = read_state(folder)
    assert state is not None
    state.joined += count
    devnet = _devnet(folder, state)
    write_state(folder, state)
    return devnet


def make_devnet(
    folder: Folder,
    state: DevnetState,
    committees: int | None,
    committee_size: int | None,
    parameters: Mapping[str, int] = {},
) -> Devnet:
    """A new network's genesis and keys. Takes what an interrupted attempt left. ``parameters``: where they shall not be as in the
    profile.

    Raises:
        FolderError: the folder holds something else under one of our names, or the parameters make no network.
    """
    if not folder.state.exists() and (taken := [path.name for path in _owned(folder) if path.exists() and path != folder.run]):
        raise FolderError(f"{folder.data} holds files this script did not make ({', '.join(taken)}): choose another --data")
    profile = tomllib.loads(PROFILE.read_text())
    given = {"committees": committees, "committee_size": committee_size, **parameters}
    profile["parameters"].update({name: value for name, value in given.items() if value is not None})
    try:
        rules = msgspec.convert(profile["parameters"], Parameters)
        assets = tuple(asset["code"] for asset in profile["assets"])
        nodes = rules.committees * rules.committee_size
        Devnet(folder, Ports(state.port_base), nodes, assets, gateways=state.gateways)
    except (ValueError, msgspec.ValidationError) as error:
        raise FolderError(str(error)) from None

    folder.data.mkdir(parents=True, exist_ok=True)
    folder.keys.mkdir(mode=0o700, exist_ok=True)
    write_state(folder, state)
    secret = {name: secrets.token_hex(32) for name in ("SHARDPAY_KEY_ENCRYPTION_KEY", "SHARDPAY_TOKEN_SECRET")}
    if not folder.gateway_secrets.exists():
        _write(folder.gateway_secrets, json.dumps(secret).encode(), 0o600)
    genesis = Genesis(
        name=profile["name"],
        time=time.time_ns() // 1_000_000,
        coordinator=_key(folder.coordinator_key).public.hex(),
        assets=tuple(
            Asset(asset["code"], asset["decimals"], _key(folder.issuer_key(asset["code"])).public.hex())
            for asset in profile["assets"]
        ),
        parameters=rules,
    )
    draft = folder.genesis.with_suffix(".draft")
    write_genesis(draft, genesis)
    draft.replace(folder.genesis)  # last, and at once: a folder with a genesis is complete
    return _devnet(folder, state)


def write_state(folder: Folder, state: DevnetState) -> None:
    _write(folder.state, msgspec.json.encode(state), 0o644)


def write_settings(folder: Folder, settings: Mapping[str, msgspec.Struct]) -> None:
    """Write each process's settings file and make its folder."""
    for name, values in settings.items():
        path = folder.settings(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {key: value for key, value in msgspec.to_builtins(values).items() if value is not None}  # TOML knows no null
        _write(path, b"# Written on each start; edit a copy.\n" + msgspec.toml.encode(given), 0o644)
        folder.home(name).mkdir(mode=0o700, parents=True, exist_ok=True)


def read_gateway_secrets(folder: Folder) -> dict[str, str]:
    """The gateway's secrets, as environment variables. Raises FolderError."""
    try:
        return msgspec.json.decode(folder.gateway_secrets.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as error:
        raise FolderError(f"cannot read {folder.gateway_secrets}: {error}") from None


def clear(folder: Folder) -> None:
    """Delete a network nothing of which runs - only what these scripts wrote, and only where they did. Raises FolderError."""
    if folder.state.exists():
        for path in _owned(folder):
            if path.is_dir() and not path.is_symlink():
                if path != folder.run:  # its locks are held
                    shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folder.state.unlink()


def _owned(folder: Folder) -> list[Path]:
    names = ["genesis.json", "genesis.draft", "keys", "config", "coordinator", "gateway", "dashboard", "shop", "logs", "run"]
    names += [f"node-{number}" for number in range(MAX_NODES)]
    names += [f"gateway-{number}" for number in range(2, MAX_GATEWAYS + 1)]
    return [folder.data / name for name in names]


def _devnet(folder: Folder, state: DevnetState) -> Devnet:
    try:
        genesis = read_genesis(folder.genesis)
        nodes = genesis.parameters.committees * genesis.parameters.committee_size
        assets = tuple(asset.code for asset in genesis.assets)
        numbers = range(nodes + state.joined)
        return Devnet(
            folder,
            Ports(state.port_base),
            nodes,
            assets,
            state.broker,
            state.host,
            state.nodes,
            state.shop,
            state.gateways,
            state.keep_blocks,
            state.joined,
            frozenset(number for number in numbers if has_left(folder.home(f"node-{number}"))),
        )
    except (OSError, ValueError) as error:
        raise FolderError(f"{folder.genesis}: {error}") from None


def _key(path: Path) -> KeyPair:
    if not path.exists():
        keys.write_key_file(path, keys.generate())
    return keys.read_key_file(path)


def _write(path: Path, data: bytes, mode: int) -> None:
    draft = path.with_name(path.name + ".draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    draft.replace(path)
