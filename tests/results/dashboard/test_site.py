from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from assay.errors import UsageError
from assay.results.dashboard.asv_pages import POLICY
from assay.results.dashboard.model import Configuration, Entry, Machine
from assay.results.dashboard.site import MARKER, PAGES, SiteOptions, commit_address, write_site

from .conftest import GENERATED, HOSTILE

OPTIONS = SiteOptions(title="Assay benchmarks", generated=GENERATED)


class Links(HTMLParser):
    """Everything in a page that a browser loads or leads to, every inline script, handler and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.policy = ""
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self._in = tag if tag in ("script", "style") else None
        self.links += [found[name] or "" for name in ("src", "href") if name in found]
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_data(self, data: str) -> None:
        if self._in and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in = None


@pytest.mark.parametrize("name", PAGES)
def test_pages_load_only_files_of_their_folder(site: Path, name: str):
    page = Links((site / name).read_text())
    loaded = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert loaded
    for link in loaded:
        assert not re.match(r"[a-z]+:|//", link), link
        assert (site / link).is_file(), link
    assert page.inline == []
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "img-src": "'self' data:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_scripts_and_styles_name_no_other_host(site: Path):
    for path in [*site.glob("static/*.js"), *site.glob("static/*.css"), site / "static/vendor/uplot.css"]:
        addresses = re.findall(
            r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
        )
        assert [each for each in addresses if "www.w3.org" not in each] == [], path
        assert "innerHTML" not in path.read_text()


def test_every_row_has_its_data_file(site: Path):
    identifiers = set(re.findall(r'"id":"([0-9a-f]{16})"', (site / "data/index.js").read_text()))
    assert {path.stem for path in (site / "data").iterdir()} == identifiers | {"index"}


def hostile_entry() -> Entry:
    configuration = Configuration(
        model=HOSTILE, weights="trained", sizes=HOSTILE, target=HOSTILE, scheme=HOSTILE, profile=HOSTILE,
        threads=1, machine=Machine(name="x", cpu=HOSTILE, cpus=1),
    )  # fmt: skip
    return Entry(configuration=configuration, lines=())


def test_hostile_titles_are_escaped_and_names_stay_out_of_pages(tmp_path: Path):
    options = SiteOptions(title=HOSTILE, generated=GENERATED, subjects={"0" * 40: HOSTILE})
    write_site(tmp_path / "site", [hostile_entry()], options)
    for name in PAGES:
        page = Links((tmp_path / "site" / name).read_text())
        assert page.inline == []
        assert not any("pwned" in link for link in page.links)
    for path in (tmp_path / "site/data").iterdir():
        assert b"</script" not in path.read_bytes()


def test_a_site_of_ours_is_replaced_and_nobody_elses(tmp_path: Path):
    folder = tmp_path / "site"
    write_site(folder, [hostile_entry()], OPTIONS)
    write_site(folder, [], OPTIONS)
    assert [path.name for path in (folder / "data").iterdir()] == ["index.js"]
    (folder / MARKER).unlink()
    with pytest.raises(UsageError, match="not of a dashboard"):
        write_site(folder, [], OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert write_site(tmp_path / "empty", [], OPTIONS)["rows"] == 0
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not a folder"):
        write_site(tmp_path / "file", [], OPTIONS)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_leaves_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_site(tmp_path / "site", [], OPTIONS)
    before = (tmp_path / "site/index.html").read_bytes()

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("assay.results.dashboard.site._pages", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        write_site(tmp_path / "site", [hostile_entry()], OPTIONS)
    assert (tmp_path / "site/index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_pages_of_asv_lie_within_the_site_and_are_linked(tmp_path: Path):
    pages = tmp_path / "html"
    pages.mkdir()
    options = SiteOptions(title="Assay", generated=GENERATED, asv=pages)
    with pytest.raises(UsageError, match=r"no index\.html"):
        write_site(tmp_path / "site", [], options)
    (pages / "index.html").write_text("asv")
    write_site(tmp_path / "site", [], options)
    assert "asv/index.html" in Links((tmp_path / "site/index.html").read_text()).links
    assert (tmp_path / "site/asv/index.html").read_text() == f"{POLICY}asv"


def test_pages_of_asv_that_need_the_web_are_no_part_of_a_site(tmp_path: Path):
    pages = tmp_path / "html"
    pages.mkdir()
    (pages / "index.html").write_text('<script src="https://elsewhere.example/x.js"></script>')
    with pytest.raises(UsageError, match=r"loads https://elsewhere\.example/x\.js from elsewhere"):
        write_site(tmp_path / "site", [], SiteOptions(title="Assay", generated=GENERATED, asv=pages))
    assert [path.name for path in tmp_path.iterdir()] == ["html"]


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        (None, None),
        ("https://example.org/us/assay", "https://example.org/us/assay/commit/{commit}"),
        ("https://example.org/us/assay/", "https://example.org/us/assay/commit/{commit}"),
        ("https://example.org/?c={commit}", "https://example.org/?c={commit}"),
    ],
)
def test_addresses_of_commits(repository, expected):
    assert commit_address(repository) == expected


@pytest.mark.parametrize(
    "repository", ["javascript:alert(1)", "file:///etc", "example.org/assay", "https://", ""]
)
def test_only_addresses_of_the_web_become_links(repository):
    with pytest.raises(UsageError, match="not the address of a repository"):
        commit_address(repository)
