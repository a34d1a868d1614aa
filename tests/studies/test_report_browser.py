"""The report in a real browser: it stands alone, fits a phone, and its switches work."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from report_support import CLAIMS, make_results, make_study
from selenium import webdriver
from selenium.webdriver.common.by import By

from lightning_lab.studies.report import write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (Debian: chromium chromium-driver)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path_factory.mktemp('user')}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, arms=["dropout=0", "dropout=0.2", "dropout=0.5", "a<b>_&_" + "long" * 30], claims=CLAIMS)
    statuses = {("dropout=0.2", 3): "failed", ("dropout=0.5", 2): "diverged"}
    return write_report(study, make_results(study, folder, statuses), folder).as_uri()


def open_page(browser: webdriver.Chrome, page: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)


def shown(browser: webdriver.Chrome, selector: str) -> int:
    script = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter((e) => getComputedStyle(e).display !== 'none').length"
    )
    return int(browser.execute_script(script, selector))


def test_it_has_no_errors_and_asks_for_nothing(browser: webdriver.Chrome, page: str) -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    open_page(browser, page, 1400)
    asked = [
        entry["message"] for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    assert [message for message in asked if "report.html" not in message and '"data:' not in message] == []
    assert asked  # the page itself: requests are seen
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 700, 1000, 1400])
def test_nothing_leaves_the_screen_but_inside_a_table(browser: webdriver.Chrome, page: str, width: int) -> None:
    open_page(browser, page, width)
    root = "document.documentElement"
    assert browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth") == 0
    script = (
        "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, pre, svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert browser.execute_script(script) == []


def test_the_switches_change_the_curves(browser: webdriver.Chrome, page: str) -> None:
    open_page(browser, page, 1400)
    raw, smooth = ".chart .line.raw", ".chart .line.smooth"
    assert shown(browser, raw) > 0
    assert shown(browser, smooth) == shown(browser, ".chart .single") == 0
    browser.find_element(By.ID, "smoothed").click()
    assert shown(browser, raw) == 0
    assert shown(browser, smooth) > 0
    browser.find_element(By.ID, "runs").click()
    # Four arms of five seeds, but for one without validation results: train and validation of two metrics.
    assert shown(browser, ".chart .single.smooth") == 4 * 5 * 2 * 2
    assert shown(browser, ".chart .single.raw") == 0
    browser.find_element(By.ID, "smoothed").click()
    assert shown(browser, ".chart .single.raw") == 4 * 5 * 2 * 2


def test_without_a_script_all_is_there_but_the_switches(browser: webdriver.Chrome, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, page, 1400)
        assert not browser.find_element(By.CSS_SELECTOR, ".switches").is_displayed()
        assert len(browser.find_elements(By.CSS_SELECTOR, ".chart .line.val.raw")) == 8
        assert browser.find_element(By.TAG_NAME, "table").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def colour(browser: webdriver.Chrome, **media: Any) -> tuple[str, str]:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    background, text = browser.execute_script(script)
    return background, text


def test_dark_where_it_is_dark_and_light_on_paper(browser: webdriver.Chrome, page: str) -> None:
    open_page(browser, page, 1400)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    light = colour(browser, features=[{"name": "prefers-color-scheme", "value": "light"}])
    assert light == ("rgb(255, 255, 255)", "rgb(26, 30, 35)")
    assert colour(browser, features=dark) == ("rgb(20, 23, 27)", "rgb(231, 234, 238)")
    assert colour(browser, media="print", features=dark) == light
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(pdf["data"]).startswith(b"%PDF")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_every_drawing_and_table_has_a_name(browser: webdriver.Chrome, page: str) -> None:
    open_page(browser, page, 1400)
    script = (
        "return [...document.querySelectorAll('svg[role=img]')].filter((s) => !s.querySelector('title')?.textContent"
        " || !s.querySelector('desc')?.textContent).length + [...document.querySelectorAll('table')].filter((t) =>"
        " !t.caption?.textContent || !t.querySelector('th[scope=col]') || !t.querySelector('th[scope=row]')).length"
    )
    assert browser.execute_script(script) == 0
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")) == 4 * 2 + 3 + 1
