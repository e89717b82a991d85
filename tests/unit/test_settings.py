"""Deployment, fog and device files: what they refuse, and the files that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemw.app.settings import SCHEMAS, Deployment, DeviceFile, FogFile, kind_of, load_file, read_text
from edgemw.app.tiers import fan_in, parent_of
from edgemw.core.config.loader import Loaded, load
from edgemw.core.errors import ConfigError

CWD = Path("/home/me")
EXAMPLES = Path(__file__).parents[2] / "examples" / "quickstart"

DEPLOYMENT = """\
name = "net"
[data]
source = "digits"
[window]
k = "all"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
count = 2
[tiers.device]
role = "device"
parent = "fog"
count = 7
"""
DEVICE = """\
net = "net"
[node]
id = "device-0"
parent = "fog-0"
[[data]]
path = "a.npz"
"""
FOG = """\
net = "net"
[node]
id = "fog-0"
"""


def deployment(text: str) -> Loaded[Deployment]:
    return load(Deployment, text, "edgemw.toml", cwd=CWD)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "reason"),
    [
        ('name = "net"', 'name = "Net 1"', 1, "name", "1 to 40"),
        ("count = 2", "count = 0", 11, "tiers.fog.count", "at least 1"),
        ('parent = "top"', 'parent = "tpo"', 10, "tiers.fog.parent", "no tier 'tpo'"),
        ('parent = "top"', 'parent = "fog"', 10, "tiers.fog.parent", "circle: fog -> fog"),
        ('parent = "top"', 'parent = "device"', 10, "tiers.fog.parent", "'device' is a tier of devices"),
        ('role = "fog"\n[tiers.fog]', 'role = "fog"\nparent = "fog"\n[tiers.fog]', 6, "tiers", "no tier is the top"),
        ('parent = "top"\n', "", 8, "tiers.fog", "'top' is the top already"),
        ('role = "fog"\n[tiers.fog]', 'role = "fog"\ncount = 2\n[tiers.fog]', 8, "tiers.top.count", "one top"),
        ('role = "fog"\n[tiers.fog]', 'role = "device"\n[tiers.fog]', 7, "tiers.top.role", "the top tier is a fog"),
        ("[tiers.top]", "[tiers.Top]", 6, "tiers", "not 'Top'"),
        ("[tiers.device]", f"[tiers.{'d' * 40}]", 12, f"tiers.{'d' * 40}", "more than 40"),
        ('k = "all"', "k = 3", 5, "tiers.top.window.k", "3 updates never come: a node of this tier has 2"),
        ('k = "all"', "quorum = 4", 5, "tiers.top.window.quorum", "4 updates never come"),
        ('k = "all"', "k = 2\nquorum = 3", 6, "window.quorum", "closes at k = 2"),
        ("count = 7", "count = 7\nwindow.k = 2", 16, "tiers.device.window", "a device tier has no window"),
        ("count = 2", "count = 2\nserving.keep = 9", 12, "tiers.fog.serving", "a fog tier has no serving"),
        ("count = 2", "count = 2\nuplink.rate = 5", 12, "tiers.fog.uplink", "a fog tier has no uplink"),
        ("count = 7", 'count = 7\nuplink.burst = "1kB"', 16, "tiers.device.uplink.burst", "at least 2KiB"),
        ("count = 2", "count = 9", 8, "tiers.fog", "without children"),
        (
            'role = "fog"\n[tiers.fog]',
            'role = "fog"\n[tiers.idle]\nrole = "fog"\nparent = "top"\n[tiers.fog]',
            8,
            "tiers.idle",
            "no tier has it",
        ),
        ("count = 2", "count = 2\nlimits.max_children = 3", 12, "tiers.fog.limits.max_children", "has 4 children"),
        ("count = 2", 'count = 2\n[[tiers.fog.data]]\npath = "a.npz"', 12, "tiers.fog.data", "a fog tier has no data"),
        ('[data]\nsource = "digits"\n', "", 10, "tiers.device", "no samples: add [data]"),
        ('source = "digits"', 'source = "digits"\npath = "a.npz"', 4, "data.path", "either a source or a path"),
        ('source = "digits"', 'path = "a.csv"', 3, "data.path", "must end in .npz"),
        ('source = "digits"', 'source = "digits"\npartition = "natural"', 4, "data.partition", "does not have this array"),
    ],
)
def test_a_deployment_that_cannot_run_is_refused_at_its_line(old: str, new: str, line: int, key: str, reason: str) -> None:
    assert old in DEPLOYMENT
    with pytest.raises(ConfigError) as caught:
        deployment(DEPLOYMENT.replace(old, new, 1))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert reason in caught.value.reason


def test_two_nodes_of_one_name_are_refused() -> None:
    text = DEPLOYMENT.replace("[tiers.top]", "[tiers.fog-1]").replace('parent = "top"', 'parent = "fog-1"')
    with pytest.raises(ConfigError, match="two nodes would be called 'fog-1'"):
        deployment(text)
    deployment(text.replace("fog-1", "fog-2"))


def test_a_longer_circle_is_named() -> None:
    text = DEPLOYMENT + '[tiers.a]\nrole = "fog"\nparent = "b"\n[tiers.b]\nrole = "fog"\nparent = "a"\n'
    with pytest.raises(ConfigError, match="a -> b -> a"):
        deployment(text)


def test_any_depth_and_a_device_tier_at_any_level() -> None:
    text = DEPLOYMENT.replace('parent = "fog"\ncount = 7', 'parent = "room"\ncount = 12')
    text += '[tiers.room]\nrole = "fog"\nparent = "fog"\ncount = 4\n[tiers.near]\nrole = "device"\nparent = "top"\n'
    value = deployment(text).value
    assert value.top_down == ("top", "fog", "near", "room", "device")
    assert fan_in(value.tiers, "top") == (3, 3)
    assert fan_in(value.tiers, "room") == (3, 3)


def test_children_are_given_out_in_balanced_blocks() -> None:
    assert [parent_of(child, 7, 2) for child in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    assert fan_in(deployment(DEPLOYMENT).value.tiers, "fog") == (3, 4)


def test_a_tier_changes_single_keys_of_a_shared_section() -> None:
    text = DEPLOYMENT.replace('k = "all"', 'deadline = "9s"').replace("count = 2", "count = 2\nwindow.quorum = 2")
    found = deployment(text)
    fog, top = found.value.tiers["fog"].window, found.value.tiers["top"].window
    assert [fog.deadline, fog.quorum, top.deadline, top.quorum] == [9, 2, 9, 1]
    assert found.origin("tiers.fog.window.deadline") == "edgemw.toml:5"


@pytest.mark.parametrize(
    ("cls", "text", "line", "key", "reason"),
    [
        (DeviceFile, DEVICE.replace('parent = "fog-0"\n', ""), 2, "node.parent", "needs a fog"),
        (DeviceFile, DEVICE.replace("a.npz", "a.pkl"), 6, "data.0.path", "must end in .npz"),
        (DeviceFile, DEVICE + 'use = "a:b"', 7, "data.0.use", "either a path or a function"),
        (DeviceFile, DEVICE.replace('path = "a.npz"', ""), 5, "data.0.path", "either a path or a function"),
        (DeviceFile, DEVICE.replace('path = "a.npz"', 'use = "os.system"'), 6, "data.0.use", "package.module:function"),
        (DeviceFile, DEVICE + 'split = "s"\ntest = 0', 8, "data.0.test", "different values"),
        (DeviceFile, DEVICE + '[[data]]\npath = "b.npz"', 7, "data.1.task", "already"),
        (DeviceFile, DEVICE + '[serving]\nhttp = "8080"', 8, "serving.http", '"HOST:PORT"'),
        (DeviceFile, DEVICE + '[serving]\nhttp = ":99999"', 8, "serving.http", '"HOST:PORT"'),
        (DeviceFile, DEVICE + "[window]\nk = 1", 7, "window", "unknown key"),
        (FogFile, FOG + '[broker]\nurl = "embedded"', 5, "broker.url", "deployment files"),
        (FogFile, FOG + '[broker]\nurl = "tcp://a"', 5, "broker.url", "mqtt://host:1883"),
        (FogFile, FOG + '[broker]\nurl = "mqtt://a:99999"', 5, "broker.url", "mqtt://host:1883"),
        (FogFile, FOG + '[broker]\nurl = "mqtt://a,mqtts://b"', 5, "broker.url", "for every address"),
        (FogFile, FOG + '[broker]\npassword = { env = "P" }', 5, "broker.password", "without broker.username"),
        (FogFile, FOG + '[broker]\nurl = "mqtts://a"\n[broker.tls]\ncert = "c"', 7, "broker.tls.cert", "go together"),
        (FogFile, FOG + '[broker]\ntls = { ca = "c" }', 5, "broker.tls.ca", "mqtts://"),
        (FogFile, FOG + 'parent = "top"\n[plan]\nlr = 0.1', 5, "plan", "decided by the top"),
        (FogFile, "schema = 2\n" + FOG, 1, "schema", "expected 1"),
    ],
)
def test_a_node_file_that_cannot_work_is_refused_at_its_line(
    cls: type[DeviceFile | FogFile], text: str, line: int, key: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(cls, text, "node.toml", cwd=CWD)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert reason in caught.value.reason


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(FogFile, FOG + '[broker]\nurl = "mqtt://me:hunter2@a"', "fog.toml", cwd=CWD)
    assert "hunter2" not in str(caught.value)


def test_the_servers_of_a_cluster_stand_in_one_address() -> None:
    text = FOG + '[broker]\nurl = "mqtts://a, mqtts://b:8884"\ntls = { ca = "ca.pem" }'
    assert load(FogFile, text, "fog.toml", cwd=CWD).value.broker.url == "mqtts://a, mqtts://b:8884"


def test_the_kind_of_a_file_is_seen_from_its_content() -> None:
    assert kind_of(DEPLOYMENT, "f") == "deployment"
    assert kind_of(DEVICE, "f") == "device"
    assert kind_of(FOG, "f") == "fog"
    assert kind_of(FOG + 'parent = "top"\n[window]\nk = 1', "f") == "fog"
    assert kind_of(FOG + 'parent = "top"', "f") == "device"
    assert kind_of("", "f") == "fog"


@pytest.mark.parametrize(("file", "kind"), [("edgemw.toml", "deployment"), ("device.toml", "device"), ("fog.toml", "fog")])
def test_the_examples_load(file: str, kind: str) -> None:
    path = EXAMPLES / file
    found = kind_of(read_text(path), str(path))
    assert found == kind
    load_file(SCHEMAS[found], path, env={})


def test_the_quickstart_is_one_top_two_fogs_and_eight_devices() -> None:
    value = load_file(Deployment, EXAMPLES / "edgemw.toml", env={}).value
    assert {name: tier.count for name, tier in value.tiers.items()} == {"top": 1, "fog": 2, "device": 8}
    assert value.data is not None
    assert (value.data.source, value.data.partition, value.data.alpha, value.data.seed) == ("digits", "dirichlet", 0.3, 1)


def test_environment_names_of_other_files_are_left_alone() -> None:
    value = load_file(DeviceFile, EXAMPLES / "device.toml", env={"EDGEMW_WINDOW__K": "2", "EDGEMW_TIERS__FOG__COUNT": "2"}).value
    assert value.node.id == "device-0"
    with pytest.raises(ConfigError, match="EDGEMW_NODE__ID"):
        load_file(DeviceFile, EXAMPLES / "device.toml", env={"EDGEMW_NODE__IDD": "a"})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_text(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_text(tmp_path / "latin.toml")


def test_the_uplink_of_a_deployment_is_that_of_its_devices() -> None:
    text = DEPLOYMENT.replace("[tiers.top]", '[uplink]\nrate = "2kB"\nmax_upload = "1s"\n[tiers.top]')
    settings = deployment(text.replace("count = 7", 'count = 7\nuplink.burst = "5kB"'))
    uplink = settings.value.tiers["device"].uplink
    assert (uplink.rate, uplink.burst, uplink.max_upload) == (2000, 5000, 1.0)
