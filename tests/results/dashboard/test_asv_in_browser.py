"""asv's own pages within a site on a static host: drawn by asv's scripts, with nothing from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.results.dashboard.asv_pages import VENDOR, rewrite
from assay.results.dashboard.site import SiteOptions, write_site
from assay.results.synthetic import Benchmark, SyntheticHistory, make_history

from .conftest import GENERATED
from .pages import requested, serving, texts

pytestmark = pytest.mark.slow

COMMITS, STEP = 8, 5
SUITE = """
import os

class Models:
    params = [["resnet18", "tiny"]]
    param_names = ["model"]
    unit = "seconds"

    def track_latency(self, model):
        return float(os.environ["LATENCY"]) * (2 if model == "tiny" else 1)
"""
BENCHMARK = "suite.Models.track_latency"
PIXELS = """
return [...document.querySelectorAll(arguments[0])].filter((canvas) => {
  const context = canvas.getContext("2d");
  return context.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
}).length;
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> SyntheticHistory:
    folder = tmp_path_factory.mktemp("commits") / "repository"
    return make_history(folder, commits=COMMITS, benchmarks=(Benchmark(model="tiny", value=1e-3),))


@pytest.fixture(scope="module")
def published(history: SyntheticHistory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `asv run` and `asv publish` make of the history, whose figures double at one commit."""
    folder = tmp_path_factory.mktemp("asv")
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks/__init__.py").write_text("")
    (folder / "benchmarks/suite.py").write_text(SUITE)
    configuration = {
        "version": 1, "project": "synthetic", "repo": str(history.repository), "branches": ["HEAD"],
        "environment_type": "existing", "show_commit_url": "https://example.org/commit/",
    }  # fmt: skip
    (folder / "asv.conf.json").write_text(json.dumps(configuration))

    def asv(*arguments: str, latency: float = 0.0) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "asv", *arguments],
            cwd=folder,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LATENCY": str(latency)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    asv("machine", "--yes", "--machine", "here")
    for number, commit in enumerate(history.commits):
        arguments = ("-E", f"existing:{sys.executable}", "--machine", "here", "--set-commit-hash", commit)
        asv("run", *arguments, latency=2e-3 if number >= STEP else 1e-3)
    asv("publish")
    return folder / "html"


@pytest.fixture(scope="module")
def served(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    site = tmp_path_factory.mktemp("host") / "site"
    write_site(site, [], SiteOptions(title="Assay benchmarks", generated=GENERATED, asv=published))
    with serving(site.parent) as address:
        yield f"{address}/{site.name}"


def wait(browser: Any, selector: str) -> Any:
    """The first visible element; scripts may take those away again that were there before."""
    from selenium.webdriver.support.ui import WebDriverWait

    visible = """
    return [...document.querySelectorAll(arguments[0])].find((each) => each.getClientRects().length > 0);
    """
    return WebDriverWait(browser, 30).until(lambda page: page.execute_script(visible, selector))


def test_the_front_page_leads_to_asvs_graphs_and_nothing_leaves_the_host(served: str, browser: Any):
    requested(browser)
    browser.get(f"{served}/index.html")
    wait(browser, "nav a[href='asv/index.html']").click()
    wait(browser, "#summarygrid-display canvas")
    assert browser.current_url.startswith(f"{served}/asv/index.html")
    browser.get(f"{served}/asv/index.html#{BENCHMARK}")
    wait(browser, "#main-graph canvas.flot-base")
    assert browser.execute_script(PIXELS, "#main-graph canvas.flot-base") == 1
    assert "resnet18" in " ".join(texts(browser, "#graphdisplay-navigation"))
    addresses = [address for address in requested(browser) if not address.startswith("data:")]
    assert f"{served}/asv/vendor/jquery.flot.js" in addresses
    assert [address for address in addresses if not address.startswith(f"{served}/")] == []


@pytest.mark.parametrize("page", ["summarylist", "regressions"])
def test_asvs_tables_sort(served: str, browser: Any, page: str):
    """Stupid Table is of another version than asv names: npm has no other."""
    from selenium.webdriver.support.ui import WebDriverWait

    body = f"#{page}-body table"
    browser.get("about:blank")
    browser.get(f"{served}/asv/index.html#/{page}")
    wait(browser, f"{body} tbody tr")
    wait(browser, f"{body} thead th.asc, {body} thead th.desc")  # sorted, as asv does on opening
    for direction, expected in (("asc", ["resnet18", "tiny"]), ("desc", ["tiny", "resnet18"])):
        if not browser.find_elements("css selector", f"{body} thead th:first-child.{direction}"):
            wait(browser, f"{body} thead th").click()
        wait(browser, f"{body} thead th:first-child.{direction}")
        WebDriverWait(browser, 30).until(lambda _, expected=expected: names(browser, body) == expected)


def names(browser: Any, table: str) -> list[str]:
    rows = texts(browser, f"{table} tbody tr td:first-child")
    return [next(name for name in ("resnet18", "tiny") if name in row) for row in rows]


def test_the_policy_stops_what_the_parser_does_not_see(tmp_path: Path, chromium: Any):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.js").write_text("window.loaded = true;")
    (tmp_path / "host").mkdir()
    with serving(tmp_path / "elsewhere") as elsewhere, serving(tmp_path / "host") as host:
        # Browsers end the comment at its first ">", parsers of older Pythons at the last.
        text = f'<!doctype html><!--><script src="{elsewhere}/x.js"></script>--><p id="end"></p>'
        (tmp_path / "host/before.html").write_text(text)
        (tmp_path / "host/after.html").write_text(rewrite(text, {}, VENDOR)[0])
        for page, loaded in (("before", True), ("after", None)):
            chromium.get(f"{host}/{page}.html")
            wait(chromium, "body")
            assert chromium.execute_script("return window.loaded") is loaded
    (message,) = {entry["message"] for entry in chromium.get_log("browser") if "x.js" in entry["message"]}
    assert "Content Security Policy" in message
