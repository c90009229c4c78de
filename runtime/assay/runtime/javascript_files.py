"""The JavaScript loader as files of an artifact, so that its folder can be served as it is."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["is_javascript", "javascript_files"]

_FOLDER = "javascript"
_PAGE = "index.html"


def javascript_files() -> dict[str, bytes | Path]:
    """The npm package of the loader below ``javascript/``, and ``index.html``, which runs the model."""
    source = Path(__file__).parent / _FOLDER
    names = sorted(path.name for path in source.iterdir() if path.suffix in (".js", ".ts", ".json"))
    return {_PAGE: source / _PAGE, **{f"{_FOLDER}/{name}": source / name for name in names}}


def is_javascript(name: str) -> bool:
    """Whether the file of an artifact with this name is one of those."""
    return name == _PAGE or PurePosixPath(name).parts[0] == _FOLDER
