"""A real TensorBoard on a real run, looked at with a real browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait
from support import Lab

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (Debian: chromium chromium-driver)"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--window-size=1400,1100", f"--user-data-dir={tmp_path}/user",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def tensorboard(lab: Lab, tmp_path: Path) -> Iterator[str]:
    answer = lab(
        "fit", "--config=digits/lenet5", "--config=trainer/cpu", "--trainer.max_epochs=3",
        "--trainer.limit_train_batches=6", "--lr_schedule.scheduler.step_size=1", "--then=test", "--run.name=one",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path}/logs", f"--port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield address
    server.terminate()
    server.wait()


def test_train_and_validation_loss_share_one_chart(tensorboard: str, browser: WebDriver) -> None:
    browser.get(f"{tensorboard}/?darkMode=false&tagFilter=%5Eloss%24#timeseries")
    card = WebDriverWait(browser, 60).until(
        lambda _: next(
            (c for c in browser.find_elements(By.TAG_NAME, "scalar-card") if "lenet5/one/val" in c.text), None
        )
    )
    assert card.find_element(By.TAG_NAME, "tb-truncated-path").get_attribute("title") == "loss"
    assert "lenet5/one/train" in card.text
    # The curve itself: a chart with something drawn in it, on a canvas that a script may have handed to a worker.
    assert card.find_elements(By.CSS_SELECTOR, "line-chart svg, line-chart canvas")
    assert card.size["height"] > 200


def test_the_hparams_tab_shows_the_final_metric(tensorboard: str, browser: WebDriver) -> None:
    browser.get(f"{tensorboard}/?darkMode=false#hparams")
    text = WebDriverWait(browser, 60).until(
        lambda _: browser.execute_script(
            "const all = []; const walk = (n) => { if (n.shadowRoot) walk(n.shadowRoot);"
            "n.childNodes.forEach((c) => { if (c.nodeType === 3) all.push(c.textContent); else walk(c); }); };"
            "walk(document.body); const t = all.join(' '); return t.includes('best/val/loss') ? t : '';"
        )
    )
    assert "best/val/acc" in text
    assert "model.net" in text
    assert "hp_metric" not in text


def test_the_pictures_of_the_test_are_there(tensorboard: str, browser: WebDriver) -> None:
    browser.get(f"{tensorboard}/?darkMode=false#images")
    wait = WebDriverWait(browser, 60)

    def pictures(_: WebDriver) -> bool:
        script = (
            "const widths = [], text = []; const walk = (n) => { if (n.shadowRoot) walk(n.shadowRoot);"
            "if (n.tagName === 'IMG') widths.push(n.naturalWidth); if (n.nodeType === 3) text.push(n.textContent);"
            "n.childNodes.forEach(walk); }; walk(document.body); return [widths, text.join(' ')];"
        )
        widths, text = browser.execute_script(script)
        named = all(tag in text for tag in ("confusion_matrix", "misclassified"))
        return named and len([width for width in widths if width > 200]) == 2

    wait.until(pictures)
