"""The pages in a real browser, from a folder, as a person uses them on a desktop and on a phone."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.results.dashboard.model import Build, Change, Configuration, Entry, Line, Machine, Point, Quality
from assay.results.dashboard.payload import identifier
from assay.results.dashboard.site import SiteOptions, write_site

from .conftest import GENERATED, HOSTILE, colours, resize

pytestmark = pytest.mark.slow

WIDTHS = [(1440, 900), (390, 844)]
PLOT = ".canvas canvas"


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def texts(browser: Any, selector: str) -> list[str]:
    return list(
        browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector
        )
    )


def models(browser: Any) -> list[str]:
    return texts(browser, "#table tbody th a")


def choose(browser: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(find(browser, f"[name='{name}']")).select_by_value(value)


def settings(browser: Any) -> str:
    return str(browser.current_url.partition("#")[2])


def requested(browser: Any) -> list[str]:
    """The addresses of everything that was requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def detail_of(entries: list[Entry], model: str, scheme: str = "f32", target: str = "x86-64-v3") -> str:
    (entry,) = (
        entry
        for entry in entries
        if (entry.configuration.model, entry.configuration.scheme, entry.configuration.target)
        == (model, scheme, target)
    )
    return f"series.html#id={identifier(entry.configuration)}"


def percent(ratio: float) -> str:
    """A ratio as pages show it: signed, with a real minus."""
    part = (ratio - 1) * 100
    return f"{part:+.{1 if abs(part) < 9.95 else 0}f} %".replace("-", "\u2212")


def changes_of(
    entries: list[Entry], model: str, scheme: str = "f32", metric: str = "latency"
) -> list[Change]:
    return [
        change
        for entry in entries
        if (entry.configuration.model, entry.configuration.scheme) == (model, scheme)
        for line in entry.lines
        if line.metric == metric
        for change in line.changes
    ]


def test_the_front_page_tells_speed_changes_and_what_never_ran(site, entries, open_page):
    browser = open_page(site)
    tiles = texts(browser, ".tile")
    assert any(re.match(r"vs ONNX Runtime\d\.\d\d\u00d7geometric mean of 3", tile) for tile in tiles), tiles
    rows = texts(browser, "#table tbody tr")
    assert len(rows) == sum(
        len([m for m in ("latency", "decode", "ttft") if e.line(m)]) or 1 for e in entries
    )
    never = next(row for row in rows if "cuda-sm_90" in row)
    assert "compiled, never executed" in never
    assert any("ran emulated" in row for row in rows)
    int8 = next(row for row in rows if row.startswith("resnet18") and "int8" in row)
    assert percent(changes_of(entries, "resnet18", "int8")[-1].ratio) in int8
    assert "61 %" in int8
    assert "0.99998" in int8
    changes = texts(browser, ".changes li")
    assert "smollm2-135m" in changes[0]
    assert "Change 22" in changes[0]


def test_figures_of_a_row_are_those_of_its_records(site, entries, open_page):
    browser = open_page(site)
    entry = next(e for e in entries if e.configuration.model == "minilm")
    newest, ratio = entry.line("latency").points[-1].value, entry.ratios[0].points[-1].value
    row = next(row for row in texts(browser, "#table tbody tr") if row.startswith("minilm"))
    assert f"{newest * 1e3:.2f} ms" in row
    assert f"{ratio:.2f}\u00d7" in row


def test_filters_are_in_the_address_and_come_back_from_it(site, open_page):
    browser = open_page(site)
    choose(browser, "model", "resnet18")
    choose(browser, "scheme", "f32")
    assert settings(browser) == "model=resnet18&scheme=f32"
    assert set(models(browser)) == {"resnet18"}
    shown = len(models(browser))
    assert find(browser, "#count").text == f"{shown} rows (of 9)"
    again = open_page(site, f"index.html#{settings(browser)}")
    assert len(models(again)) == shown
    assert find(again, "[name='scheme']").get_attribute("value") == "f32"
    find(again, "#reset").click()
    assert settings(again) == ""
    assert len(models(again)) == 9


def test_search_finds_words_of_models_targets_and_commits(site, history, open_page):
    from selenium.webdriver.support.ui import WebDriverWait

    browser = open_page(site)
    find(browser, "#search").send_keys("RESNET v2")
    WebDriverWait(browser, 10).until(lambda page: settings(page) == "q=RESNET+v2")
    assert models(browser) == ["resnet18"]
    browser = open_page(site, f"index.html#q={history.commits[18][:10]}")
    assert models(browser) == ["minilm"]


def test_nothing_that_matches_says_so_and_leads_back(site, open_page):
    browser = open_page(site, "index.html#q=no-such-model", ready="#tiles .tile")
    assert "No configuration matches" in find(browser, "#count").text
    assert not find(browser, "#table").is_displayed()
    find(browser, "#reset").click()
    assert len(models(browser)) == 9


def test_unknown_settings_of_an_address_do_no_harm(site, open_page):
    browser = open_page(site, "index.html#sort=-nothing&page=99&show=nothing&other=1&model=")
    assert len(models(browser)) == 9


def test_headings_sort_by_keyboard_and_say_so(site, open_page):
    browser = open_page(site)
    button = find(browser, "th.c-figure button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys("\ue007")  # Enter
    values = browser.execute_script(
        "return Assay.front.table.engine.getRowModel().rows.map((r) => r.original.value)"
    )
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert values[len(known) :] == [None] * (len(values) - len(known))  # rows without figures come last
    head = find(browser, "th.c-figure")
    assert head.get_attribute("aria-sort") == "ascending"
    assert settings(browser) == "sort=figure"
    button.send_keys(" ")
    assert head.get_attribute("aria-sort") == "descending"
    assert browser.switch_to.active_element.text.startswith("Figure")
    assert len(browser.find_elements("css selector", "[aria-sort]")) == 1


def test_focus_goes_from_the_skip_link_through_filters_to_the_table(site, open_page):
    browser = open_page(site)
    tabbed = []
    for _ in range(40):
        browser.switch_to.active_element.send_keys("\ue004")  # Tab
        tabbed.append(
            browser.execute_script(
                "const at = document.activeElement; return at.id || at.name || at.className || at.textContent"
            )
        )
    assert tabbed[0] == "skip"
    order = [tabbed.index(name) for name in ("theme", "search", "model", "copy", "table")]
    assert order == sorted(order)
    browser.execute_script("document.querySelector('.skip').focus()")
    browser.switch_to.active_element.send_keys("\ue007")
    assert browser.execute_script("return document.activeElement.id") == "content"
    assert settings(browser) == ""


def test_the_table_stays_a_table_for_screen_readers_at_both_widths(site, open_page, browser):
    for width, height in WIDTHS:
        resize(browser, width, height)
        open_page(site)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
        assert roles.count("table") == 1
        assert roles.count("row") >= 9
        assert roles.count("rowheader") == 9
        assert roles.count("columnheader") == 11
        assert roles.count("cell") == 9 * 10


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_no_page_scrolls_sideways(site, entries, open_page, browser, width, height):
    resize(browser, width, height)
    for page, ready in (("index.html", "#table tbody tr"), (detail_of(entries, "resnet18"), PLOT)):
        open_page(site, page, ready=ready)
        inner, outer = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert inner <= outer == width


def test_theme_follows_the_system_and_the_choice_stays(site, open_page, browser):
    def background() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    open_page(site)
    light = background()
    colours(browser, "dark")
    dark = background()
    assert dark != light
    choose_theme = (
        "const choice = document.getElementById('theme'); choice.value = arguments[0];"
        "choice.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(choose_theme, "light")
    assert background() == light
    open_page(site)
    assert background() == light
    browser.execute_script(choose_theme, "auto")
    assert background() == dark


def test_a_plot_has_its_figures_in_words_and_as_a_table(site, entries, history, open_page):
    browser = open_page(site, detail_of(entries, "resnet18", "int8"), ready=PLOT)
    story = texts(browser, ".plot .story")[0]
    up, down = changes_of(entries, "resnet18", "int8")
    first, second = history.commits[9][:8], history.commits[21][:8]
    assert "30 runs from 2026-01-05 to 2026-02-03" in story
    assert f"{percent(up.ratio)} (worse) at {first}" in story
    assert f"{percent(down.ratio)} (better) at {second}" in story
    browser.execute_script("document.querySelector('.plot details').open = true")
    links = browser.execute_script(
        "return [...document.querySelector('.plot').querySelectorAll('tbody th a')].map((link) => link.href)"
    )
    expected = [f"https://example.org/us/assay/commit/{commit}" for commit in reversed(history.commits)]
    assert links == expected
    changed = texts(browser, ".plot tr.changed")
    assert len(changed) == 2
    assert "Change 21" in changed[0]
    assert " to " in texts(browser, ".plot tbody tr:first-child td.number")[0]


def test_arrow_keys_read_a_plot(site, entries, history, open_page):
    browser = open_page(site, detail_of(entries, "minilm"), ready=PLOT)
    plot = find(browser, ".canvas")
    browser.execute_script("arguments[0].focus()", plot)
    plot.send_keys("\ue012")  # left: from the newest on
    assert find(browser, ".readout").text.startswith(history.commits[-1][:8])
    plot.send_keys("\ue011")  # Home
    assert find(browser, ".readout").text.startswith(history.commits[0][:8])
    for _ in range(18):
        plot.send_keys("\ue014")  # right
    read = find(browser, ".readout").text
    assert "Assay " in read
    assert "ONNX Runtime " in read
    (change,) = changes_of(entries, "minilm")
    assert f"Change point: {percent(change.ratio)}, better" in read


def test_the_plot_draws_its_lines(site, entries, open_page):
    browser = open_page(site, detail_of(entries, "resnet18"), ready=PLOT)
    colours_drawn = browser.execute_script(
        """
        const canvas = document.querySelector(".canvas canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) {
          if (data[i + 3] === 255) seen.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
        }
        return [...seen];
        """
    )
    ours, peer, worse = "11,87,183", "122,81,149", "179,56,11"
    assert {ours, peer, worse} <= set(colours_drawn)


def test_a_detail_leads_back_to_the_filters_that_led_to_it(site, open_page):
    from selenium.webdriver.support.ui import WebDriverWait

    browser = open_page(site, "index.html#model=minilm&sort=-figure")
    find(browser, "#table tbody th a").click()
    WebDriverWait(browser, 30).until(lambda page: page.find_elements("css selector", PLOT))
    find(browser, "#back").click()
    WebDriverWait(browser, 30).until(lambda page: page.find_elements("css selector", "#table tbody tr"))
    assert settings(browser) == "model=minilm&sort=-figure"


@pytest.mark.parametrize("identity", ["", "../../index", "0" * 16])
def test_a_configuration_that_is_not_there_is_told(site, chromium, identity):
    from selenium.webdriver.support.ui import WebDriverWait

    chromium.get("about:blank")
    chromium.get(f"{site.as_uri()}/series.html#id={identity}")
    WebDriverWait(chromium, 30).until(lambda page: find(page, "#problem").is_displayed())
    assert "no such configuration" in find(chromium, "#problem").text
    chromium.get_log("browser")  # the file that is not there


def test_a_build_that_never_ran_says_what_to_do(site, entries, open_page):
    page = detail_of(entries, "resnet18", target="cuda-sm_90")
    browser = open_page(site, page, ready="#problem:not([hidden])")
    assert "Compiled, never executed" in find(browser, "#problem").text
    assert "assay bench" in find(browser, "#problem").text


def test_a_site_without_records_says_what_to_run(tmp_path, open_page):
    write_site(tmp_path / "site", [], SiteOptions(title="Assay", generated=GENERATED))
    browser = open_page(tmp_path / "site", ready="#empty:not([hidden])")
    assert "assay bench" in find(browser, "#empty").text
    assert not find(browser, "#explorer").is_displayed()


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site on a static host, at a path of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{site.name}"
    server.shutdown()
    thread.join()
    server.server_close()


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
