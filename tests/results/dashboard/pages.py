"""What tests of the pages share: looking things up in a browser, and in what was recorded."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.results.dashboard.model import Change, Entry
from assay.results.dashboard.payload import identifier

WIDTHS = [(1440, 900), (390, 844)]
PLOT = ".canvas canvas"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A static host of a folder on this machine, while the context lasts; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
