"""The pages in a real browser, from a folder, as a person uses them on a desktop and on a phone."""

from __future__ import annotations

import re

import pytest

from assay.results.dashboard.site import SiteOptions, write_site

from .conftest import GENERATED, colours, resize
from .pages import PLOT, WIDTHS, changes_of, choose, detail_of, find, models, percent, settings, texts

pytestmark = pytest.mark.slow


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
