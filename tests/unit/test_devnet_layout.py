"""The devnet's folder, ports and settings, without a process."""

import stat
import threading
from pathlib import Path

import pytest

from config.settings import CoordinatorSettings, DashboardSettings, GatewaySettings, NodeSettings, ShopSettings, read_settings
from node.leaving import begin_to_leave, note_left
from node.protocol.genesis import Phase, read_genesis
from node.protocol.keys import read_key_file
from node.protocol.reports import Report
from scripts.devnet import folder as folders
from scripts.devnet import launch, leave, session, up
from scripts.devnet.folder import DevnetState, FolderError
from scripts.devnet.layout import MAX_PORT_BASE, Devnet, Folder, Ports
from scripts.devnet.session import Screen, counted
from scripts.devnet.watch import View, status_line
from tests.figures import COORDINATOR, NODE, changed


def new(tmp_path: Path, port_base: int = 8000, committees: int | None = None, size: int | None = None) -> Devnet:
    devnet = folders.make_devnet(Folder(tmp_path), DevnetState(port_base), committees, size)
    folders.write_settings(devnet.folder, devnet.settings())
    return devnet


def names_and_ports(devnet: Devnet) -> tuple[list[str], list[int]]:
    programs = devnet.programs("python", Path("valkey-server"), {})
    return [program.name for program in programs], [port for program in programs for port in program.ports]


def test_each_process_reads_settings_of_its_own_and_on_one_machine_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    devnet = new(tmp_path, 9000, 2, 4)
    node = read_settings(NodeSettings, devnet.folder.settings("node-7"))
    coordinator = read_settings(CoordinatorSettings, devnet.folder.settings("coordinator"))
    gateway = read_settings(GatewaySettings, devnet.folder.settings("gateway"))
    dashboard = read_settings(DashboardSettings, devnet.folder.settings("dashboard"))

    assert (node.name, node.listen, node.metrics_port) == ("node-7", "/ip4/127.0.0.1/tcp/9107", 9407)
    assert node.advertise == (node.listen,)
    assert node.coordinator == coordinator.listen == "/ip4/127.0.0.1/tcp/9020"
    assert {node.broker, coordinator.broker, gateway.broker, dashboard.broker} == {"redis://127.0.0.1:9010/0"}
    assert (gateway.port, dashboard.port, dashboard.gateway) == (9080, 9090, "http://127.0.0.1:9080")
    assert (gateway.devnet, set(gateway.issuer_keys)) == (True, {"USD", "EUR", "VND"})
    text = " ".join(map(str, [*devnet.settings().values(), *devnet.programs("python", Path("valkey"), {})]))
    assert "0.0.0.0" not in text.replace("metrics_host='0.0.0.0'", "")


def test_the_genesis_names_the_keys_that_were_made_and_no_secret_is_shown(tmp_path: Path) -> None:
    devnet = new(tmp_path, 8000, 3, 5)
    folder, genesis = devnet.folder, read_genesis(devnet.folder.genesis)
    assert (genesis.parameters.committees, genesis.parameters.committee_size, devnet.nodes) == (3, 5, 15)
    assert {asset.code: asset.decimals for asset in genesis.assets} == {"USD": 2, "EUR": 2, "VND": 0}
    assert read_key_file(folder.coordinator_key).public.hex() == genesis.coordinator
    for asset in genesis.assets:
        assert read_key_file(folder.issuer_key(asset.code)).public.hex() == asset.issuer

    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.keys.iterdir()} == {0o600}
    secrets = folders.read_gateway_secrets(folder)
    programs = devnet.programs("python", Path("valkey-server"), secrets)
    shown = " ".join(path.read_text() for path in (tmp_path / "config").iterdir()) + str([program.argv for program in programs])
    for value in secrets.values():
        assert len(bytes.fromhex(value)) == 32
        assert value not in shown
    assert [program.name for program in programs if program.environment] == ["gateway"]


def test_all_ports_move_with_the_port_base_and_none_is_used_twice() -> None:
    def ports(base: int) -> list[int]:
        return names_and_ports(Devnet(Folder(Path("/x")), Ports(base), 250, ("USD",)))[1]

    here = ports(8000)
    assert [port + 12_000 for port in here] == ports(20_000)
    assert len(set(here)) == len(here) == 4 + 1 + 2 * 250
    assert max(ports(MAX_PORT_BASE)) <= 65_535


def test_a_broker_or_nodes_elsewhere_are_not_started_here_and_reach_this_machine(tmp_path: Path) -> None:
    state = DevnetState(8000, "redis://10.0.0.1:6379/1")
    devnet = folders.make_devnet(Folder(tmp_path / "broker"), state, None, None)
    assert "broker" not in names_and_ports(devnet)[0]
    assert devnet.broker_url == "redis://10.0.0.1:6379/1"
    assert folders.open_devnet(devnet.folder) == devnet

    devnet = folders.make_devnet(Folder(tmp_path / "nodes"), DevnetState(8000, host="10.0.0.1", nodes=False), 2, 4)
    assert folders.open_devnet(devnet.folder) == devnet
    assert names_and_ports(devnet)[0] == ["broker", "coordinator", "gateway", "dashboard"]
    settings = devnet.settings()
    assert set(settings) == {"coordinator", "gateway", "dashboard"}
    assert (settings["coordinator"].listen, settings["gateway"].host) == ("/ip4/0.0.0.0/tcp/8020", "0.0.0.0")  # type: ignore[attr-defined]


def test_a_shop_runs_where_one_is_wanted_and_goes_on_with_the_network(tmp_path: Path) -> None:
    def opened(*arguments: str) -> Devnet:
        return up.open_or_make(Folder(tmp_path), up.parse(list(arguments)), Screen())

    plain = opened("--port-base", "9000")
    assert "shop" not in {*names_and_ports(plain)[0], *plain.settings()}
    devnet = opened("--with-shop")
    assert opened() == devnet
    names, ports = names_and_ports(devnet)
    assert (names[-1], ports[-1], len(set(ports))) == ("shop", 9070, len(ports))
    folders.write_settings(devnet.folder, devnet.settings())
    shop = read_settings(ShopSettings, devnet.folder.settings("shop"))
    gateway = read_settings(GatewaySettings, devnet.folder.settings("gateway"))
    assert (shop.url, shop.gateway, gateway.shop) == ("http://127.0.0.1:9070", "http://127.0.0.1:9080", shop.url)
    folders.clear(devnet.folder)
    assert not devnet.folder.home("shop").exists()


def test_several_gateways_share_an_address_a_database_and_secrets_and_each_has_a_port_of_its_own(tmp_path: Path) -> None:
    state = DevnetState(9000, gateways=3)
    devnet = folders.make_devnet(Folder(tmp_path), state, None, None)
    assert folders.open_devnet(devnet.folder) == devnet
    programs = {program.name: program for program in devnet.programs("python", Path("valkey-server"), {"KEY": "secret"})}
    names = ["gateway", "gateway-2", "gateway-3"]
    assert [programs[name].ports for name in names] == [(9081,), (9082,), (9083,)]
    assert {programs[name].environment for name in names} == {(("KEY", "secret"),)}
    folders.write_settings(devnet.folder, devnet.settings())
    settings = [read_settings(GatewaySettings, devnet.folder.settings(name)) for name in names]
    assert {(one.port, one.reuse_port, one.database) for one in settings} == {(9080, True, settings[0].database)}
    assert [(one.name, one.own_port) for one in settings] == [("gateway", 9081), ("gateway-2", 9082), ("gateway-3", 9083)]
    folders.clear(devnet.folder)
    assert not list(tmp_path.glob("gateway*"))
    with pytest.raises(FolderError, match="1 to 9 gateway"):
        folders.make_devnet(Folder(tmp_path / "many"), DevnetState(9000, gateways=10), None, None)


def test_a_folder_is_taken_up_again_and_cleared_of_what_the_scripts_wrote_only(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="250"):
        new(tmp_path / "new", 8000, 100, 4)
    assert not (tmp_path / "new").exists()
    folder = new(tmp_path).folder
    kept = {path: path.read_bytes() for path in folder.keys.iterdir()}
    folder.genesis.unlink()  # as if it had been interrupted
    new(tmp_path)
    assert kept == {path: path.read_bytes() for path in folder.keys.iterdir()}
    (tmp_path / "thesis.txt").write_text("years of work")
    theirs = {"node-modules", "node-0.bak", "node-3-before-upgrade", "node-007", "node-250", "gateway-1", "gateway-2024-backup"}
    for name in theirs:
        (tmp_path / name).mkdir()
    folders.clear(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", *theirs}


def test_somebody_elses_folder_is_neither_cleared_nor_written_to(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "nginx.conf").write_text("theirs")
    folders.clear(Folder(tmp_path))
    with pytest.raises(FolderError, match="config"):
        new(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["config", "nginx.conf"]


def test_the_port_base_is_remembered_and_may_change_and_the_size_may_not(tmp_path: Path) -> None:
    def opened(*arguments: str) -> Devnet:
        return up.open_or_make(Folder(tmp_path), up.parse(list(arguments)), Screen())

    folder = new(tmp_path, 9000, 2, 4).folder
    assert opened().ports == Ports(9000)
    assert opened("--port-base", "9500").ports == Ports(9500)
    assert folders.open_devnet(folder).ports == Ports(9500)
    assert opened("--committees", "2", "--committee-size", "4").nodes == 8
    with pytest.raises(FolderError, match="--fresh"):
        opened("--committees", "3")
    folder.state.write_text('{"port_base": "many"}')
    with pytest.raises(FolderError, match=r"devnet\.json"):
        opened()


REMOTE = ["--nodes", "4", "--genesis", "g.json", "--coordinator", "/ip4/10.0.0.1/tcp/8020", "--broker", "redis://10.0.0.1"]


@pytest.mark.parametrize(
    "arguments",
    [["--port-base", "80"], ["--port-base", "65000"], ["--down", "--status"], ["--json"], ["--down", "--fresh"], REMOTE],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        (launch if arguments is REMOTE else up).parse(arguments)


def test_launch_is_told_one_address_that_others_can_reach() -> None:
    assert launch.parse([*REMOTE, "--host", "10.0.0.2"]).advertise == "10.0.0.2"
    assert launch.parse([*REMOTE, "--advertise", "192.0.2.7"]).host == "0.0.0.0"


def test_lines_name_a_few_and_sum_up_many() -> None:
    assert status_line({0: 42, 1: 40}, 12.52, 7, 8, 83) == "shard 0 at 42 · shard 1 at 40 · 12.5 tx/s · 7/8 nodes up · 0:01:23"
    assert status_line({s: 10 + s for s in range(62)}, 0, 248, 248, 3600).startswith("62 shards at 10-71 · 0.0 tx/s")
    assert status_line({}, 0, 0, 8, 0).startswith("no blocks yet")
    assert counted(["broker", "node-0"]) == "2 processes: broker, node-0"
    assert counted([f"node-{i}" for i in range(9)] + ["gateway"]) == "10 processes: gateway, 9 nodes"


def test_the_view_counts_each_shards_transactions_once_and_forgets_the_silent() -> None:
    view = View()
    for second in range(4):
        for member in range(4):
            figures = changed(NODE, shard=0, height=10 + second, committed=100 * second)
            view.add(Report(f"node-{member}", 0, figures), second + member / 10)
    assert view.heights(3.5) == {0: 13}
    assert 90 <= view.rate(3.5) <= 110
    assert (view.heights(60.0), view.rate(60.0)) == ({}, 0)


def test_the_view_tells_how_far_the_network_has_formed() -> None:
    view = View()
    assert view.forming(0) == ""
    view.add(Report("coordinator", 0, changed(COORDINATOR, phase=Phase.REGISTRATION, registered=5)), 0)
    assert view.forming(1) == "5 of 8 nodes registered"
    view.add(Report("coordinator", 0, COORDINATOR), 1)
    assert view.forming(2) == "handoff: 7 acknowledged, 6 ready, of 8 nodes"
    for name, replica, second in (("node-0", None, 2), ("node-1", NODE.replica, 2), ("node-1", NODE.replica, 4)):
        view.add(Report(name, 0, changed(NODE, replica=replica, phase=Phase.HANDOFF)), second)
    assert (view.heights(4), view.rate(4), view.forming(60)) == ({}, 0, "")


def test_many_nodes_are_counted_and_all_else_is_named() -> None:
    names = ["gateway", "gateway-2", "gateway-3", *(f"node-{number}" for number in range(8))]
    assert counted(names) == "11 processes: gateway, gateway-2, gateway-3, 8 nodes"
    assert counted(["node-1"]) == "1 process: node-1"


def test_how_many_blocks_nodes_keep_is_remembered_and_told_to_each(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folders.make_devnet(folder, DevnetState(8000, keep_blocks=700), None, None)
    devnet = folders.open_devnet(folder)
    told = [settings.keep_blocks for settings in devnet.settings().values() if isinstance(settings, NodeSettings)]
    assert told == [700] * devnet.nodes


def test_nodes_are_added_with_the_next_numbers_and_who_has_left_is_not_started_again(tmp_path: Path) -> None:
    folder = new(tmp_path, 9000, 2, 4).folder
    assert folders.add_nodes(folder, 3).node_names == [f"node-{i}" for i in range(11)]
    assert folders.add_nodes(folder, 1).node_names[-1] == "node-11"
    for name in ("node-2", "node-9"):
        folder.home(name).mkdir(exist_ok=True)
        begin_to_leave(folder.home(name))
        assert name in folders.open_devnet(folder).node_names, "until it has left"
        note_left(folder.home(name))
    devnet = up.open_or_make(folder, up.parse([]), Screen())
    assert devnet == folders.open_devnet(folder)
    assert devnet.node_indexes == [0, 1, 3, 4, 5, 6, 7, 8, 10, 11]
    names, ports = names_and_ports(devnet)
    assert "node-2" not in {*names, *devnet.settings()}
    assert devnet.settings()["node-11"].listen == "/ip4/127.0.0.1/tcp/9111"  # type: ignore[attr-defined]
    assert (9111 in ports, 9102 in ports) == (True, False)
    assert folders.add_nodes(folder, 1).node_names[-1] == "node-12", "no number is given twice"
    with pytest.raises(FolderError, match="250"):
        folders.add_nodes(folder, 250)
    assert folders.open_devnet(folder).node_names[-1] == "node-12"
    folders.clear(folder)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FolderError, match="no network"):
        folders.add_nodes(folder, 1)


def test_nodes_can_be_added_where_the_first_ones_run_elsewhere(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folders.make_devnet(folder, DevnetState(8000, host="10.0.0.1", nodes=False), 2, 4)
    assert folders.add_nodes(folder, 2).node_names == ["node-0", "node-1"]


@pytest.mark.parametrize(
    ("seconds", "times"),
    [
        (6, (6_000, 2_000, 2_000, 30_000, 5_000, 15_000)),
        (30, (30_000, 5_000, 5_000, 60_000, 5_000, 15_000)),
        (3_600, (3_600_000, 10_000, 10_000, 300_000, 30_000, 90_000)),
    ],
)
def test_the_times_of_a_change_follow_from_how_long_an_epoch_lasts(tmp_path: Path, seconds: int, times: tuple[int, ...]) -> None:
    def opened(*arguments: str) -> Devnet:
        return up.open_or_make(Folder(tmp_path), up.parse(list(arguments)), Screen())

    p = read_genesis(opened("--epoch-seconds", str(seconds)).folder.genesis).parameters
    assert (p.epoch_time, p.epoch_pause, p.reveal_time, p.handoff_time, p.commit_timeout, p.settle_time) == times
    assert opened() == opened("--epoch-seconds", str(seconds))
    with pytest.raises(FolderError, match="--fresh"):
        opened("--epoch-seconds", str(seconds + 1))


def test_launch_joins_a_network_that_is_here_unless_it_is_told_of_another() -> None:
    options = launch.parse(["--nodes", "4", "--data", "d", "--detach"])
    assert (options.joins, options.nodes, options.data) == (True, 4, Path("d"))
    assert not launch.parse([*REMOTE, "--advertise", "192.0.2.7"]).joins
    for wrong in (["--data", "d"], ["--nodes", "0"], ["--nodes", "1", "--broker", "redis://10.0.0.1"]):
        with pytest.raises(SystemExit):
            launch.parse(wrong)


def test_only_a_node_that_runs_can_be_asked_to_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "stop_signal", threading.Event)
    folder = new(tmp_path).folder
    for name, why in (("gateway", "there is no node gateway"), ("node-77", "no node node-77"), ("node-1", "node-1 does not run")):
        assert leave.main(["--data", str(tmp_path), name]) == 1
        assert why in capsys.readouterr().err
    assert not list(tmp_path.rglob("leaving"))
    begin_to_leave(folder.home("node-1"))
    note_left(folder.home("node-1"))
    assert leave.main(["--data", str(tmp_path), "node-1"]) == 0, "it is gone"
