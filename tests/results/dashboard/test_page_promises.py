"""What every page promises: nothing from elsewhere, texts that stay texts, thousands of rows, no barriers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.results.dashboard.model import Build, Change, Configuration, Entry, Line, Machine, Point, Quality
from assay.results.dashboard.payload import identifier
from assay.results.dashboard.site import SiteOptions, write_site

from .conftest import GENERATED, HOSTILE, colours, resize
from .pages import PLOT, choose, detail_of, find, models, requested, serving, settings

pytestmark = pytest.mark.slow


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site on a static host, at a path of its own."""
    with serving(site.parent) as address:
        yield f"{address}/{site.name}"


@pytest.mark.parametrize("host", ["folder", "server"])
def test_pages_request_nothing_beyond_their_folder(site, served, entries, browser, host):
    from selenium.webdriver.support.ui import WebDriverWait

    base = site.as_uri() if host == "folder" else served
    for page, ready in (("index.html", "#table tbody tr"), (detail_of(entries, "resnet18"), PLOT)):
        browser.get("about:blank")
        requested(browser)
        browser.get(f"{base}/{page}")
        WebDriverWait(browser, 30).until(
            lambda found, ready=ready: found.find_elements("css selector", ready)
        )
        addresses = [address for address in requested(browser) if not address.startswith("data:")]
        assert len(addresses) > 6
        assert [address for address in addresses if not address.startswith(f"{base}/")] == []


def test_hostile_names_and_messages_are_text(tmp_path, open_page):
    commit = "0" * 39 + "1"
    points = tuple(
        Point(
            commit=commit,
            time=f"2026-01-0{day}T00:00:00Z",
            value=float(day),
            run=HOSTILE + str(day),
            low=0.5,
            high=9.0,
        )
        for day in (1, 2, 3)
    )
    configuration = Configuration(
        model=HOSTILE, weights="random", sizes=HOSTILE, target=HOSTILE, scheme=HOSTILE, profile=HOSTILE,
        threads=1, machine=Machine(name=HOSTILE, cpu=HOSTILE, cpus=1),
    )  # fmt: skip
    lines = [
        Line(
            metric=metric,
            engine=engine,
            unit=unit,
            higher=False,
            points=points,
            changes=(Change(index=1, ratio=2.0),),
        )
        for metric, engine, unit in (
            ("latency", "assay", "s"),
            ("latency", HOSTILE, "s"),
            (HOSTILE, "assay", HOSTILE),
        )
    ]
    ratios = (Line(metric="latency", engine=HOSTILE, unit="ratio", higher=True, points=points),)
    build = Build(
        model=HOSTILE, weights="random", target=HOSTILE, scheme=HOSTILE, profile=HOSTILE,
        quality=Quality(reference=HOSTILE, cosine=1.0, absolute_error=0.1),
    )  # fmt: skip
    entry = Entry(configuration=configuration, lines=tuple(lines), ratios=ratios, build=build)
    options = SiteOptions(
        title=HOSTILE,
        generated=GENERATED,
        repository='https://example.org/"onclick="pwned',
        subjects={commit: HOSTILE},
    )
    write_site(tmp_path / "site", [entry], options)
    for page, ready in (
        ("index.html", "#table tbody tr"),
        (f"series.html#id={identifier(configuration)}", PLOT),
    ):
        browser = open_page(tmp_path / "site", page, ready=ready)
        assert browser.execute_script("return 'pwned' in window") is False
        assert browser.find_elements("css selector", "img, main script, [onerror], [onclick]") == []
        assert HOSTILE.partition("\u2028")[0] in browser.execute_script("return document.body.textContent")


def many_entries(count: int) -> list[Entry]:
    machine = Machine(name="0123abcd", cpu="Test CPU", cpus=8)
    found = []
    for number in range(count):
        configuration = Configuration(
            model=f"model-{number % 500:03}", weights="trained", sizes="", target=f"target-{number // 500}",
            scheme="f32", profile="release", threads=1, machine=machine,
        )  # fmt: skip
        points = tuple(
            Point(
                commit=f"{run:040x}",
                time=f"2026-01-{run + 1:02}T00:00:00Z",
                value=1e-3 * (number + 1 + run % 3),
                run=str(run),
                low=0.987e-3 * (number + 1 + run % 3),
                high=1.0123e-3 * (number + 1 + run % 3),
            )
            for run in range(30)
        )
        line = Line(metric="latency", engine="assay", unit="s", higher=False, points=points)
        ratio = Line(metric="latency", engine="onnxruntime", unit="ratio", higher=True, points=points)
        found.append(Entry(configuration=configuration, lines=(line,), ratios=(ratio,)))
    return found


def test_two_thousand_series_are_paged_and_all_within_reach(tmp_path, open_page):
    written = write_site(
        tmp_path / "site", many_entries(2000), SiteOptions(title="Many", generated=GENERATED)
    )
    assert written["rows"] == 2000
    assert (tmp_path / "site/data/index.js").stat().st_size < 2_000_000
    browser = open_page(tmp_path / "site")
    assert len(models(browser)) == 50
    assert len(browser.find_elements("css selector", ".spark .band")) == 50
    assert find(browser, "#count").text == "1\u201350 of 2000 rows"
    assert find(browser, "#pages span").text == "Page 1 of 40"
    find(browser, "#next").click()
    assert settings(browser) == "page=2"
    assert browser.execute_script("return document.activeElement.id") == "next"
    assert find(browser, "#table tbody tr").get_attribute("aria-rowindex") == "52"
    choose(browser, "target", "target-3")
    assert settings(browser) == "target=target-3"
    assert find(browser, "#count").text == "1\u201350 of 500 rows (of 2000)"
    seconds = browser.execute_script(
        """
        const start = performance.now();
        for (const id of ["figure", "model", "figure", "peer-onnxruntime"]) Assay.front.sort(id);
        return (performance.now() - start) / 4000;
        """
    )
    print(f"2000 series: {seconds * 1e3:.0f} ms to sort and draw")
    assert find(browser, "th.c-peer").get_attribute("aria-sort") == "ascending"


AXE = (Path(__file__).parent / "vendor" / "axe.js").read_text()


@pytest.mark.parametrize(("width", "height", "theme"), [(1440, 900, "light"), (390, 844, "dark")])
def test_axe_finds_no_violations(site, entries, open_page, browser, theme, width, height):
    resize(browser, width, height)
    colours(browser, theme)
    browser.set_script_timeout(120)
    for page, ready in (("index.html", "#table tbody tr"), (detail_of(entries, "resnet18"), PLOT)):
        open_page(site, page, ready=ready)
        browser.execute_script(
            "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
        )
        browser.execute_script(AXE)
        found = browser.execute_async_script("axe.run({ preload: false }).then(arguments[0])")
        told = [
            f"{page}: {each['impact']}: {each['id']}: {each['nodes'][0]['html'][:200]}"
            for each in found["violations"]
        ]
        assert told == []
        assert len(found["passes"]) > 15
