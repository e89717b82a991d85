"""The files of a broker that follow from a deployment: `tests/system/test_authority.py` attacks them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from edgemw.app.access import access_rules, users_of
from edgemw.app.broker import own_client_id
from edgemw.app.deployment import expand, load_deployment
from edgemw.app.identities import check_identities
from edgemw.app.places import MONITOR, for_node
from edgemw.app.rule_languages import mosquitto
from edgemw.app.rules import SHIPPED
from edgemw.app.settings import Broker, Deployment, DeviceFile, FogFile, Tls, load_file
from edgemw.cli.check import check
from edgemw.cli.main import main
from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id
from edgemw.transport.filters import overlap
from edgemw.wire.topics import CHANNELS, build

TREE = """schema = 1
name = "n"
[data]
source = "digits"
[tiers.top]
role = "fog"
[tiers.region]
role = "fog"
parent = "top"
count = 2
[tiers.site]
role = "fog"
parent = "region"
count = 4
[tiers.device]
role = "device"
parent = "site"
count = 8
"""


def deployment(tmp_path: Path, text: str = TREE, *overrides: str) -> Deployment:
    path = tmp_path / "edgemw.toml"
    path.write_text(text)
    return load_deployment(path, None, {}, overrides)


# ----------------------------------------------------------------------------------------------------------------- rules


def test_every_channel_has_somebody_who_writes_it_and_somebody_who_reads_it(tmp_path: Path) -> None:
    """A channel that is added has to have a place in the rules."""
    settings = deployment(tmp_path, TREE.replace('parent = "site"', 'parent = "site"\nserving = { mqtt = true }'))
    rules = access_rules(settings)
    for channel in CHANNELS:
        topic = build("n", "+", channel.name, **dict.fromkeys(channel.places, "+"))
        for way in ("write", "read"):
            assert any(overlap(topic, each) for rights in rules.users.values() for each in getattr(rights, way)), (channel, way)


def test_no_rule_of_a_device_leaves_a_name_open_where_one_is_written(tmp_path: Path) -> None:
    rules = access_rules(deployment(tmp_path))
    for name, rights in rules.users.items():
        if name.startswith("device"):
            assert all(f"/{name}" in topic for topic in rights.write)
            assert all(topic.startswith(("em1/n/site-", f"em1/n/{name}/")) for topic in (*rights.write, *rights.read))


def test_a_fog_node_asks_the_domains_below_it_and_no_others(tmp_path: Path) -> None:
    users = access_rules(deployment(tmp_path)).users
    asked = {name: {t.split("/")[2] for t in rights.write if t.endswith(f"rq/status/{name}")} for name, rights in users.items()}
    assert asked["top"] == asked[MONITOR] == {"+"}
    assert asked["region-0"] == {"region-0", "site-0", "site-1"}
    assert asked["site-3"] == {"site-3"}
    assert asked["device-0"] == asked["author"] == set()


def test_the_file_grows_with_the_fleet_and_no_faster(tmp_path: Path) -> None:
    sizes = {}
    for count in (1000, 2000):
        settings = deployment(
            tmp_path, TREE, "tiers.site.count=20", "tiers.site.limits.max_children=4096", f"tiers.device.count={count}"
        )
        sizes[count] = len(mosquitto(access_rules(settings), ""))
    assert (sizes[2000] - sizes[1000]) / 1000 < 600  # bytes for a device


def test_names_of_users_are_not_those_of_nodes(tmp_path: Path) -> None:
    for name in ("monitor", "author"):
        text = TREE.replace("tiers.top", f"tiers.{name}").replace('"top"', f'"{name}"')
        with pytest.raises(ConfigError, match="rename the tier") as refused:
            access_rules(deployment(tmp_path, text))
        assert refused.value.key == f"tiers.{name}"
    for asker in ("device-0", "monitor"):
        with pytest.raises(ConfigError, match="already"):
            access_rules(deployment(tmp_path), [asker])


def test_a_node_that_has_moved_may_finish_with_its_former_parent(tmp_path: Path) -> None:
    settings = deployment(tmp_path)
    update, answer = (build("n", "site-3", channel, node="device-0", task="+") for channel in ("update", "reply"))
    assert update not in access_rules(settings).users["device-0"].write
    rights = access_rules(settings, moved=[("device-0", "site-3")]).users["device-0"]
    assert update in rights.write
    assert answer in rights.read
    assert build("n", "site-0", "update", node="device-0", task="+") in rights.write
    for pair in (("device-0", "nowhere"), ("nobody", "site-0")):
        with pytest.raises(ConfigError, match="there is no node"):
            access_rules(settings, moved=[pair])


def test_everybody_who_connects_has_a_name_that_a_certificate_can_hold(tmp_path: Path) -> None:
    users = users_of(deployment(tmp_path), ["kiosk"])
    assert set(users) >= {"top", "region-1", "site-3", "device-7", "kiosk", "author", "monitor"}
    assert all(map(valid_id, users))
    assert len(users) == len(set(users)) == 15 + 3


# ----------------------------------------------------------------------------------------------------------------- files


def config(tmp_path: Path, kind: str, *flags: str) -> Path:
    (tmp_path / "edgemw.toml").write_text(TREE)
    out = tmp_path / kind
    assert main(["broker", "config", str(tmp_path / "edgemw.toml"), "--for", kind, "--out", str(out), *flags]) == 0
    return out


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mosquitto", {"mosquitto.conf": "mosquitto/mosquitto.conf", "conf.d/listener.conf": "mosquitto/tls/listener.conf"}),
        ("emqx", {"base.hocon": "emqx/base.hocon"}),
        ("nanomq", {"nanomq.conf": "nanomq/nanomq.conf"}),
    ],
)
def test_the_configuration_is_the_one_that_is_shipped_but_for_where_it_listens(
    tmp_path: Path, kind: str, names: dict[str, str]
) -> None:
    plain = config(tmp_path, kind)
    for name, shipped in names.items():
        assert (plain / name).read_text() == (SHIPPED / shipped).read_text()
    elsewhere = config(tmp_path, kind, "--port", "9883", "--listen", "192.0.2.1")
    changed = [
        (old, new)
        for name, shipped in names.items()
        for old, new in zip(
            (SHIPPED / shipped).read_text().splitlines(), (elsewhere / name).read_text().splitlines(), strict=True
        )
        if old != new
    ]
    assert len(changed) == 1
    assert "9883" in changed[0][1]
    assert "192.0.2.1" in changed[0][1]


def test_emqx_and_nanomq_have_the_same_rules(tmp_path: Path) -> None:
    settings = deployment(tmp_path)
    meant = {name: (set(rights.write), set(rights.read)) for name, rights in access_rules(settings).users.items()}
    emqx = (config(tmp_path, "emqx") / "acl.conf").read_text()
    found: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in meant}
    for name, verb, topics in re.findall(r'\{allow, \{username, "([^"]+)"\}, (publish|subscribe), \[\n(.*?)\n\]\}\.', emqx, re.S):
        found[name][verb == "subscribe"].update(json.loads(f"[{topics}]"))
    assert found == meant
    assert emqx.endswith("{deny, all}.\n")
    assert sorted(path.name for path in (tmp_path / "emqx").iterdir()) == ["acl.conf", "base.hocon"]
    nanomq = json.loads((config(tmp_path, "nanomq") / "acl.conf").read_text().split("rules = ")[1])
    found = {name: (set(), set()) for name in meant}
    for rule in nanomq[:-1]:
        found[rule["username"]][rule["action"] == "subscribe"].update(rule["topics"])
    assert found == meant
    assert nanomq[-1] == {"permit": "deny"}


def test_room_for_connections_grows_with_the_fleet(tmp_path: Path) -> None:
    out = config(tmp_path, "mosquitto", "--set", "tiers.device.count=4000", "--set", "limits.max_children=4096")
    assert "max_connections 8018" in (out / "conf.d/listener.conf").read_text().splitlines()


def test_what_a_later_command_writes_leaves_the_state_and_own_files_alone(tmp_path: Path) -> None:
    out = config(tmp_path, "mosquitto")
    for name in ("state/mosquitto.db", "conf.d/own.conf"):
        (out / name).write_text("mine")
    config(tmp_path, "mosquitto")
    assert {(out / name).read_text() for name in ("state/mosquitto.db", "conf.d/own.conf")} == {"mine"}
    assert (out / "acl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "0x"], None),
        (["--port", "70000"], "--port"),
        (["--listen", "a b"], "--listen"),
        (["--asker", "A"], "--asker"),
        (["--moved", "device-0"], "--moved"),
        (["--moved", "device-0=x"], "there is no node 'x'"),
        (["--pki", "nowhere"], "edgemw pki issue DIR --broker"),
        (["--set", "tiers.device.count=0"], "tiers.device.count"),
    ],
)
def test_refusals_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str | None) -> None:
    (tmp_path / "edgemw.toml").write_text(TREE)
    command = ["broker", "config", str(tmp_path / "edgemw.toml"), "--for", "mosquitto", "--out", str(tmp_path / "out"), *flags]
    if says is None:
        with pytest.raises(SystemExit):
            main(command)
    else:
        assert main(command) == 3
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broker_that_nodes_reach_by_another_name_than_it_shows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, pki = tmp_path / "edgemw.toml", tmp_path / "pki"
    file.write_text(TREE + '[broker]\nurl = "mqtts://mqtt.example:9000"\n')
    assert main(["pki", "init", str(pki), "--host", "localhost"]) == 0
    command = ["broker", "config", str(file), "--for", "mosquitto", "--pki", str(pki), "--out", str(tmp_path / "out")]
    assert main(command) == 3
    assert "not for mqtt.example" in capsys.readouterr().err
    assert main(["pki", "issue", str(pki), "--broker", "--host", "mqtt.example", "--renew"]) == 0
    assert main(command) == 0
    assert "listener 9000" in (tmp_path / "out/conf.d/listener.conf").read_text().splitlines()
    for name in ("ca.crt", "server.crt", "server.key", "crl.pem"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("out", ["pki", "pki/broker", "."])
def test_files_of_the_broker_are_not_put_where_the_authority_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edgemw.toml").write_text(TREE)
    assert main(["pki", "init", "pki", "--host", "localhost"]) == 0
    before = sorted(tmp_path.rglob("*"))
    assert main(["broker", "config", "edgemw.toml", "--for", "mosquitto", "--pki", "pki", "--out", out]) == 3
    assert "--out: the broker's user is to own this folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_that_root_replaces_stay_those_of_the_brokers_user(tmp_path: Path) -> None:
    file, out = tmp_path / "edgemw.toml", tmp_path / "out"
    file.write_text(TREE)
    command = ["broker", "config", str(file), "--for", "mosquitto", "--out", str(out)]
    assert main(command) == 0
    assert out.stat().st_uid == 0
    for path in (out, *out.rglob("*")):
        os.chown(path, 65534, 65533)
    (out / "acl").unlink()
    assert main(command) == 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (out, *out.rglob("*"))} == {(65534, 65533)}


# ---------------------------------------------------------------------------------------------------------------- {node}

IDENTITIES = """[broker]
url = "mqtts://localhost:8883"
tls = { ca = "pki/{node}/ca.pem", cert = "pki/{node}/cert.pem", key = "pki/{node}/key.pem" }
"""


def test_every_node_has_its_own_place(tmp_path: Path) -> None:
    settings = deployment(tmp_path, TREE + IDENTITIES)
    paths = {f"device-{number}": tmp_path / f"{number}.npz" for number in range(8)}
    for spec in expand(settings, "", tmp_path / "nodes", paths):
        folder = tmp_path / "pki" / spec.id
        assert spec.settings.broker.tls == Tls(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
        spec.path.parent.mkdir(exist_ok=True)
        spec.path.write_text(spec.text)
        assert load_file(type(spec.settings), spec.path, env={}).value == spec.settings


def test_names_and_passwords_have_places_too(tmp_path: Path) -> None:
    login = '[broker]\nurl = "mqtts://localhost"\nusername = "{node}"\npassword = { file = "{node}.pass" }\n'
    broker = for_node(deployment(tmp_path, TREE + login).broker, "device-0")
    assert broker.password is not None
    assert (broker.username, broker.password.file, broker.password.beside) == ("device-0", "device-0.pass", str(tmp_path))


@pytest.mark.parametrize("cls", [DeviceFile, FogFile])
def test_the_file_of_one_node_has_no_such_place(tmp_path: Path, cls: type[DeviceFile | FogFile]) -> None:
    path = tmp_path / "node.toml"
    path.write_text('schema = 1\nnet = "n"\n[node]\nid = "device-0"\nparent = "top"\n' + IDENTITIES)
    with pytest.raises(ConfigError, match=r"\{node\} is for deployment files") as refused:
        load_file(cls, path, env={})
    assert refused.value.key == "broker.tls.ca"


def test_a_node_without_its_files_is_told_of_before_anything_starts(tmp_path: Path) -> None:
    settings = deployment(tmp_path, TREE + IDENTITIES)
    with pytest.raises(ConfigError, match=r"pki/monitor/ca.pem, nor 15 others") as refused:
        check_identities(settings)
    assert refused.value.key == "broker.tls.ca"
    warnings = check(tmp_path / "edgemw.toml", None, [], {}).warnings
    assert [w for w in warnings if "{node}" in w] == []
    assert len([w for w in warnings if "edgemw pki issue" in w]) == 3
    for name in users_of(settings):
        (tmp_path / "pki" / name).mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (tmp_path / "pki" / name / file).touch(mode=0o600)
    check_identities(settings)
    assert not [w for w in check(tmp_path / "edgemw.toml", None, [], {}).warnings if "pki" in w]
    (tmp_path / "pki/site-1/key.pem").chmod(0o644)
    assert [w for w in check(tmp_path / "edgemw.toml", None, [], {}).warnings if "pki/site-1/key.pem can be read by others" in w]
    (tmp_path / "pki/site-1/key.pem").unlink()
    with pytest.raises(ConfigError, match=r"pki/site-1/key.pem"):
        check_identities(settings)


def test_a_client_id_follows_from_the_key_and_cannot_be_guessed_without_it(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(b"one key")
    (tmp_path / "b.key").write_bytes(b"another")
    one, other = (Broker(url="mqtts://x", tls=Tls(cert=tmp_path / "x", key=tmp_path / f"{name}.key")) for name in ("a", "b"))
    assert own_client_id("n", "device-0", Broker()) == "em1-n-device-0"
    assert re.fullmatch("em1-n-device-0-[0-9a-f]{16}", own_client_id("n", "device-0", one))
    assert own_client_id("n", "device-0", one) == own_client_id("n", "device-0", one) != own_client_id("n", "device-0", other)
    with pytest.raises(ConfigError, match=r"c.key"):
        own_client_id("n", "device-0", Broker(url="mqtts://x", tls=Tls(cert=tmp_path / "x", key=tmp_path / "c.key")))
