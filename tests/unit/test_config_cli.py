"""`edgemw check` and `edgemw config`: what they print and how they end."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from edgemw.cli import check, config
from edgemw.cli.main import COMMANDS, main
from tests.support.world import toy_bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart" / "edgemw.toml"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EDGEMW_")]:
        monkeypatch.delenv(name)


def with_bundle(folder: Path) -> Path:
    """The example beside a bundle of 50 000 parameters."""
    (folder / "digits.edge").write_bytes(toy_bundle(50_000).to_bytes())
    path = folder / "edgemw.toml"
    path.write_text(EXAMPLE.read_text())
    return path


def edgemw(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="edgemw")
    commands = parser.add_subparsers(required=True)
    check.add_parser(commands)
    config.add_parser(commands)
    args = parser.parse_args(words)
    code = args.run(args)
    assert isinstance(code, int)
    return code


def test_check_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE)) == 0
    printed = capsys.readouterr().out
    for words in (
        "1 fog, 2 children, closes",
        "2 fogs, 4 children each",
        "8 devices",
        "digits, dirichlet alpha 0.3",
        "60 rounds",
        "lattice, kappa 16",
    ):
        assert words in printed


def test_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["kind"], document["facts"]["nodes"]) == (True, "deployment", "11")
    assert edgemw("check", str(EXAMPLE), "--json", "--set", "codec.kapa=2") == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["key"], error["suggestion"]) == ("codec.kapa", "codec.kappa")


def test_check_refuses_with_place_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgemw.toml"
    path.write_text(EXAMPLE.read_text().replace("count = 8", "cuont = 8"))
    assert edgemw("check", str(path)) == 3
    assert "tiers.device.cuont: unknown key (did you mean 'count'?)" in capsys.readouterr().err
    assert edgemw("check", str(tmp_path / "none.toml")) == 3
    assert "cannot be read" in capsys.readouterr().err


def test_check_opens_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgemw.toml"
    path.write_text(EXAMPLE.read_text())
    assert edgemw("check", str(path)) == 0
    assert "task.bundle: there is no file" in capsys.readouterr().err
    (tmp_path / "digits.edge").write_bytes(EXAMPLE.with_name("digits.edge").read_bytes()[:-100])
    assert edgemw("check", str(path)) == 3
    line = path.read_text().splitlines().index('bundle = "digits.edge"      # the compiled model, beside this file') + 1
    assert f"{path}:{line}: task.bundle: {tmp_path / 'digits.edge'}: not a task bundle" in capsys.readouterr().err


FOG = 'net = "n"\n[node]\nid = "a"\n[task]\nbundle = "a.edge"\n[plan]\nsteps = 2\nepochs = 2\n'
BROKER = """\
[broker]
url = "mqtts://far"
username = "u"
password = { file = "pass" }
tls = { cert = "key.pem", key = "key.pem" }
"""


def test_check_warns_about_what_is_allowed_but_odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fog.toml"
    (tmp_path / "key.pem").touch(0o644)
    (tmp_path / "pass").touch(0o644)
    path.write_text(f"{FOG}{BROKER}")
    assert edgemw("check", str(path)) == 0
    warnings = capsys.readouterr().err
    for words in ("there is no file", "plan.epochs: not used", "broker.password", "broker.tls.key"):
        assert words in warnings
    assert warnings.count("chmod 600") == 2
    assert edgemw("check", str(path), "--deny-warnings", "--json") == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["codec.use=gzip"], "no codec 'gzip'; known: lattice, "),
        (["codec.use=topk", "codec.parameters={density = 0.1}"], "codec 'topk' has no parameter 'density'; its parameters: k"),
        (["codec.use=topk", "codec.parameters={k = 2.0}"], "2.0"),
        (["codec.parameters={golomb = 1}"], "codec 'lattice'"),
        (["codec.parameters={steps = 'cubic'}"], "steps = 'cubic' is none of free, dyadic"),
        (["codec.parameters={kappa = 3}"], "codec.parameters: kappa is a key of its own, codec.kappa"),
        (["codec.use=lanes", "codec.parameters={bits = 3}"], "members = 16: lanes of 3 bits add 3 at most"),
    ],
)
def test_check_refuses_a_codec_or_parameter_that_does_not_exist(
    settings: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edgemw("check", str(EXAMPLE), *(word for setting in settings for word in ("--set", setting))) == 3
    printed = capsys.readouterr().err
    assert words in printed
    assert "codec." in printed


def test_check_refuses_to_take_late_updates_whole_where_fog_nodes_weigh_them(capsys: pytest.CaptureFixture[str]) -> None:
    dyadic = ["--set", "codec.parameters={steps = 'dyadic'}"]
    assert edgemw("check", str(EXAMPLE), *dyadic) == 0
    assert edgemw("check", str(EXAMPLE), *dyadic, "--set", "server.staleness=none") == 3
    assert "server.staleness" in capsys.readouterr().err


def test_check_refuses_a_codec_that_a_device_cannot_afford(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_bundle(tmp_path)
    words = ["--set", "codec.use=dense", "--set", "limits.max_update_bytes=100kB"]
    assert edgemw("check", str(path), *words) == 3
    assert "an update of this task takes 200005 bytes in dense, more than the 100000 of tiers." in capsys.readouterr().err
    assert edgemw("check", str(path), *words, "--set", "codec.use=lattice") == 0


def test_check_refuses_a_codec_whose_sums_are_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_bundle(tmp_path)
    words = ["--set", "codec.use=signsgd", "--set", "limits.max_update_bytes=100kB"]
    assert edgemw("check", str(path), *words) == 3
    assert (
        "a sum of updates of this task takes 200005 bytes in signsgd, more than the 100000 of tiers." in capsys.readouterr().err
    )
    flat = '[tiers.top]\nrole = "fog"\n[tiers.device]\nrole = "device"\nparent = "top"\ncount = 4\n'
    path.write_text('schema = 1\nname = "n"\n[data]\nsource = "digits"\n[task]\nbundle = "digits.edge"\n' + flat)
    assert edgemw("check", str(path), *words) == 0


def test_check_refuses_a_codec_that_the_top_itself_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fog.toml"
    path.write_text('schema = 1\nnet = "n"\n[node]\nid = "top"\n[task]\nbundle = "digits.edge"\n')
    (tmp_path / "digits.edge").write_bytes(toy_bundle(50_000).to_bytes())
    words = ["--set", "codec.use=dense", "--set", "limits.max_update_bytes=100kB"]
    assert edgemw("check", str(path), *words) == 3
    assert "takes 200005 bytes in dense, more than the 100000 of limits.max_update_bytes" in capsys.readouterr().err


def test_check_refuses_patterns_that_do_not_fit_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgemw.toml"
    path.write_text(EXAMPLE.read_text() + '\n[plan]\npersonal = ["4.*"]\nfrozen = ["0.wieght"]\n')
    (tmp_path / "digits.edge").write_bytes(EXAMPLE.with_name("digits.edge").read_bytes())
    assert edgemw("check", str(path)) == 3
    line = len(path.read_text().splitlines())
    said = capsys.readouterr().err
    assert f"{path}:{line}: plan.frozen: '0.wieght' matches no tensor of the task (did you mean '0.weight'?)" in said
    assert edgemw("check", str(path), "--set", "plan.frozen=['9.*']") == 3
    assert "'9.*' matches no tensor of the task: it has 0.weight, 0.bias, 2.weight," in capsys.readouterr().err
    path.write_text(path.read_text().replace("wieght", "weight"))
    assert edgemw("check", str(path)) == 0
    assert "personal 4.*, frozen 0.weight" in capsys.readouterr().out


@pytest.mark.parametrize("value", ['["a b"]', '[""]', '"head.*"', f'["{"x" * 1001}"]'])
def test_check_refuses_what_is_no_pattern(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE), "--set", f"plan.personal={value}") == 3
    assert "plan.personal" in capsys.readouterr().err


def test_check_warns_where_fog_nodes_would_have_to_decode(capsys: pytest.CaptureFixture[str]) -> None:
    for use, warned in (("qsgd", True), ("topk", False), ("lattice", False)):
        assert edgemw("check", str(EXAMPLE), "--set", f"codec.use={use}") == 0
        assert ("adds by decoding" in capsys.readouterr().err) == warned


def test_check_warns_about_an_open_broker_and_lonely_quorums(capsys: pytest.CaptureFixture[str]) -> None:
    edgemw(
        "check", str(EXAMPLE), "--set", "broker.url=mqtt://far", "--set", "tiers.fog.window.quorum=1", "--set", "window.quorum=2"
    )
    warnings = capsys.readouterr().err
    for words in ("use mqtts://", "whoever reaches far", "a single update of 4", "one lost child of 2"):
        assert warnings.count(words) == 1


def test_check_warns_of_every_server_of_a_cluster_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    edgemw("check", str(EXAMPLE), "--set", "broker.url=mqtt://far,mqtt://127.0.0.1,mqtt://further,mqtt://far")
    warnings = capsys.readouterr().err
    assert warnings.count("sent to far, further can be read") == 1
    assert warnings.count("an address stands there twice") == 1


def test_check_warns_about_children_that_never_come(capsys: pytest.CaptureFixture[str]) -> None:
    edgemw("check", str(EXAMPLE), "--set", "tiers.fog.window.children=5")
    assert "tiers.fog.window.children: a node of this tier has 4" in capsys.readouterr().err


def test_check_of_node_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE.with_name("device.toml"))) == 0
    assert "device-0.npz (not found)" in capsys.readouterr().out
    assert edgemw("check", str(EXAMPLE.with_name("fog.toml"))) == 0
    assert "none: this is the top" in capsys.readouterr().out
    assert edgemw("check", str(EXAMPLE.with_name("fog.toml")), "--kind", "device") == 3


def test_explain_a_key_and_a_section(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EDGEMW_WINDOW__K", "2")
    assert edgemw("config", "explain", "window.k", "--config", str(EXAMPLE)) == 0
    printed = capsys.readouterr().out
    for words in ("window.k = 2", "environment EDGEMW_WINDOW__K", "at least 1", 'default  "all"'):
        assert words in printed
    monkeypatch.setenv("EDGEMW_CONFIG", str(EXAMPLE))
    assert edgemw("config", "explain", "window", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["window.deadline"]["value"] == '"10s"'
    assert document["window.deadline"]["origin"].startswith(str(EXAMPLE))


def test_explain_refuses_what_is_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("config", "explain", "window.dedline", "--config", str(EXAMPLE)) == 3
    assert "window.deadline" in capsys.readouterr().err
    assert edgemw("config", "explain", "window.k") == 3
    assert "EDGEMW_CONFIG" in capsys.readouterr().err


def test_show_prints_every_key_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pass").write_text("hunter2")
    path = tmp_path / "fog.toml"
    path.write_text('net = "n"\n[node]\nid = "a"\n[broker]\nusername = "u"\npassword = { file = "pass" }\n')
    assert edgemw("config", "show", "--config", str(path), "--set", "window.k=3") == 0
    printed = capsys.readouterr().out
    assert "hunter2" not in printed
    assert 'password = { file = "pass"' in printed
    lines = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in printed.splitlines()}
    assert (lines["window.k"], lines["node.id"], lines["codec.kappa"]) == ("flag", f"{path}:3", "default")


NODE_FILES = [path for path in sorted(EXAMPLE.parents[1].glob("*/*.toml")) if path.name != "streams.toml"]


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_show_prints_every_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("config", "show", "--config", str(path)) == 0
    assert "schema = 1" in capsys.readouterr().out


def test_check_knows_a_file_of_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLE.parents[1] / "household" / "streams.toml"
    assert edgemw("check", str(path)) == 0
    assert "meters  meters/+: energy x 672 -> household -> forecast/{topic}" in capsys.readouterr().out
    wrong = tmp_path / "streams.toml"
    wrong.write_text(path.read_text().replace("window = 672", "window = 0"))
    assert edgemw("check", str(wrong)) == 3
    assert f"{wrong}:7: stream.0.window" in capsys.readouterr().err
    assert edgemw("check", str(path), "--set", "stream.window=1") == 3
    assert "--set" in capsys.readouterr().err


def test_explain_opens_a_tier(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("config", "explain", "tiers.fog", "--config", str(EXAMPLE)) == 0
    assert "tiers.fog.window.quorum = 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [*COMMANDS, "config show", "config explain", "bench codec", "task publish", "task show", "profile list", "profile show"],
)
def test_help_ends_with_examples(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words.split(), "--help"])
    examples = capsys.readouterr().out.rpartition("examples:\n")
    assert examples[1], "there are none"
    assert examples[2].count(f"edgemw {words.split()[0]}") >= 2


def test_check_refuses_a_budget_of_a_fog_whose_remainder_could_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    budget = ["--set", "tiers.fog.window.budget=2kB"]
    assert edgemw("check", str(EXAMPLE), *budget) == 3
    assert "tiers.fog.window.budget: needs updates that add across releases" in capsys.readouterr().err
    assert edgemw("check", str(EXAMPLE), *budget, "--set", "codec.parameters={steps = 'dyadic'}") == 0
    assert edgemw("check", str(EXAMPLE), "--set", "tiers.fog.window.budget=10B") == 3
    assert "give 64 bytes or more" in capsys.readouterr().err


def test_check_refuses_a_burst_that_an_update_never_fits_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_bundle(tmp_path)
    words = ["--set", "codec.use=dense", "--set", "uplink.rate=2kB"]
    assert edgemw("check", str(path), *words) == 3
    printed = capsys.readouterr().err
    assert "an update of this task takes 200005 bytes in dense, more than the 12000 of tiers." in printed
    assert ".uplink.burst" in printed
    assert edgemw("check", str(path), *words, "--set", "uplink.burst=1MB") == 0
    assert edgemw("check", str(path), *words, "--set", "codec.use=lattice", "--set", "uplink.max_upload=1s") == 0
    printed = capsys.readouterr().out
    assert "uplink 2kB per second, at most 12kB at once; an upload takes at most 1s" in printed


def test_check_warns_of_a_cap_that_the_codec_cannot_keep(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE), "--set", "codec.use=topk", "--set", "uplink.max_upload=1s") == 0
    assert "uplink.max_upload: not used, since topk cannot be made coarser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("devices", "parameters", "hint"),
    [
        (17, "{}", "members would wrap in sums over 17 devices: give members = 17 with bits = 8"),
        (128, "{ members = 127 }", "give members = 128 with bits = 9"),
        (40_000, "{ bits = 16, members = 32767 }", "use codec lattice"),
    ],
)
def test_check_refuses_lanes_that_the_sum_of_all_devices_could_wrap(
    devices: int, parameters: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes = [EXAMPLE.as_posix(), "--set", "codec.use=lanes", "--set", f"codec.parameters={parameters}"]
    lanes += ["--set", "limits.max_children=100000", "--set", f"tiers.device.count={devices}"]
    assert edgemw("check", *lanes) == 3
    said = capsys.readouterr().err
    assert "codec.parameters: lanes of" in said
    assert hint in said


def test_the_lanes_that_check_asks_for_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    lanes = ["--set", "codec.use=lanes", "--set", "codec.parameters={ members = 128, bits = 9 }"]
    assert edgemw("check", str(EXAMPLE), *lanes, "--set", "tiers.device.count=128") == 0
    assert "lanes, members 128, bits 9" in capsys.readouterr().out


def test_check_refuses_lanes_that_never_fit_a_burst(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "codec.use=lanes", "--set", "uplink.rate=2kB", "--set"]
    assert edgemw("check", str(EXAMPLE), *words, "uplink.burst=5kB") == 3
    assert "takes 5098 bytes in lanes, more than the 5000 of tiers.device.uplink.burst" in capsys.readouterr().err
    assert edgemw("check", str(EXAMPLE), *words, "uplink.burst=6kB") == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["plan.rare_every=3"], "plan.rare_every: not used, since plan.rare names no tensor"),
        (["plan.rare_every=3", "plan.rare=['0.*']"], ""),
        (["codec.use=topk", "codec.kappa=3"], "codec.kappa: not used, since topk has no step"),
        (["codec.use=topk"], ""),
        (["codec.use=lanes", "codec.kappa=3"], ""),
        (["release.use=dense", "release.kappa=3"], "release.kappa: not used, since release.use is dense"),
        (["uplink.burst=4kB"], "tiers.device.uplink.burst: not used, since there is no tiers.device.uplink.rate"),
        (["uplink.burst=4kB", "uplink.rate=1kB"], ""),
        (["tiers.top.window.budget=1kB"], "tiers.top.window.budget: not used, since the top sends nothing up"),
        (["window.budget=1kB", "codec.parameters={steps = 'dyadic'}"], ""),
        (["plan.personal=['4.*']"], "plan.personal: data.partition dirichlet deals out test samples at random"),
    ],
)
def test_check_warns_of_what_changes_nothing(settings: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE), *(word for setting in settings for word in ("--set", setting))) == 0
    said = capsys.readouterr().err
    assert words in said
    assert bool(said) == bool(words)


def test_check_warns_of_what_changes_nothing_in_node_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE.with_name("device.toml")), "--set", "uplink.burst=4kB") == 0
    assert "uplink.burst: not used, since there is no uplink.rate" in capsys.readouterr().err
    assert edgemw("check", str(EXAMPLE.with_name("fog.toml")), "--set", "window.budget=4kB") == 0
    assert "window.budget: not used, since the top sends nothing up" in capsys.readouterr().err


def test_check_shows_the_budget_of_a_tier(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "codec.parameters={steps = 'dyadic'}", "--set", "tiers.fog.window.budget=600B"]
    assert edgemw("check", str(EXAMPLE), *words) == 0
    printed = capsys.readouterr().out
    assert "with 2, sends at most 600B up" in printed
    assert "lattice, kappa 16, steps dyadic" in printed


def test_check_says_whose_joules_are_counted_and_who_gets_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    device = str(EXAMPLE.with_name("device.toml"))
    assert edgemw("check", device) == 0
    printed = capsys.readouterr().out
    assert "of this machine, its class is detected, looked at every 1s" in printed
    assert "told to the parent every 15s" in printed
    words = ["node.profile=raspberry-pi-4b", "energy.scope=process", "energy.budget=3", "telemetry.publish=0s"]
    assert edgemw("check", device, *(part for word in words for part in ("--set", word))) == 0
    printed = capsys.readouterr().out
    assert "of this node alone, class raspberry-pi-4b, looked at every 1s, at most 3 W" in printed
    assert "told to the parent" not in printed
    assert edgemw("check", str(EXAMPLE), "--set", "tiers.device.profile=raspberry-pi-4b") == 0
    assert "8 devices of class raspberry-pi-4b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["node.profile=raspberry-pi-9"], "did you mean"),
        (["node.profile=my.toml"], "my.toml: cannot be read"),
        (["energy.sources=['solar']"], "there is no source 'solar'"),
        (["energy.sources=['rapl', 'rapl']"], "names a source twice"),
        (["energy.budget=-1"], "at least 0"),
        (["energy.interval=5m"], "at most 1m"),
        (["energy.interval=1ms"], "at least 100ms"),
        (["telemetry.publish=10ms"], "at least 1s"),
        (["telemetry.advertise=192.0.2.7:9108", "telemetry.http="], "there is nothing to reach"),
        (["telemetry.advertise=192.0.2.7:9108", "telemetry.publish=0s"], "must not be 0s"),
        (["telemetry.targets=targets.json"], "nobody below it"),
    ],
)
def test_check_refuses_telemetry_that_cannot_work(settings: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    device = str(EXAMPLE.with_name("device.toml"))
    assert edgemw("check", device, *(part for setting in settings for part in ("--set", setting))) == 3
    assert reason in capsys.readouterr().err


def test_check_warns_of_classes_on_which_edgemw_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "node.profile=esp32", "--set", "energy.interval=0s", "--set", "energy.budget=2"]
    assert edgemw("check", str(EXAMPLE.with_name("device.toml")), *words) == 0
    said = capsys.readouterr().err
    assert "node.profile: edgemw does not run on esp32" in said
    assert "energy.budget: not used" in said


def test_a_file_that_a_node_writes_itself_need_not_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgemw("check", str(EXAMPLE.with_name("fog.toml")), "--set", f"telemetry.targets={tmp_path / 'targets.json'}") == 0
    assert "targets" not in capsys.readouterr().err
