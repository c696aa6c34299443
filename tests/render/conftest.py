"""A real browser for the tests of pages, which must log no errors and request nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from regreason_plugin.comparison import comparison as form
from regreason_plugin.comparison.disagreements import Disagreement
from regreason_plugin.render.page import write_page


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"none of {', '.join(names)} is installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and the tests of the page need one")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "google-chrome", "chromium-browser")
    driver = _program("chromedriver")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # (With a named driver selenium neither searches for one nor downloads it.)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def show(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Callable[..., webdriver.Chrome]]:
    """Write and open a page; afterwards check the browser's log and requests."""
    path = tmp_path / "report.html"

    def opened(
        comparison: form.Comparison,
        rows: list[Disagreement] | None = None,
        disagreeing: int = 31_337,
        width: int = 1280,
        **media: str,
    ) -> webdriver.Chrome:
        write_page(comparison, rows or [], disagreeing, path)
        features = [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items()
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get_log("performance")
        browser.get(path.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert path.as_uri() in asked
    assert [url for url in asked if url != path.as_uri() and not url.startswith("data:")] == []
