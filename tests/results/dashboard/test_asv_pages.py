from __future__ import annotations

import base64
import hashlib
import importlib.util
from html.parser import HTMLParser
from pathlib import Path

import pytest

from assay.errors import UsageError
from assay.results.dashboard.asv_pages import (
    POLICY,
    VENDOR,
    Library,
    copy_pages,
    known_libraries,
    rewrite,
    why_left_out,
)

ADDRESS = "https://cdn.example/library.js"
STYLE = "https://cdn.example/library.css"
CONTENT = b"let library;\n"
LIBRARIES = {
    ADDRESS: Library(name="library.js", content=CONTENT),
    STYLE: Library(name="library.css", content=b"p {}\n"),
}
SRI = "sha256-" + base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
STRONGER = "sha512-" + base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
OTHER = "sha256-" + base64.b64encode(bytes(32)).decode()


def asv_templates() -> Path:
    """The pages of the asv that is installed; it is not imported, which takes seconds."""
    found = importlib.util.find_spec("asv")
    if found is None or found.origin is None:
        pytest.skip("needs asv: pip install asv")
    return Path(found.origin).parent / "www"


class Elements(HTMLParser):
    """The start tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def rewritten(text: str) -> str:
    """The page without the policy, where nothing is foreign."""
    page, foreign = rewrite(text, LIBRARIES, VENDOR)
    assert foreign == []
    assert page.count(POLICY) == 1
    return page.replace(POLICY, "")


def foreign_in(text: str) -> list[str]:
    return rewrite(text, LIBRARIES, VENDOR)[1]


def test_every_library_of_the_installed_asv_is_known():
    templates = asv_templates()
    assert why_left_out(templates) is None
    text = (templates / "index.html").read_text()
    page, foreign = rewrite(text, known_libraries(), VENDOR)
    assert foreign == []
    before, after = Elements(text).found, Elements(page).found
    assert [tag for tag, _ in after if tag != "meta"] == [tag for tag, _ in before if tag != "meta"]
    loaded = [attributes.get("src") or attributes.get("href") or "" for _, attributes in before]
    assert {address for address in loaded if address in known_libraries()} == set(known_libraries())
    for tag, attributes in after:
        if tag in ("script", "link"):
            assert "//" not in (attributes.get("src") or attributes.get("href") or "")


def test_digests_of_asv_hold_where_they_are_kept():
    text, _ = rewrite((asv_templates() / "index.html").read_text(), known_libraries(), VENDOR)
    kept = {}
    for _, attributes in Elements(text).found:
        name = (attributes.get("src") or attributes.get("href") or "").removeprefix(f"{VENDOR}/")
        if attributes.get("integrity"):
            kept[name] = attributes["integrity"]
    by_name = {library.name: library for library in known_libraries().values()}
    assert all(by_name[name].matches(integrity) for name, integrity in kept.items())
    # What npm has byte for byte as the host that asv names; Flot and Stupid Table it has otherwise.
    assert set(kept) == {
        "jquery.js", "jquery.flot.orderBars.js", "md5.js", "bootstrap.js", "bootstrap.css",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'<script src="{ADDRESS}"></script>', '<script src="vendor/library.js"></script>'),
        (f"<SCRIPT\n  SRC = {ADDRESS}\n></SCRIPT>", '<script src="vendor/library.js"></SCRIPT>'),
        (f"<script src=' {ADDRESS}\n'></script>", '<script src="vendor/library.js"></script>'),
        ('<script src="//cdn.example/library.js"></script>', '<script src="vendor/library.js"></script>'),
        (
            '<script src="https:&#47;&#47;cdn.example/library.js"></script>',
            '<script src="vendor/library.js"></script>',
        ),
        (
            f'<link rel="stylesheet" href="{STYLE}" media="print"/>',
            '<link rel="stylesheet" href="vendor/library.css" media="print">',
        ),
        # The first of attributes of the same name counts; values stay values.
        (
            f'<script src="{ADDRESS}" src="https://other.example/x.js" onerror=\'f("&lt;")\'></script>',
            '<script src="vendor/library.js" onerror="f(&quot;&lt;&quot;)"></script>',
        ),
        (
            f'<script async src="{ADDRESS}" crossorigin="anonymous" referrerpolicy="no-referrer"></script>',
            '<script async="" src="vendor/library.js"></script>',
        ),
        (
            f'<script src="{ADDRESS}" integrity="{SRI} {STRONGER}"></script>',
            f'<script src="vendor/library.js" integrity="{SRI} {STRONGER}"></script>',
        ),
        (
            f'<script src="{ADDRESS}" integrity="{SRI} {OTHER}"></script>',
            '<script src="vendor/library.js"></script>',
        ),
        (f'<script src="{ADDRESS}" integrity="md5-x"></script>', '<script src="vendor/library.js"></script>'),
    ],
)  # fmt: skip
def test_elements_of_known_libraries_are_rewritten(before: str, after: str):
    assert rewritten(f"<p>\r\n{before}\r\né</p>\n") == f"<p>\r\n{after}\r\né</p>\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text & no markup <",
        '<script src="asv.js"></script><link href="a.css" rel="stylesheet">',
        '<img src="data:image/png;base64,AA//">',
        f'<a href="{ADDRESS}">source</a><area href="https://elsewhere.example/">',
        '<link rel="alternate" href="https://elsewhere.example/feed.xml">',
        f'<!-- <script src="{ADDRESS}"></script> -->',
        f"<script>const text = '<script src=\"{ADDRESS}\">';</script>",
        f'<p title="<script src={ADDRESS}>">',
        '<img src="./a:b.png"><img src="?a:b"><img srcset="a.png 1x, b.png 2x">',
        f'<script src="{ADDRESS}"',
        "<![CDATA[ x ]]><?php ?><p",
    ],
)
def test_everything_else_stays_as_it_is(text: str):
    assert rewritten(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://elsewhere.example/x.js"></script>',
        '<script src="https://cdn.example/library.js?2"></script>',
        '<script src="http://cdn.example/library.js"></script>',
        '<script src="//elsewhere.example/x.js"></script>',
        '<script src="\\\\elsewhere.example\\x.js"></script>',
        '<script src=" ht\ntps://elsewhere.example/x.js"></script>',
        '<script src="HTTPS:elsewhere.example/x.js"></script>',
        '<script src="/\t/elsewhere.example/x.js"></script>',
        '<ScRiPt/src=https://elsewhere.example/x.js></sCrIpT>',
        f'<img src="{ADDRESS}">',
        '<img srcset="a.png 1x, https://elsewhere.example/a.png 2x">',
        '<link rel="preconnect" href="https://elsewhere.example">',
        '<link rel="alternate stylesheet" href="https://elsewhere.example/x.css">',
        '<iframe src="javascript:alert(1)"></iframe>',
        '<object data="https://elsewhere.example/x"></object>',
        '<video poster="https://elsewhere.example/x.png"></video>',
        '<svg><script xlink:href="https://elsewhere.example/x.js"></script></svg>',
        '<svg><image href="https://elsewhere.example/x.png"/></svg>',
        '<base href="https://elsewhere.example/">',
        '<base href="deeper/">',
        '<meta http-equiv="Refresh" content="0; url=https://elsewhere.example/">',
        "<noscript><img src=https://elsewhere.example/x.png></noscript>",
    ],
)  # fmt: skip
def test_what_is_loaded_from_elsewhere_is_found(text: str):
    assert len(foreign_in(f'<!doctype html><script src="{ADDRESS}"></script>{text}')) == 1


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("<!doctype html>\n<html><head>", len("<!doctype html>")),
        ("\ufeff \n<!DOCTYPE html PUBLIC '-//W3C//DTD HTML 4.01//EN'><p>", 0),
        ("<html><head>", 0),
        ("\ufeff<html>", 1),
        # Browsers end this comment at its first ">": the policy has to come before.
        ('<!--><script src="https://elsewhere.example/x.js"></script>--><!doctype html>', 0),
        ("<p>text</p><!doctype html>", 0),
    ],
)
def test_the_policy_comes_before_everything_that_may_load(text: str, start: int):
    page, _ = rewrite(text, LIBRARIES, VENDOR)
    if text[:1] == "\ufeff" and "DOCTYPE" in text:
        start = text.index(">") + 1
    assert page == text[:start] + POLICY + text[start:]


def asv_folder(folder: Path, page: str | bytes) -> Path:
    (folder / "deeper").mkdir(parents=True)
    (folder / "index.html").write_text(f'<script src="{next(iter(known_libraries()))}"></script>')
    (folder / "deeper" / "Page.HTML").write_bytes(page if isinstance(page, bytes) else page.encode())
    (folder / "index.json").write_text(f'{{"x": "<script src={ADDRESS}>"}}')
    return folder


def test_pages_of_all_depths_lead_to_the_same_files(tmp_path: Path):
    address, library = next(iter(known_libraries().items()))
    source = asv_folder(tmp_path / "html", f'<script src="{address}"></script>')
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    copy_pages(source, tmp_path / "site/asv")
    copied = tmp_path / "site/asv"
    assert f'src="{VENDOR}/{library.name}"' in (copied / "index.html").read_text()
    assert f'src="../{VENDOR}/{library.name}"' in (copied / "deeper/Page.HTML").read_text()
    assert (copied / "index.json").read_bytes() == (source / "index.json").read_bytes()
    assert (copied / VENDOR / library.name).read_bytes() == library.content
    assert (copied / VENDOR / "jquery.LICENSE").is_file()
    assert {path: path.read_bytes() for path in before} == before
    # A copy can be copied again.
    copy_pages(copied, tmp_path / "again")
    assert (tmp_path / "again" / VENDOR / library.name).is_file()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (
            "".join(f'<img src="https://e.example/\x1b{n}">' for n in range(5)),
            "https://e.example/\ufffd1, https://e.example/\ufffd2 and 2 more from elsewhere",
        ),
        (b"\xff\xfe<\0p\0>\0", "is not HTML in UTF-8"),
    ],
)
def test_pages_that_need_the_web_are_left_out_with_the_reason(tmp_path: Path, page: str | bytes, reason: str):
    source = asv_folder(tmp_path / "html", page)
    told = why_left_out(source)
    assert told is not None
    assert reason in told
    assert "deeper/Page.HTML" in told
    with pytest.raises(UsageError, match="left out"):
        copy_pages(source, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_malformed_declarations_are_not_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise AssertionError("unknown status keyword")  # what html.parser of some versions does

    monkeypatch.setattr(HTMLParser, "parse_html_declaration", fail)
    with pytest.raises(ValueError, match="unknown status keyword"):
        rewrite("<![if x]>", LIBRARIES, VENDOR)
    assert "is not HTML" in str(why_left_out(asv_folder(tmp_path, "<![if x]>")))
