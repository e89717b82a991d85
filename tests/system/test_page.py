"""The page of a fog node in a real browser: before real nodes, and before whatever nodes may say."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from edgemw.app.page.doors import FILES
from edgemw.transport.http import HttpServer
from tests.support.browser import browser, complaints
from tests.system.fleet import PATIENCE_S, Fleet

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[Chrome]:
    with browser(tmp_path / "browser") as running:
        yield running


def when(driver: Chrome, true: Callable[[], Any]) -> Any:
    """What is seen once it is true."""
    return WebDriverWait(driver, PATIENCE_S, poll_frequency=0.1, ignored_exceptions=(Exception,)).until(lambda _: true())


def said(driver: Chrome, selector: str) -> str:
    return str(driver.find_element(By.CSS_SELECTOR, selector).get_attribute("textContent"))


def of(node: str, cell: str) -> str:
    """The selector of a part of a node's row."""
    return f'li[data-node="{node}"] > .row {cell}, li[data-node="{node}"] > details > summary {cell}'


def asked(driver: Chrome) -> set[str]:
    """The addresses that the browser has asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]  # type: ignore[no-untyped-call]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {url for url in sent if url.startswith(("http", "ws"))}


def test_a_page_of_real_nodes(fleet: Fleet, chrome: Chrome) -> None:
    fleet.fog("top")
    fleet.fog("fog-0", "top")
    for node in ("device-0", "device-1", "device-2"):
        fleet.device(node, "fog-0")
    fleet.start("top", "fog-0", "device-0", "device-1", "device-2")
    address = fleet.address("top", "telemetry")
    chrome.get(address)
    when(chrome, lambda: said(chrome, "#health") == "all 5 are well")
    assert [row.get_attribute("data-node") for row in chrome.find_elements(By.CSS_SELECTOR, "#tree li")] == [
        *("top", "fog-0", "device-0", "device-1", "device-2")
    ]
    when(chrome, lambda: int(said(chrome, "#release")) >= 3 and float(said(chrome, "#metric")) > 0)
    when(chrome, lambda: chrome.find_element(By.CSS_SELECTOR, "#chart-bytes path.two"))
    assert "now" in str(chrome.find_element(By.CSS_SELECTOR, "#chart-metric svg").get_attribute("aria-label"))
    assert " B up, " in said(chrome, "#bytes-small") or " kB up, " in said(chrome, "#bytes-small")
    when(chrome, lambda: "sent" in said(chrome, of("device-1", "span:nth-child(5)")))

    fleet.kill("device-1")
    fleet.signal("device-2", signal.SIGTERM)
    when(chrome, lambda: said(chrome, of("device-1", "span:nth-child(2)")) == "lost")
    when(chrome, lambda: said(chrome, of("device-2", "span:nth-child(2)")) == "stopped")
    when(chrome, lambda: said(chrome, "#health") == "1 of 4 is not well")
    assert "its connection broke" in said(chrome, 'li[data-node="device-1"] > .why')
    assert said(chrome, of("fog-0", "i")) == "fog, 1 of 3 there"

    fleet.start("device-1")
    when(chrome, lambda: said(chrome, "#health") == "all 4 are well")
    assert complaints(chrome) == []
    fleet.kill("top")
    when(chrome, lambda: "does not answer" in said(chrome, "#trouble"))
    assert {url.split("/")[2] for url in asked(chrome)} == {address.split("/")[2]}


def test_what_was_learned_is_drawn_again_after_a_restart(fleet: Fleet, chrome: Chrome) -> None:
    fleet.fog("top", task={"bundle": str(fleet.bundle), "rounds": 3})
    fleet.device("device-0", "top")
    fleet.start("top", "device-0")
    fleet.until(lambda s: "top" in s and s["top"].status.state == "finished")
    fleet.kill("top")
    fleet.start("top")
    chrome.get(fleet.address("top", "telemetry"))
    path = str(when(chrome, lambda: chrome.find_element(By.CSS_SELECTOR, "#chart-metric path")).get_attribute("d"))
    assert path.count("L") >= 1
    assert said(chrome, "#release") == "3"


def test_a_fog_node_in_the_middle_has_a_page_too(fleet: Fleet, chrome: Chrome) -> None:
    fleet.fog("top")
    fleet.fog("fog-0", "top")
    fleet.device("device-0", "fog-0")
    fleet.start("top", "fog-0", "device-0")
    chrome.get(fleet.address("fog-0", "telemetry"))
    when(chrome, lambda: said(chrome, "#health") == "all 2 are well")
    assert said(chrome, "#where") == "fog node fog-0 below top"
    when(chrome, lambda: chrome.find_element(By.CSS_SELECTOR, "#chart-metric path"))  # told by the top since it runs


# -- whatever is said


def node(name: str, parent: str = "top", role: str = "device", **more: Any) -> dict[str, Any]:
    return {"node": name, "role": role, "parent": parent, "state": "idle", "reason": "", "tasks": []} | more


@contextmanager
def showing(driver: Chrome, nodes: list[dict[str, Any]], **more: Any) -> Iterator[dict[str, Any]]:
    """The page before a document, which may be changed."""
    document = {
        "net": "n", "node": "top", "parent": "", "at": time.time(), "every_s": 0.1, "refused": "", "tasks": {}, "task": "",
        "energy": None, "joules": [], "nodes": [node("top", "", "fog"), *nodes], **more,
    }  # fmt: skip

    def handle(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path == "/overview":
            return 200, "application/json", json.dumps(document).encode()
        kind, data = FILES[path]
        return 200, kind, data()

    with HttpServer("127.0.0.1:0", handle) as server:
        driver.get(server.url)
        when(driver, lambda: said(driver, "#where"))
        yield document


def test_what_nodes_say_is_never_markup(chrome: Chrome) -> None:
    rounds = [
        {"release": n, "wall_s": 1.0 + n, "uplink_bytes": n, "downlink_bytes": n, "late": [], HOSTILE: 0.5} for n in range(3)
    ]
    bad = node("pi-1", state=HOSTILE, reason=HOSTILE, tasks=[{"task": HOSTILE, "state": HOSTILE, "release": 1}])
    with showing(chrome, [bad], tasks={HOSTILE: rounds}, task=HOSTILE, refused=HOSTILE):
        assert said(chrome, 'li[data-node="pi-1"] > .why') == HOSTILE
        assert HOSTILE in said(chrome, "#trouble")
        assert chrome.find_elements(By.CSS_SELECTOR, "img, main script") == []
        assert chrome.title == "top in n: edgemw"
        inline = "const s = document.createElement('script'); s.textContent = 'document.title = 3'; document.body.append(s);"
        chrome.execute_script(inline)
        assert chrome.title == "top in n: edgemw"
    assert ["script-src" in line for line in complaints(chrome)] == [True]  # what this test has tried itself


def test_ten_thousand_devices_are_there_and_those_that_are_not_well_are_seen_first(chrome: Chrome) -> None:
    devices = [node(f"pi-{number}") for number in range(10_000)]
    devices[7_654] |= {"state": "lost", "reason": "its connection broke"}
    with showing(chrome, devices):
        first = chrome.find_elements(By.CSS_SELECTOR, "#tree ul > li")
        assert (len(first), first[0].get_attribute("data-node")) == (100, "pi-7654")
        chrome.find_element(By.CSS_SELECTOR, "#tree button").click()
        assert len(when(chrome, lambda: chrome.find_elements(By.CSS_SELECTOR, "#tree ul > li"))) == 1100
        assert said(chrome, "#well") == "10000 of 10001"
        took = chrome.execute_script("const from = performance.now(); draw(); return performance.now() - from;")
    assert took < 10_000, took


def test_what_is_folded_and_where_the_focus_is_stays_so(chrome: Chrome) -> None:
    nodes = [node("fog-0", role="fog"), node("pi-0", "fog-0")]
    with showing(chrome, nodes) as document:
        summary = chrome.find_element(By.CSS_SELECTOR, 'li[data-node="fog-0"] summary')
        summary.send_keys(Keys.ENTER)
        document["nodes"].append(node("pi-1", "fog-0"))
        when(chrome, lambda: "of 2 there" in said(chrome, of("fog-0", "i")))
        assert chrome.switch_to.active_element == summary
        assert not chrome.find_element(By.CSS_SELECTOR, 'li[data-node="pi-1"]').is_displayed()


@pytest.mark.parametrize("parent", ["pi-0", "fog-0", "nobody"])
def test_a_node_below_itself_a_device_or_nobody_is_shown_all_the_same(parent: str, chrome: Chrome) -> None:
    with showing(chrome, [node("pi-0"), node("fog-0", parent, role="fog")]):
        assert {row.get_attribute("data-node") for row in chrome.find_elements(By.CSS_SELECTOR, "#tree li")} == {
            "top",
            "pi-0",
            "fog-0",
        }


def test_a_small_screen_scrolls_in_one_direction_only(chrome: Chrome) -> None:
    with showing(chrome, [node("a-name-of-forty-letters-or-nearly-so-here", reason="a long reason " * 20)]):
        chrome.set_window_size(500, 900)
        wide = chrome.execute_script("return [document.documentElement.scrollWidth, window.innerWidth];")
    assert wide[0] <= wide[1]


def test_the_page_answers_to_get_alone(fleet: Fleet) -> None:
    import urllib.error
    import urllib.request

    fleet.fog("top")
    fleet.start("top")
    address = fleet.address("top", "telemetry")
    for path in ("/", "/page.js", "/page.css", "/overview"):
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(urllib.request.Request(address + path, b"x", method="POST"), timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/page.html", timeout=10)
