"""Dashboards without Grafana: every panel asks a real Prometheus and is drawn, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from grafana.preview import preview
from tests.support.browser import browser, complaints
from tests.support.prometheus import prometheus


@pytest.mark.skipif(not preview.UPLOT.is_dir(), reason="npm ci --prefix grafana/preview was not run")
def test_every_panel_of_every_dashboard_is_drawn(tmp_path: Path) -> None:
    with (
        prometheus(tmp_path / "prometheus", "global: {}\n") as running,
        preview.serving(running.url) as url,
        browser(tmp_path) as driver,
    ):
        for file in sorted(preview.DASHBOARDS.glob("*.json")):
            driver.get(f"{url}/?dashboard={file.name}")
            WebDriverWait(driver, 60).until(lambda _: driver.find_elements(By.CSS_SELECTOR, "body[data-drawn]"))
            wrong = driver.find_elements(By.CSS_SELECTOR, "[data-wrong]")
            assert [panel.get_attribute("data-wrong") for panel in wrong] == []
        assert complaints(driver) == []


@pytest.mark.parametrize(
    "path", ["/../generate.py", "/dashboards/../generate.py", "/api/v1/admin/tsdb/delete_series?x", "/node_modules"]
)
def test_nothing_else_is_served(path: str) -> None:
    assert preview.answer(path, "http://127.0.0.1:1")[0] == 404


def test_a_prometheus_that_is_not_there_is_named() -> None:
    status, _, body = preview.answer("/api/v1/query?query=up", "http://127.0.0.1:1")
    assert (status, b"127.0.0.1:1" in body) == (502, True)


def test_npm_s_lock_names_no_registry() -> None:
    assert "resolved" not in (preview.HERE / "package-lock.json").read_text()
