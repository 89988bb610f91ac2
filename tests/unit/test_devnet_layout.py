"""The devnet's folder, ports and settings, without a process."""

import json
import stat
from pathlib import Path

import pytest

from config.settings import CoordinatorSettings, DashboardSettings, GatewaySettings, NodeSettings, read_settings
from node.protocol.genesis import Phase, read_genesis
from node.protocol.keys import read_key_file
from node.protocol.reports import Report
from scripts.devnet import folder as folders
from scripts.devnet import launch, up
from scripts.devnet.folder import DevnetState, FolderError
from scripts.devnet.layout import MAX_PORT_BASE, Devnet, Folder, Ports
from scripts.devnet.session import Screen, counted
from scripts.devnet.watch import View, status_line
from tests.figures import COORDINATOR, NODE, changed


def new(tmp_path: Path, port_base: int = 8000, committees: int | None = None, size: int | None = None) -> Devnet:
    devnet = folders.make_devnet(Folder(tmp_path), DevnetState(port_base), committees, size)
    folders.write_settings(devnet.folder, devnet.settings())
    return devnet


def all_ports(devnet: Devnet) -> list[int]:
    return [port for program in devnet.programs("python", Path("valkey-server"), {}) for port in program.ports]


def test_generated_settings_are_what_each_process_reads(tmp_path: Path) -> None:
    devnet = new(tmp_path, 9000, 2, 4)
    node = read_settings(NodeSettings, devnet.folder.settings("node-7"))
    coordinator = read_settings(CoordinatorSettings, devnet.folder.settings("coordinator"))
    gateway = read_settings(GatewaySettings, devnet.folder.settings("gateway"))
    dashboard = read_settings(DashboardSettings, devnet.folder.settings("dashboard"))

    assert node.name == "node-7"
    assert node.listen == "/ip4/127.0.0.1/tcp/9107"
    assert node.advertise == (node.listen,)
    assert node.metrics_port == 9407
    assert node.coordinator == coordinator.listen == "/ip4/127.0.0.1/tcp/9020"
    assert {node.broker, coordinator.broker, gateway.broker, dashboard.broker} == {"redis://127.0.0.1:9010/0"}
    assert (gateway.port, dashboard.port, dashboard.gateway) == (9080, 9090, "http://127.0.0.1:9080")
    assert gateway.devnet
    assert set(gateway.issuer_keys) == {"USD", "EUR", "VND"}


def test_the_genesis_names_the_keys_that_were_made(tmp_path: Path) -> None:
    devnet = new(tmp_path, 8000, 3, 5)
    genesis = read_genesis(devnet.folder.genesis)
    assert (genesis.parameters.committees, genesis.parameters.committee_size, devnet.nodes) == (3, 5, 15)
    assert {asset.code: asset.decimals for asset in genesis.assets} == {"USD": 2, "EUR": 2, "VND": 0}
    assert read_key_file(devnet.folder.coordinator_key).public.hex() == genesis.coordinator
    for asset in genesis.assets:
        assert read_key_file(devnet.folder.issuer_key(asset.code)).public.hex() == asset.issuer


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder = new(tmp_path).folder
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.keys.iterdir()} == {0o600}
    assert {len(bytes.fromhex(value)) for value in folders.read_gateway_secrets(folder).values()} == {32}


def test_secrets_are_not_in_any_process_arguments_or_settings(tmp_path: Path) -> None:
    devnet = new(tmp_path)
    secrets = folders.read_gateway_secrets(devnet.folder)
    programs = devnet.programs("python", Path("valkey-server"), secrets)
    settings = "".join(path.read_text() for path in (tmp_path / "config").iterdir())
    for value in secrets.values():
        assert all(value not in argument for program in programs for argument in program.argv)
        assert value not in settings
    assert [program.name for program in programs if program.environment] == ["gateway"]


def test_all_ports_move_with_the_port_base_and_none_is_used_twice(tmp_path: Path) -> None:
    here, there = new(tmp_path / "a", 8000, 50, 5), new(tmp_path / "b", 20_000, 50, 5)
    assert [port + 12_000 for port in all_ports(here)] == all_ports(there)
    assert len(set(all_ports(here))) == len(all_ports(here)) == 4 + 1 + 2 * 250
    assert max(all_ports(new(tmp_path / "c", MAX_PORT_BASE, 50, 5))) <= 65_535


def test_a_broker_elsewhere_is_not_started(tmp_path: Path) -> None:
    devnet = folders.make_devnet(Folder(tmp_path), DevnetState(8000, "redis://10.0.0.1:6379/1"), None, None)
    assert "broker" not in [program.name for program in devnet.programs("python", Path("valkey-server"), {})]
    assert devnet.broker_url == "redis://10.0.0.1:6379/1"
    assert folders.open_devnet(devnet.folder) == devnet


def test_too_many_nodes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="250"):
        folders.make_devnet(Folder(tmp_path / "new"), DevnetState(8000), 100, 4)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_start_is_taken_up_again(tmp_path: Path) -> None:
    devnet = new(tmp_path)
    key, secrets = devnet.folder.coordinator_key.read_bytes(), devnet.folder.gateway_secrets.read_bytes()
    devnet.folder.genesis.unlink()
    new(tmp_path)
    assert (devnet.folder.coordinator_key.read_bytes(), devnet.folder.gateway_secrets.read_bytes()) == (key, secrets)


def test_clearing_deletes_only_what_the_scripts_wrote(tmp_path: Path) -> None:
    devnet = new(tmp_path)
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "node-modules").mkdir()
    folders.clear(devnet.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node-modules", "thesis.txt"]


def test_somebody_elses_folder_is_neither_cleared_nor_written_to(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "nginx.conf").write_text("theirs")
    folders.clear(Folder(tmp_path))
    with pytest.raises(FolderError, match="config"):
        new(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["config", "nginx.conf"]


def test_a_running_networks_size_cannot_be_changed(tmp_path: Path) -> None:
    new(tmp_path, 8000, 2, 4)
    same = up.parse(["--committees", "2", "--committee-size", "4"])
    assert up.open_or_make(Folder(tmp_path), same, Screen()).nodes == 8
    with pytest.raises(FolderError, match="--fresh"):
        up.open_or_make(Folder(tmp_path), up.parse(["--committees", "3"]), Screen())


def test_the_port_base_is_remembered_and_may_change_while_nothing_runs(tmp_path: Path) -> None:
    new(tmp_path, 9000)
    assert up.open_or_make(Folder(tmp_path), up.parse([]), Screen()).ports == Ports(9000)
    assert up.open_or_make(Folder(tmp_path), up.parse(["--port-base", "9500"]), Screen()).ports == Ports(9500)
    assert folders.open_devnet(Folder(tmp_path)).ports == Ports(9500)


@pytest.mark.parametrize(
    "arguments", [["--port-base", "80"], ["--port-base", "65000"], ["--down", "--status"], ["--json"], ["--down", "--fresh"]]
)
def test_up_refuses_arguments_that_make_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        up.parse(arguments)


def test_launch_asks_for_an_address_that_others_can_reach() -> None:
    needed = ["--nodes", "4", "--genesis", "g.json", "--coordinator", "/ip4/10.0.0.1/tcp/8020", "--broker", "redis://10.0.0.1"]
    with pytest.raises(SystemExit):
        launch.parse(needed)
    assert launch.parse([*needed, "--host", "10.0.0.2"]).advertise == "10.0.0.2"
    assert launch.parse([*needed, "--advertise", "192.0.2.7"]).host == "0.0.0.0"


def test_status_line_names_shards_and_sums_up_many() -> None:
    assert status_line({0: 42, 1: 40}, 12.52, 7, 8, 83) == "shard 0 at 42 · shard 1 at 40 · 12.5 tx/s · 7/8 nodes up · 0:01:23"
    assert status_line({s: 10 + s for s in range(62)}, 0, 248, 248, 3600).startswith("62 shards at 10-71 · 0.0 tx/s")
    assert status_line({}, 0, 0, 8, 0).startswith("no blocks yet")


def report(node: str, shard: int, height: int, committed: int) -> Report:
    return Report(node, 0, changed(NODE, shard=shard, height=height, committed=committed))


def test_the_view_counts_each_shards_transactions_once_and_forgets_the_silent() -> None:
    view = View()
    for second in range(4):
        for member in range(4):
            view.add(report(f"node-{member}", 0, 10 + second, 100 * second), second + member / 10)
    assert view.heights(3.5) == {0: 13}
    assert 90 <= view.rate(3.5) <= 110
    assert view.heights(60.0) == {}
    assert view.rate(60.0) == 0


def test_the_view_tells_how_far_the_network_has_formed() -> None:
    view = View()
    assert view.forming(0) == ""
    view.add(Report("coordinator", 0, changed(COORDINATOR, phase=Phase.REGISTRATION, registered=5)), 0)
    assert view.forming(1) == "5 of 8 nodes registered"
    view.add(Report("coordinator", 0, COORDINATOR), 1)
    assert view.forming(2) == "handoff: 7 acknowledged, 6 ready, of 8 nodes"
    view.add(Report("node-0", 0, changed(NODE, replica=None, phase=Phase.HANDOFF)), 2)
    view.add(Report("node-1", 0, changed(NODE, phase=Phase.HANDOFF)), 2)
    view.add(Report("node-1", 0, changed(NODE, phase=Phase.HANDOFF)), 4)
    assert view.heights(4) == {}
    assert view.rate(4) == 0
    assert view.forming(60) == ""


def test_many_nodes_are_counted() -> None:
    assert counted(["broker", "node-0"]) == "2 processes: broker, node-0"
    assert counted([f"node-{i}" for i in range(9)] + ["gateway"]) == "10 processes: gateway, 9 nodes"


def test_state_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    devnet = new(tmp_path)
    devnet.folder.state.write_text(json.dumps({"port_base": "many"}))
    with pytest.raises(FolderError, match=r"devnet\.json"):
        folders.open_devnet(devnet.folder)


def test_a_network_whose_nodes_run_elsewhere_listens_for_them_and_starts_none(tmp_path: Path) -> None:
    devnet = folders.make_devnet(Folder(tmp_path), DevnetState(8000, host="10.0.0.1", nodes=False), 2, 4)
    assert folders.open_devnet(Folder(tmp_path)) == devnet
    settings = devnet.settings()
    assert set(settings) == {"coordinator", "gateway", "dashboard"}
    assert (settings["coordinator"].listen, settings["gateway"].host) == ("/ip4/0.0.0.0/tcp/8020", "0.0.0.0")  # type: ignore[attr-defined]
    names = [program.name for program in devnet.programs("python", Path("valkey"), {})]
    assert names == ["broker", "coordinator", "gateway", "dashboard"]


def test_on_one_machine_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    devnet = folders.make_devnet(Folder(tmp_path), DevnetState(8000), 2, 4)
    text = " ".join(str(settings) for settings in devnet.settings().values())
    text += " ".join(" ".join(p.argv) for p in devnet.programs("python", Path("valkey"), {}))
    assert "0.0.0.0" not in text.replace("metrics_host='0.0.0.0'", "")
