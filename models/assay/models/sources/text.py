"""The text side of a decoder model: its tokenizer, special tokens and chat template."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import MissingDependencyError, StorageError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextSide", "check_special_ids", "check_vocabulary", "keep_tokenizer", "load_tokenizer"]

_MOST_BYTES = 1 << 27  # four times the largest


@dataclass(frozen=True, kw_only=True)
class TextSide:
    """What a source says of text: the path of a ``tokenizer.json``, ids, and the text of a Jinja template.

    ``add_bos``: text is meant to begin with ``bos_id``. ``eos_ids`` are all tokens that end a generation.
    """

    tokenizer: Path | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    add_bos: bool = False
    chat_template: str | None = None


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``; raises TokenizerError where there is none."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependencyError("tokenizers", "compile") from None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has over {_MOST_BYTES} bytes")
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    # The library raises Exception itself.
    except Exception as error:
        raise TokenizerError(f"The tokenizer {str(path)!r} cannot be used: {str(error)[:200]}.") from None


def check_vocabulary(tokenizer: Tokenizer, vocabulary: int, name: str) -> None:
    """Raises TokenizerError, naming ``name``, where the tokenizer gives ids beyond ``vocabulary``.

    Fewer tokens than rows of the embedding are usual: models pad their tables to round sizes.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    if not ids:
        raise TokenizerError(f"The tokenizer of {name} has no tokens.")
    if max(ids) >= vocabulary:
        raise TokenizerError(
            f"The tokenizer of {name} does not fit the model: its ids go up to {max(ids)}, "
            f"and the model has {vocabulary} tokens."
        )


def check_special_ids(side: TextSide, vocabulary: int, name: str) -> None:
    """Raises TokenizerError, naming ``name``, where a special token's id is beyond ``vocabulary``."""
    for what, number in (("begins", side.bos_id), *(("ends", number) for number in side.eos_ids)):
        if number is not None and not 0 <= number < vocabulary:
            raise TokenizerError(
                f"The token that {what} a text of {name} has the id {number}, "
                f"and the model has {vocabulary} tokens."
            )
    if side.add_bos and side.bos_id is None:
        raise TokenizerError(f"The texts of {name} begin with a token that it does not name.")


def keep_tokenizer(text: str, folder: Path | None = None) -> Path:
    """A file ``tokenizer.json`` with ``text`` in it, in the user's cache (or ``folder``) by its digest.

    Raises StorageError.
    """
    from assay.runtime.atomic import replace_file

    content = text.encode("utf-8")
    path = (folder or _cache_folder()) / hashlib.sha256(content).hexdigest() / "tokenizer.json"
    try:
        if not (path.is_file() and path.read_bytes() == content):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(path) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise StorageError(f"The tokenizer cannot be kept in {str(path)!r}: {error}.") from error
    return path


def _cache_folder() -> Path:
    try:
        import platformdirs
    except ImportError:
        raise MissingDependencyError("platformdirs", "compile") from None
    return Path(platformdirs.user_cache_dir("assay")) / "tokenizers"
