"""asv's pages within the site: libraries that they load from elsewhere are taken from files beside them.

Elements are found by an HTML parser. Those of known libraries are rewritten, everything else stays as it is,
byte for byte. What a browser may find beyond that, a Content-Security-Policy stops, which is put first.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from assay.errors import UsageError
from assay.results.dashboard.vendor import read_packages

__all__ = ["POLICY", "VENDOR", "Library", "copy_pages", "known_libraries", "rewrite", "why_left_out"]

VENDOR = "vendor"
"""The folder, beside the pages, that the libraries are copied to."""

POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self' data: 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'\">"
)

_SUFFIXES = (".html", ".htm")
_SHOWN = 3
# What a browser loads by itself; "href" too, but for links that a person follows.
_LOADING = ("src", "srcset", "imagesrcset", "poster", "background", "data", "xlink:href")
_FOLLOWED = ("a", "area")
# Relations of <link> for which nothing is loaded.
_INERT = frozenset({"alternate", "author", "bookmark", "canonical", "help", "license", "next", "prev"})
# The element of a library, and the attribute that has its address.
_LIBRARIES = (("script", "src"), ("link", "href"))

_Attributes = list[tuple[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Library:
    """A file that is kept here: its name, and its bytes."""

    name: str
    content: bytes

    def matches(self, integrity: str) -> bool:
        """Whether all digests of an ``integrity`` attribute are of these bytes."""
        digests = integrity.split()
        return bool(digests) and all(self._has(digest) for digest in digests)

    def _has(self, digest: str) -> bool:
        algorithm, _, expected = digest.partition("-")
        if algorithm not in ("sha256", "sha384", "sha512"):
            return False
        return base64.b64encode(hashlib.new(algorithm, self.content).digest()).decode() == expected


def known_libraries() -> dict[str, Library]:
    """The libraries that asv's pages load, by their addresses on the web."""
    source = importlib.resources.files("assay.results.dashboard") / "asv_vendor"
    with importlib.resources.as_file(source) as folder:
        return {
            address: Library(name=file.name, content=(folder / file.name).read_bytes())
            for package in read_packages(folder)
            for file in package.files
            for address in file.replaces
        }


def rewrite(text: str, libraries: Mapping[str, Library], vendor: str) -> tuple[str, list[str]]:
    """A page with the addresses of ``libraries`` replaced by files in the folder at the address ``vendor``.

    Also what else it would load from elsewhere, in the order of the page; such a page is not to be shown.
    ``integrity`` stays where it is that of the file. Raises ValueError for text that is not HTML.
    """
    page = _Page(text, libraries, vendor)
    try:
        page.feed(text)
        page.close()
    except AssertionError as error:  # html.parser, of some malformed declarations
        raise ValueError(str(error)) from error
    return page.rewritten(), page.foreign


def why_left_out(folder: Path) -> str | None:
    """Why the pages that ``asv publish`` wrote to ``folder`` cannot be part of the site; None if they can."""
    libraries = known_libraries()
    for path in _pages(folder):
        name = path.relative_to(folder)
        try:
            _, foreign = rewrite(path.read_bytes().decode(), libraries, VENDOR)
        except OSError as error:
            return f"asv's pages in {folder} are left out: {name} cannot be read: {error.strerror}."
        except ValueError:  # UnicodeDecodeError too
            return f"asv's pages in {folder} are left out: {name} is not HTML in UTF-8."
        if foreign:
            more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
            return (
                f"asv's pages in {folder} are left out: {name} loads {', '.join(foreign[:_SHOWN])}{more} "
                "from elsewhere, of which Assay has no copy. `asv preview` shows them."
            )
    return None


def copy_pages(source: Path, destination: Path) -> None:
    """Copy what ``asv publish`` wrote, so that nothing in it is loaded from elsewhere.

    Raises UsageError for pages for which ``why_left_out`` has a reason.
    """
    reason = why_left_out(source)
    if reason is not None:
        raise UsageError(reason)
    shutil.copytree(source, destination)
    libraries = known_libraries()
    for path in _pages(destination):
        depth = len(path.relative_to(destination).parts) - 1
        text, _ = rewrite(path.read_bytes().decode(), libraries, "../" * depth + VENDOR)
        path.write_bytes(text.encode())
    vendored = importlib.resources.files("assay.results.dashboard") / "asv_vendor"
    with importlib.resources.as_file(vendored) as folder:
        shutil.copytree(
            folder, destination / VENDOR, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )


def _pages(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


class _Page(HTMLParser):
    """Finds what a page loads, and replaces the start tags of known libraries in its text."""

    def __init__(self, text: str, libraries: Mapping[str, Library], vendor: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self._text = text
        self._libraries = libraries
        self._vendor = vendor
        self._lines = [0]
        for line in text.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)
        # Where to put the policy: first of all, but for a doctype, which has to stay the first.
        self._start = 1 if text.startswith("\ufeff") else 0
        self._replacements: list[tuple[int, int, str]] = []

    def handle_decl(self, decl: str) -> None:
        position = self._position()
        if decl.lower().startswith("doctype") and not self._text[:position].strip("\ufeff \t\r\n\f"):
            self._start = position + len(f"<!{decl}>")

    def handle_starttag(self, tag: str, attrs: _Attributes) -> None:
        found: dict[str, str] = {}
        for name, value in attrs:
            found.setdefault(name, value or "")  # of attributes of the same name, browsers take the first
        library = self._library(tag, found)
        if library is not None:
            self._replace(tag, found, library)
            del found["src" if tag == "script" else "href"]
        self.foreign += [_shown(address) for address in _loaded(tag, found) if _is_elsewhere(address)]

    def _library(self, tag: str, found: Mapping[str, str]) -> Library | None:
        for element, attribute in _LIBRARIES:
            if tag == element and attribute in found:
                address = _normalised(found[attribute])
                return self._libraries.get(f"https:{address}" if address.startswith("//") else address)
        return None

    def _replace(self, tag: str, found: Mapping[str, str], library: Library) -> None:
        kept = dict(found) | {"src" if tag == "script" else "href": f"{self._vendor}/{library.name}"}
        kept.pop("crossorigin", None)
        kept.pop("referrerpolicy", None)
        if "integrity" in kept and not library.matches(kept["integrity"]):
            del kept["integrity"]
        written = "".join(f' {name}="{html.escape(value)}"' for name, value in kept.items())
        position = self._position()
        end = position + len(self.get_starttag_text() or "")
        self._replacements.append((position, end, f"<{tag}{written}>"))

    def _position(self) -> int:
        line, offset = self.getpos()
        return self._lines[line - 1] + offset

    def rewritten(self) -> str:
        parts, done = [self._text[: self._start], POLICY], self._start
        for position, end, replacement in self._replacements:
            parts += [self._text[done:position], replacement]
            done = end
        return "".join([*parts, self._text[done:]])


def _loaded(tag: str, found: Mapping[str, str]) -> Iterator[str]:
    """The addresses that a browser goes to by itself for an element."""
    if tag == "base" or found.get("http-equiv", "").lower() == "refresh":
        # Both lead everything elsewhere, the files beside the page included.
        yield f"<{tag}>"
        return
    for name in _LOADING:
        if name in found:
            yield from _candidates(found[name]) if name.endswith("srcset") else [found[name]]
    if "href" not in found or tag in _FOLLOWED:
        return
    if tag == "link" and {*found.get("rel", "").lower().split()} <= _INERT:
        return
    yield found["href"]


def _candidates(srcset: str) -> Sequence[str]:
    return srcset.replace(",", " ").split()


def _normalised(address: str) -> str:
    """An address as browsers read it, https://url.spec.whatwg.org/#concept-basic-url-parser."""
    for ignored in "\t\r\n":
        address = address.replace(ignored, "")
    return address.strip("".join(map(chr, range(0x21)))).replace("\\", "/")


def _is_elsewhere(address: str) -> bool:
    """Whether an address is not one of the same host. Data in the address itself is not loaded."""
    address = _normalised(address)
    if address.startswith(("//", "<")):
        return True
    # Without a ":" before the first "/", "?" or "#" it has no scheme.
    scheme, colon, _ = address.partition(":")
    return bool(colon) and not {*"/?#"} & {*scheme} and scheme.lower() != "data"


def _shown(address: str) -> str:
    """An address without what steers a terminal, and not of any length."""
    return "".join(character if character.isprintable() else "\ufffd" for character in address[:200])
