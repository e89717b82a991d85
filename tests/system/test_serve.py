"""`edgemw serve` as a process: what it needs, what it survives, how it ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.serving.session import open_inference
from edgemw.serving.store import Choice, ReleaseStore
from tests.system.fleet import Fleet, fact

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
X = np.random.default_rng(0).random((1, 64), np.float32)
BODY = X.tobytes()
HEAD = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(BODY)}}],
        "parameters": {"binary_data_output": True},
    }
).encode()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def theta(bundle: Bundle, number: int) -> Vector:
    return np.random.default_rng(number).normal(0, 0.1, bundle.manifest.size).astype(np.float32)


def save(folder: Path, bundle: Bundle, number: int) -> None:
    ReleaseStore(folder, 3).save("digits", bundle, 1, number, theta(bundle, number))


class Serving:
    """A server process whose log is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "edgemw", "serve", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.connections: list[http.client.HTTPConnection] = []

    def until(self, pattern: str) -> re.Match[str]:
        """Read the log to a line that matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the log ended without {pattern}: {''.join(self.lines)}")

    def connect(self) -> http.client.HTTPConnection:
        """To the door that it opens next."""
        port = int(self.until(r"http=http://127\.0\.0\.1:(\d+)")[1])
        self.connections.append(http.client.HTTPConnection("127.0.0.1", port, timeout=10))
        return self.connections[-1]

    def end(self) -> None:
        """Kill it."""
        for connection in self.connections:
            connection.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    running = Serving(*arguments)
    try:
        yield running
    finally:
        running.end()


def infer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    """The release that answered, and its outputs."""
    connection.request("POST", "/v2/models/digits/infer", HEAD + BODY, {"Inference-Header-Content-Length": str(len(HEAD))})
    response = connection.getresponse()
    data = response.read()
    assert response.status == 200, data
    length = int(response.headers["Inference-Header-Content-Length"])
    return int(json.loads(data[:length])["model_version"]), data[length:]


def test_releases_take_each_others_place_under_load_and_every_answer_is_of_the_one_it_names(
    tmp_path: Path, bundle: Bundle
) -> None:
    releases = 15
    expected = {
        number: open_inference(bundle.infer, theta(bundle, number), size=bundle.manifest.size).run(X).tobytes()
        for number in range(releases)
    }
    save(tmp_path, bundle, 0)
    with serving(str(tmp_path), "--http", "127.0.0.1:0") as server:
        connection = server.connect()
        answers: list[tuple[int, bytes]] = []
        last = threading.Event()

        def ask() -> None:
            while not last.is_set() or answers[-1][0] < releases - 1:
                answers.append(infer(connection))

        asking = threading.Thread(target=ask)
        asking.start()
        for number in range(1, releases):
            save(tmp_path, bundle, number)
        last.set()
        asking.join(60)
        assert not asking.is_alive()
    numbers = [number for number, _ in answers]
    assert numbers == sorted(numbers)
    assert numbers[-1] == releases - 1
    assert all(outputs == expected[number] for number, outputs in answers)


def test_it_starts_from_the_last_good_release_after_it_was_killed_and_needs_no_torch(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path, bundle, 4)
    for _ in range(2):
        with serving(str(tmp_path), "--http", "127.0.0.1:0", "--log", "info") as server:
            assert infer(server.connect())[0] == 4
            loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert "onnxruntime" in loaded
            assert "torch" not in loaded
            assert "matplotlib" not in loaded
            assert psutil.Process(server.process.pid).memory_info().rss < 120 << 20
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    assert len(list(tmp_path.glob(".bell-*"))) == 2
    save(tmp_path, bundle, 5)
    assert list(tmp_path.glob(".bell-*")) == []


def test_a_release_that_is_chosen_answers_at_once(tmp_path: Path, bundle: Bundle) -> None:
    for number in range(3):
        save(tmp_path, bundle, number)
    with serving(str(tmp_path), "--http", "127.0.0.1:0") as server:
        connection = server.connect()
        assert infer(connection)[0] == 2
        chosen = subprocess.run(
            [sys.executable, "-m", "edgemw", "model", "pin", str(tmp_path), "0"], capture_output=True, text=True, check=True
        )
        assert chosen.stdout == "digits: release 0 of run 1 is to be served, whatever comes\n"
        server.until("serving.*release=0")
        assert infer(connection)[0] == 0
        save(tmp_path, bundle, 3)
        ReleaseStore(tmp_path, 3).choose("digits", None)
        server.until("serving.*release=3")
        assert infer(connection)[0] == 3


def test_prometheus_reads_what_it_does(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path, bundle, 4)
    with serving(str(tmp_path), "--http", "127.0.0.1:0") as server:
        connection = server.connect()
        assert "prometheus_client" not in Path(f"/proc/{server.process.pid}/maps").read_text()
        for _ in range(3):
            infer(connection)
        connection.request("POST", "/v2/models/digits/infer", b"{}")
        assert connection.getresponse().read()
        save(tmp_path, bundle, 5)
        server.until("serving.*release=5")
        found = scraped(connection)
        task = {"device": socket.gethostname(), "task": "digits"}
        assert found["edgemw_serving_release", frozenset(task.items())] == 5
        assert found["edgemw_serving_releases_total", frozenset(task.items())] == 2
        assert found["edgemw_serving_requests_total", frozenset(task.items())] == 3
        assert found["edgemw_serving_samples_total", frozenset(task.items())] == 3
        assert found["edgemw_serving_release_refused", frozenset(task.items())] == 0
        assert found["edgemw_serving_latency_seconds_bucket", frozenset((task | {"le": "+Inf"}).items())] == 3
        refused = frozenset({"device": socket.gethostname(), "status": "400"}.items())
        assert found["edgemw_serving_refused_requests_total", refused] == 1
        (max((tmp_path / "digits" / "releases").iterdir()) / "theta.f32").write_bytes(b"")
        ReleaseStore(tmp_path, 3).choose("digits", Choice(1, None))
        server.until("serving.*release=4")
        ReleaseStore(tmp_path, 3).choose("digits", None)
        server.until("is damaged")
        assert scraped(connection)["edgemw_serving_release_refused", frozenset(task.items())] == 1
        connection.request("POST", "/metrics", b"")
        assert connection.getresponse().status == 405


def scraped(connection: http.client.HTTPConnection) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.read().decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def test_it_says_what_else_is_there_where_it_waits(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path / "store", bundle, 0)
    with serving(str(tmp_path / "store"), "--http", "127.0.0.1:0", "--task", "letters") as server:
        server.until("waiting for a release of letters; the store has digits")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with serving(str(tmp_path / "other"), "--http", "127.0.0.1:0") as server:
        server.until("waiting for a release of any task; .*other holds other things than releases")


def test_it_waits_for_the_first_release(tmp_path: Path, bundle: Bundle) -> None:
    with serving(str(tmp_path), "--http", "127.0.0.1:0", "--task", "digits") as server:
        server.until("waiting for a release of digits")
        connection = server.connect()
        connection.request("GET", "/v2/health/ready")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["error"]) == (503, "no release yet of digits")
        save(tmp_path, bundle, 0)
        server.until("serving.*release=0")
        assert infer(connection)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing_behind(tmp_path: Path, bundle: Bundle, number: signal.Signals) -> None:
    store, door = tmp_path / "releases", tmp_path / "door.sock"
    save(store, bundle, 0)
    with serving(str(store), "--http", "", "--socket", str(door)) as server:
        server.until("listening.*door.sock")
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
    assert not door.exists()
    assert [path.name for path in store.iterdir()] == ["digits"]


def refused(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "edgemw", "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path, bundle, 0)
    code, said = refused(str(tmp_path / "none"))
    assert (code, said.count("\n")) == (3, 1)
    assert "STORE: there is no folder" in said
    with serving(str(tmp_path), "--http", "127.0.0.1:0") as server:
        port = server.connect().port
        code, said = refused(str(tmp_path), "--http", f"127.0.0.1:{port}")
        assert code == 3
        assert f"edgemw: --http: cannot listen on 127.0.0.1:{port}" in said.splitlines()[-1]
    for wrong, right in ((tmp_path / "state", tmp_path / "state" / "releases"), (tmp_path / "digits", tmp_path)):
        save(right, bundle, 0)
        code, said = refused(str(wrong), "--http", "127.0.0.1:0")
        assert (code, said) == (3, f"edgemw: STORE: {wrong} holds no release, {right} does\n")
    code, said = refused(str(tmp_path), "--http", "")
    assert code == 2
    assert "there is no door: give --http, --socket or --node" in said


# -- as the service of a device


def pid_of(fleet: Fleet) -> int:
    return int(json.loads((fleet.folder / "device-0" / "serving.process").read_text())["pid"])


def service_of(fleet: Fleet) -> psutil.Process:
    return psutil.Process(pid_of(fleet))


@pytest.fixture
def served(fleet: Fleet) -> Iterator[Fleet]:
    """A device with a service, which is ended with the test whatever becomes of it."""
    fleet.fog("top")
    fleet.device("device-0", "top", serving={"http": "127.0.0.1:0", "process": True})
    fleet.start("top", "device-0")
    fleet.until(lambda s: "device-0" in s and fact(s["device-0"], "release") >= 2)
    yield fleet
    with suppress(OSError, psutil.NoSuchProcess):
        service_of(fleet).kill()


def release_served(url: str) -> int:
    """What the service answers, asked until it has a release."""
    while True:
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{url}/v2/models/digits", timeout=10) as answer:
            return int(json.loads(answer.read())["versions"][0])
        time.sleep(0.05)


def test_the_service_of_a_device_goes_on_without_it_and_is_found_again(served: Fleet) -> None:
    service, url = service_of(served), served.address("device-0", "serving")
    before = release_served(url)
    for node in ("device-0", "top"):
        served.kill(node)
    assert release_served(url) >= before
    served.start("device-0")
    served.said("device-0", "of an earlier life goes on")
    assert served.address("device-0", "serving") == url
    assert service_of(served).pid == service.pid
    before = release_served(url)
    served.start("top")
    while release_served(url) <= before:
        time.sleep(0.05)
    served.signal("device-0", signal.SIGTERM)
    assert served.wait("device-0") == 0
    assert not service.is_running()
    assert not (served.folder / "device-0" / "serving.process").exists()


@pytest.mark.parametrize("of_before", [False, True])
def test_a_service_that_was_told_something_else_is_not_taken_back(served: Fleet, of_before: bool) -> None:
    service = service_of(served)
    served.kill("device-0")
    note = served.folder / "device-0" / "serving.process"
    if of_before:  # a version that noted less
        said = json.loads(note.read_text())
        note.write_text(json.dumps({name: said[name] for name in ("pid", "started", "url", "address")}))
    else:
        path = served.folder / "device-0.toml"
        path.write_text(path.read_text().replace("[serving]", "[serving]\nqueue = 7"))
    served.start("device-0")
    assert psutil.wait_procs([service], timeout=20)[1] == []
    assert release_served(served.address("device-0", "serving")) >= 0


def test_a_service_that_dies_is_started_again(served: Fleet) -> None:
    first, url = service_of(served), served.address("device-0", "serving")
    release_served(url)
    first.kill()
    served.said("device-0", "the prediction service ended; it is started again")
    while pid_of(served) == first.pid:
        time.sleep(0.05)
    second = service_of(served)
    assert release_served(url) >= 0
    served.signal("device-0", signal.SIGTERM)
    assert served.wait("device-0") == 0
    assert not second.is_running()


def test_a_device_whose_service_cannot_start_says_why(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fleet.fog("top")
        fleet.device("device-0", "top", serving={"http": address, "process": True})
        fleet.start("device-0")
        assert fleet.wait("device-0") == 3
    text = (fleet.folder / "device-0.log").read_text()
    assert f"cannot listen on {address}" in text
    assert "serving.http: the prediction service did not start: its log says why" in text


def test_a_device_knows_what_its_service_has_answered_in_all_the_processes_that_it_had(served: Fleet) -> None:
    first, url = service_of(served), served.address("device-0", "serving")
    release_served(url)
    ask = json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}).encode()

    def predict(times: int) -> None:
        for _ in range(times):
            with urllib.request.urlopen(
                f"{served.address('device-0', 'serving')}/v2/models/digits/infer", ask, timeout=10
            ) as answer:
                answer.read()

    predict(30)
    served.until(lambda s: fact(s["device-0"], "predictions") == 30)
    first.kill()
    served.said("device-0", "the prediction service ended; it is started again")
    while pid_of(served) == first.pid:
        time.sleep(0.05)
    release_served(url)
    predict(12)
    served.until(lambda s: fact(s["device-0"], "predictions") == 42)
