from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.results.commits import read_commits
from assay.results.dashboard.collect import collect_entries
from assay.results.dashboard.model import OURS, Build, Entry, Quality, Roofline
from assay.results.dashboard.site import SiteOptions, write_site
from assay.results.history import find_shifts
from assay.results.series import Filter
from assay.results.store import open_store
from assay.results.synthetic import SyntheticHistory, make_history

GENERATED = "2026-02-05T12:00:00Z"
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\u2028'\"`${1}{{7*7}}"


def known_builds() -> list[Build]:
    """One build for each state that code can be in."""
    verified = Quality(reference="onnxruntime 1.31.1", cosine=0.99998, absolute_error=3e-4)
    common: dict[str, Any] = {"weights": "trained", "profile": "release"}
    return [
        Build(
            model="resnet18",
            target="x86-64-v3",
            scheme="int8",
            quality=verified,
            size=12_000_000,
            rooflines={1: Roofline(fraction=0.61, bound="compute")},
            **common,
        ),
        Build(model="resnet18", target="cuda-sm_90", scheme="f32", executed="never", **common),
        Build(model="resnet18", target="aarch64-neon", scheme="f32", executed="emulated", **common),
    ]


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> SyntheticHistory:
    return make_history(tmp_path_factory.mktemp("history") / "repository")


@pytest.fixture(scope="session")
def entries(history: SyntheticHistory) -> list[Entry]:
    """Everything of the made-up history, with the change points that are found."""
    database = history.repository.parent / "index.sqlite"
    with open_store(history.results, database=database) as store:
        series = store.series(Filter(engines=(OURS,)))
        shifts = find_shifts(series, read_commits(history.repository)).shifts
        return collect_entries(store, builds=known_builds(), shifts=shifts)


@pytest.fixture(scope="session")
def site(entries: list[Entry], history: SyntheticHistory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard") / "site"
    subjects = {commit: f"Change {number}" for number, commit in enumerate(history.commits)}
    options = SiteOptions(
        title="Assay benchmarks",
        generated=GENERATED,
        repository="https://example.org/us/assay",
        subjects=subjects,
        notes=("1 record without a commit left out",),
    )
    write_site(folder, entries, options)
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, with what it says and requests kept."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromium-driver, which ci/emulator.sh installs")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """A page of a desktop's width in light colours; nothing may be left on the console."""
    chromium.get_log("browser")
    chromium.get_log("performance")
    resize(chromium, 1440, 900)
    colours(chromium, "light")
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []


def resize(browser: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def colours(browser: Any, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture
def open_page(browser: Any) -> Callable[..., Any]:
    """A function that opens a page of a folder and waits until its figures are there."""

    def open_(folder: Path, page: str = "index.html", *, ready: str = "#table tbody tr") -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        browser.get("about:blank")
        browser.get(f"{folder.as_uri()}/{page}")
        WebDriverWait(browser, 30).until(lambda page: page.find_elements("css selector", ready))
        return browser

    return open_
