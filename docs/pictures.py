"""The pictures of the documents: `python docs/pictures.py`, four minutes.

Real nodes on a mosquitto of their own, a real Prometheus that scrapes them, and a browser without a screen: the page of the top,
and each dashboard as `grafana/preview` draws it. Needs mosquitto, prometheus, chromium, chromedriver, what
`pip install -e '.[dev]'` brings, and `npm ci --prefix grafana/preview`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlencode

import numpy as np
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgemw.transport.broker import start_broker  # noqa: E402
from grafana.preview import preview  # noqa: E402
from tests.support.browser import browser  # noqa: E402
from tests.support.prometheus import Prometheus, prometheus  # noqa: E402
from tests.support.sysfs import battery, plant  # noqa: E402
from tests.system.fleet import Fleet, fact  # noqa: E402

PICTURES = ROOT / "docs/pictures"
CONFIG = """
global: {{scrape_interval: 2s, evaluation_interval: 5s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: edgemw
    static_configs: [{{targets: {nodes}}}]
  - job_name: edgemw-fleet
    metrics_path: /fleet
    static_configs: [{{targets: {fogs}}}]
"""
SITES = {"hall": "raspberry-pi-4b", "roof": "raspberry-pi-zero-2w"}
DEVICES = 4
INPUT = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}


def start(fleet: Fleet) -> tuple[list[str], list[str]]:
    """A top, a fog node at each of two sites, devices below them, one of them on a battery; gives fog nodes and devices."""
    telemetry = {"http": "127.0.0.1:0", "publish": "5s"}
    power: dict[str, Any] = {"scope": "process"}
    task: dict[str, Any] = {"bundle": str(fleet.bundle), "rounds": 0}
    common: dict[str, Any] = {"telemetry": telemetry, "energy": power}
    fleet.fog("top", task=task, plan={"steps": 200, "lr": 0.001}, node={"profile": "n100-gateway"}, **common)
    devices: list[str] = []
    for site, profile in SITES.items():
        fleet.fog(site, "top", node={"site": site, "profile": "raspberry-pi-5"}, **common)
        for number in range(DEVICES):
            device, energy = f"{site}-{number}", dict(power)
            if device == "roof-0":
                planted = battery("Discharging", 2_500_000) | {"class/thermal/thermal_zone0/temp": 48_300}
                energy |= {"sysfs": str(plant(fleet.folder / "sysfs", planted)), "sources": ["battery", "model"], "budget": 2.0}
            data, node = samples(fleet.folder, len(devices)), {"site": site, "profile": profile}
            fleet.device(device, site, data=data, node=node, energy=energy, telemetry=telemetry)
            devices.append(device)
    fleet.start("top", *SITES, *devices)
    return ["top", *SITES], devices


def samples(folder: Path, number: int) -> Path:
    """The share of one device of the digits that scikit-learn brings."""
    x, y = load_digits(return_X_y=True)
    mine = slice(number, None, DEVICES * len(SITES))
    x, y = (x[mine] / 16).astype(np.float32), y[mine]
    np.savez(path := folder / f"digits-{number}.npz", x=x, y=y, split=np.arange(len(y)) % 5 == 0)
    return path


def predict(doors: list[str], over: Event) -> None:
    """Ask for predictions until it is over."""
    body = json.dumps({"inputs": [INPUT]}).encode()
    while not over.wait(0.05):
        for door in doors:
            with urllib.request.urlopen(urllib.request.Request(f"{door}/v2/models/digits/infer", body), timeout=20) as answer:
                answer.read()


def picture(driver: Chrome, url: str, ready: str, path: Path) -> None:
    """Save a page as it is when it is ready, in its whole height."""
    driver.set_window_size(1200, 900)
    driver.get(url)
    WebDriverWait(driver, 60).until(lambda _: driver.find_elements(By.CSS_SELECTOR, ready))
    tall = driver.find_element(By.CSS_SELECTOR, "body").size["height"]
    driver.set_window_size(1200, int(tall) + 170)
    time.sleep(3)  # another look at the new size
    driver.find_element(By.CSS_SELECTOR, "body").screenshot(str(path))
    print(path.relative_to(ROOT), flush=True)


def dashboards(driver: Chrome, running: Prometheus, span_s: float) -> None:
    """A picture of each."""
    asked = {"span": f"{span_s:.0f}", "rate": "20s", "now": f"{time.time():.0f}"}
    with preview.serving(running.url) as url:
        for file in sorted(preview.DASHBOARDS.glob("*.json")):
            query = urlencode({"dashboard": file.name, **asked})
            picture(driver, f"{url}/?{query}", "body[data-drawn]", PICTURES / f"{file.stem}.png")
            wrong = [panel.get_attribute("data-wrong") for panel in driver.find_elements(By.CSS_SELECTOR, "[data-wrong]")]
            assert not wrong, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200.0, metavar="S", help="that the net runs before (default: 200)")
    args = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        start_broker("mosquitto", Path(folder) / "broker") as broker,
        Fleet(Path(folder), broker.url, "orchard") as fleet,
        browser(Path(folder) / "browser") as driver,
    ):
        fogs, devices = start(fleet)
        host = {node: fleet.address(node, "telemetry").removeprefix("http://") for node in [*fogs, *devices]}
        config = CONFIG.format(
            rules=ROOT / "prometheus/rules.yml",
            nodes=json.dumps([*host.values()]),
            fogs=json.dumps([host[fog] for fog in fogs]),
        )
        over = Event()
        with prometheus(Path(folder) / "prometheus", config) as running:
            fleet.until(lambda s: all(device in s and fact(s[device], "release") > 0 for device in devices))
            asking = Thread(target=predict, args=([fleet.address(device, "serving") for device in devices[:3]], over))
            asking.start()
            began_s = time.monotonic()
            driver.get(fleet.address("top", "telemetry"))
            print(f"{len(fogs)} fog nodes and {len(devices)} devices run; pictures in {args.seconds:.0f} s", flush=True)
            time.sleep(args.seconds / 2)
            fleet.kill(devices[-1])
            time.sleep(args.seconds / 2)
            picture(driver, fleet.address("top", "telemetry"), "#chart-joules path", PICTURES / "page.png")
            dashboards(driver, running, time.monotonic() - began_s)
            over.set()
            asking.join()


if __name__ == "__main__":
    main()
