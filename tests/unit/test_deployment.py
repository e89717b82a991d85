"""A deployment file becomes node files that say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings as runs
from hypothesis import strategies as st

from edgemw.app.deployment import NodeSpec, device_ids, expand, load_deployment, to_toml
from edgemw.app.settings import (
    Broker,
    Codec,
    Data,
    Deployment,
    DeviceFile,
    FogFile,
    Node,
    Plan,
    Server,
    Serving,
    Task,
    Telemetry,
    Tls,
    Window,
)
from edgemw.core.config.loader import load
from edgemw.core.config.secret import Secret
from edgemw.core.config.units import Duration
from edgemw.core.errors import ConfigError

CWD = Path("/home/me")
URL = "mqtt://127.0.0.1:4321"
TEXT = """
name = "net"
[data]
source = "digits"
[broker]
username = "u"
password = { file = "pass" }
[window]
deadline = "7s"
[plan]
lr = 0.5
[task]
bundle = "digits.edge"
[telemetry]
http = ":9108"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
count = 2
window = { quorum = 2 }
[tiers.device]
role = "device"
parent = "fog"
count = 5
site = "hall-3"
[tiers.own]
role = "device"
parent = "top"
serving = { http = "127.0.0.1:8080" }
[[tiers.own.data]]
use = "pkg.mod:load"
"""


def expanded(text: str = TEXT) -> tuple[NodeSpec, ...]:
    settings = load(Deployment, text, "/srv/edgemw.toml", cwd=CWD).value
    return expand(settings, URL, Path("/run/net"), {name: Path(f"/run/net/{name}.npz") for name in device_ids(settings)})


def by_id(text: str = TEXT) -> dict[str, NodeSpec]:
    return {spec.id: spec for spec in expanded(text)}


def loaded(spec: NodeSpec) -> FogFile | DeviceFile:
    return load(type(spec.settings), spec.text, str(spec.path), cwd=CWD).value


def test_every_node_comes_after_its_parent() -> None:
    specs = expanded()
    assert [spec.id for spec in specs] == ["top", "fog-0", "fog-1", "own-0", *(f"device-{i}" for i in range(5))]
    assert [spec.parent for spec in specs] == [None, "top", "top", "top", *["fog-0"] * 3, *["fog-1"] * 2]


def test_every_text_loads_as_the_settings() -> None:
    for spec in expanded():
        assert loaded(spec) == spec.settings


def test_shared_sections_and_those_of_a_tier_arrive() -> None:
    specs = by_id()
    top, fog, device = specs["top"].settings, specs["fog-1"].settings, specs["device-4"].settings
    assert isinstance(top, FogFile)
    assert isinstance(fog, FogFile)
    assert isinstance(device, DeviceFile)
    assert (top.plan.lr, top.task.bundle, fog.plan.lr, fog.task.bundle) == (0.5, Path("/srv/digits.edge"), None, None)
    assert [top.window.quorum, fog.window.quorum, fog.window.deadline] == [1, 2, 7]
    assert (device.node.site, device.node.state) == ("hall-3", Path("/run/net/device-4"))
    assert device.data == (Data(path=Path("/run/net/device-4.npz"), split="split"),)
    assert device.broker == Broker(url=URL, username="u", password=Secret(file="pass", beside="/srv"))
    assert "[plan]" not in specs["fog-1"].text


def test_a_fog_node_is_told_how_many_children_the_tree_gives_it() -> None:
    fogs = {spec.id: spec.settings.window for spec in expanded() if isinstance(spec.settings, FogFile)}
    assert {name: window.children for name, window in fogs.items()} == {"top": 3, "fog-0": 3, "fog-1": 2}
    given = by_id(TEXT.replace("quorum = 2", "quorum = 2, children = 7"))["fog-1"]
    assert isinstance(given.settings, FogFile)
    assert given.settings.window.children == 7


def test_devices_with_samples_of_their_own_keep_them() -> None:
    settings = load(Deployment, TEXT, "/srv/edgemw.toml", cwd=CWD).value
    assert device_ids(settings) == tuple(f"device-{i}" for i in range(5))
    own = by_id()["own-0"].settings
    assert isinstance(own, DeviceFile)
    assert own.data[0].use == "pkg.mod:load"


def test_a_broker_that_runs_already_keeps_its_address() -> None:
    specs = by_id(TEXT.replace("[broker]", '[broker]\nurl = "mqtts://b"'))
    assert {spec.settings.broker.url for spec in specs.values()} == {"mqtts://b"}


def test_ports_are_counted_up_and_never_shared() -> None:
    specs = expanded()
    assert [spec.settings.telemetry.http for spec in specs] == [f":{9108 + i}" for i in range(9)]
    with pytest.raises(ConfigError, match="both listen on port 9108") as caught:
        expanded(TEXT.replace("8080", "9108"))
    assert caught.value.key == "tiers.own.serving.http"
    with pytest.raises(ConfigError, match="not enough ports"):
        expanded(TEXT.replace("9108", "65530"))
    assert {spec.settings.telemetry.http for spec in expanded(TEXT.replace("9108", "0"))} == {":0"}


def test_a_device_without_samples_is_refused() -> None:
    settings = load(Deployment, TEXT, "/srv/edgemw.toml", cwd=CWD).value
    with pytest.raises(ConfigError, match="'device-0' was given no samples"):
        expand(settings, URL, Path("/run/net"), {})


# ------------------------------------------------------------------------------------------------------- other samples


def given(folder: Path, data: str, *flags: str, env: dict[str, str] | None = None) -> tuple[str, str, str]:
    """Split, partition and client of a deployment with this [data], given samples that have arrays client and split."""
    file, samples = folder / "edgemw.toml", folder / "mine.npz"
    file.write_text(TEXT.replace('source = "digits"', data))
    np.savez(samples, x=np.zeros(2), y=np.zeros(2), client=np.zeros(2), split=np.zeros(2), who=np.zeros(2))
    settings = load_deployment(file, samples, env or {}, flags).data
    assert settings is not None
    assert (settings.path, settings.source) == (samples, "")
    return settings.split, settings.partition, settings.client


def test_what_is_said_of_a_named_source_does_not_hold_for_other_samples(tmp_path: Path) -> None:
    assert given(tmp_path, 'source = "digits"\npartition = "dirichlet"') == ("split", "natural", "client")
    assert given(tmp_path, 'path = "a.npz"\npartition = "dirichlet"') == ("split", "dirichlet", "client")
    assert given(tmp_path, 'path = "a.npz"\nsplit = ""') == ("", "natural", "client")


def test_flags_and_environment_win_over_arrays(tmp_path: Path) -> None:
    source = 'source = "digits"'
    assert given(tmp_path, source, "data.split=", "data.partition=iid") == ("", "iid", "client")
    assert given(tmp_path, source, "data.client=who") == ("split", "natural", "who")
    assert given(tmp_path, source, "data.client=nobody") == ("split", "iid", "nobody")
    assert given(tmp_path, source, env={"EDGEMW_DATA__PARTITION": "dirichlet"}) == ("split", "dirichlet", "client")


def test_without_other_samples_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "edgemw.toml").write_text(TEXT)
    settings = load_deployment(tmp_path / "edgemw.toml", None, {})
    assert settings == load(Deployment, TEXT, str(tmp_path / "edgemw.toml"), cwd=CWD).value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('net = "n"\n[node]\nid = "a"\nparent = "f"\n[serving]\n', r"file of a device: use `edgemw device --config"),
        ('schema = 1\n[node]\nid = "a"\n[window]\nk = 2\n', "file of a fog node: use `edgemw fog --config"),
        ('nam = "n"\n', "nam: unknown key"),
        ("", "name: is missing"),
    ],
)
def test_the_file_of_a_node_is_told_from_a_wrong_deployment(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_deployment(tmp_path / "a.toml", None, {})


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        (
            "window = { quorum = 2 }",
            ["window.quorum=4"],
            r"top\.window\.quorum: 4 .* it is window\.quorum that says 4 for every tier",
        ),
        ("window = { quorum = 5 }", [], r"fog\.window\.quorum: 5 updates never come: a node of this tier has 2 children$"),
    ],
)
def test_a_quorum_that_never_comes_is_named_where_it_stands(text: str, flags: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(Deployment, TEXT.replace("window = { quorum = 2 }", text), "edgemw.toml", cwd=CWD, overrides=flags)


# -------------------------------------------------------------------------------------------------------- round trip

IDS = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True).filter(lambda name: name != "all")
TEXTS = st.text(max_size=12)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0/."), min_size=1, max_size=12).map(
    lambda name: Path("/") / name
)
SECRETS = st.builds(Secret, file=TEXTS.filter(bool), beside=TEXTS.filter(bool)) | st.builds(
    Secret, env=TEXTS.filter(lambda name: bool(name) and not name.startswith("EDGEMW_"))
)
POSITIVE = st.floats(1e-9, 1e9)
SELECT = st.dictionaries(
    TEXTS, st.integers(-(1 << 63) + 1, (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS, max_size=3
)
COLUMNS = TEXTS | st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
BROKERS = st.builds(
    Broker,
    url=st.just("mqtts://host:8883"),
    username=TEXTS.filter(bool),
    password=st.none() | SECRETS,
    keepalive=st.floats(5, 65535).map(Duration),
    tls=st.builds(Tls, ca=st.none() | PATHS) | st.builds(Tls, cert=PATHS, key=PATHS),
)
DATA = st.builds(
    Data,
    task=IDS,
    path=PATHS.map(lambda path: path.with_name(path.name + ".npz")),
    x=COLUMNS,
    y=COLUMNS,
    select=SELECT,
    train=st.integers(0, 5) | TEXTS,
    test=st.integers(6, 9),
    test_fraction=st.floats(0, 0.99),
)
DEVICES = st.builds(
    DeviceFile,
    net=IDS,
    node=st.builds(Node, id=IDS, parent=IDS, state=PATHS, site=st.just("") | IDS),
    broker=BROKERS,
    data=st.lists(DATA, max_size=2, unique_by=lambda data: data.task).map(tuple),
    serving=st.builds(Serving, http=st.sampled_from(["", ":0", "[::1]:80"])),
    telemetry=st.builds(Telemetry, log_format=st.sampled_from(["text", "json"])),
)
TOPS = st.builds(
    FogFile,
    net=IDS,
    node=st.builds(Node, id=IDS, state=PATHS),
    window=st.builds(
        Window, k=st.just("all") | st.integers(9, 99), deadline=st.floats(1e-6, 86400).map(Duration), quorum=st.integers(1, 9)
    ),
    task=st.builds(Task, bundle=st.none() | PATHS, rounds=st.integers(0, 99), target=POSITIVE),
    plan=st.builds(Plan, lr=st.none() | POSITIVE, epochs=st.none() | st.integers(1, 9), optimizer=st.none() | st.just("adam")),
    codec=st.builds(Codec, use=st.sampled_from(["lattice", "dense"]), kappa=st.floats(0.1, 64)),
    server=st.builds(Server, lr=POSITIVE, tau=POSITIVE),
)


@runs(deadline=None)  # the machine may be busy
@for_all(DEVICES | TOPS)
def test_what_is_written_loads_as_the_same(settings: DeviceFile | FogFile) -> None:
    text = to_toml(settings)
    assert load(type(settings), text, "/etc/node.toml", cwd=CWD).value == settings
    assert to_toml(load(type(settings), text, "/etc/node.toml", cwd=CWD).value) == text


@runs(deadline=None)  # the machine may be busy
@for_all(TOPS, IDS)
def test_a_fog_with_a_parent_says_nothing_about_the_task(top: FogFile, parent: str) -> None:
    fog = FogFile(net=top.net, node=replace(top.node, parent=parent), window=top.window)
    text = to_toml(fog)
    assert not {"[task]", "[plan]", "[codec]", "[server]"} & set(text.splitlines())
    assert load(FogFile, text, "/etc/fog.toml", cwd=CWD).value == fog


@runs(deadline=None)  # the machine may be busy
@for_all(st.integers(1, 9), st.integers(1, 4), st.integers(0, 20))
def test_siblings_differ_by_at_most_one_child_and_are_told_how_many_they_have(fogs: int, per_fog: int, more: int) -> None:
    count = fogs * per_fog + more
    text = (
        TEXT.replace("count = 5", f"count = {count}")
        .replace("count = 2", f"count = {fogs}", 1)
        .replace("quorum = 2", "quorum = 1")
    )
    specs = expanded(text)
    sizes = [sum(spec.parent == f"fog-{i}" for spec in specs) for i in range(fogs)]
    told = [spec.settings.window.children for spec in specs if isinstance(spec.settings, FogFile) and spec.tier == "fog"]
    assert told == sizes
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
