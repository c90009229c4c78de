"""The text side of a Hugging Face folder, from the files that transformers reads it from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import TokenizerError
from assay.models.sources.containment import inside
from assay.models.sources.json_file import read_object
from assay.models.sources.text import TextSide, check_special_ids, check_vocabulary, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["hf_text_side"]

_MAX_TEMPLATE_BYTES = 1 << 20


def hf_text_side(folder: Path, config: Mapping[str, Any], vocabulary: int) -> TextSide:
    """The text side of the model in ``folder``, of its ``config.json``'s object and its vocabulary's size.

    ``tokenizer.json`` is taken as it is. Texts begin with ``bos_id`` where that tokenizer puts it there. All
    of the ends that the configuration, ``generation_config.json`` and ``tokenizer_config.json`` name count.
    Raises TokenizerError for a tokenizer that cannot be used or does not fit the vocabulary, ModelError for
    another file that is damaged.
    """
    path = inside(folder, folder / "tokenizer.json")
    tokenizer = load_tokenizer(path) if path.is_file() else None
    settings = _optional(folder / "tokenizer_config.json")
    bos_id = _number(config.get("bos_token_id"))
    if bos_id is None:
        bos_id = _id_of(tokenizer, settings.get("bos_token"))
    ends = {
        *_numbers(config.get("eos_token_id")),
        *_numbers(_optional(folder / "generation_config.json").get("eos_token_id")),
        *_numbers(_id_of(tokenizer, settings.get("eos_token"))),
    }
    side = TextSide(
        tokenizer=path if tokenizer is not None else None,
        bos_id=bos_id,
        eos_ids=tuple(sorted(ends)),
        add_bos=tokenizer is not None and bos_id is not None and _begins_with(tokenizer, bos_id),
        chat_template=_template(folder, settings),
    )
    name = repr(folder.name)
    if tokenizer is not None:
        check_vocabulary(tokenizer, vocabulary, name)
    check_special_ids(side, vocabulary, name)
    return side


def _optional(path: Path) -> dict[str, Any]:
    path = inside(path.parent, path)
    return read_object(path) if path.is_file() else {}


def _begins_with(tokenizer: Tokenizer, token: int) -> bool:
    # The empty text, as a tokenizer may have no token for a letter.
    ids: list[int] = tokenizer.encode("").ids
    return ids[:1] == [token]


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or the one (called ``default`` among several) in the settings."""
    path = inside(folder, folder / "chat_template.jinja")
    if path.is_file():
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_TEMPLATE_BYTES + 1)
            if len(content) > _MAX_TEMPLATE_BYTES:
                raise TokenizerError(f"The chat template {str(path)!r} has over {_MAX_TEMPLATE_BYTES} bytes.")
            return content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"The chat template {str(path)!r} cannot be read: {error}.") from None
    template = settings.get("chat_template", _optional(folder / "chat_template.json").get("chat_template"))
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, Mapping)]
        template = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _id_of(tokenizer: Tokenizer | None, token: Any) -> int | None:
    """The id of a token that settings name by its text, or by an object with its text."""
    text = token.get("content") if isinstance(token, Mapping) else token
    if tokenizer is None or not isinstance(text, str):
        return None
    return _number(tokenizer.token_to_id(text))


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for entry in values if (number := _number(entry)) is not None]


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
