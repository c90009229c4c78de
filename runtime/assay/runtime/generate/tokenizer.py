"""Text to tokens and back, by the ``tokenizers`` library and the artifact's ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from assay.errors import MissingDependencyError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from assay.runtime.manifest import DecoderInfo

__all__ = ["TextStream", "Tokenizer"]

_REPLACEMENT = "\ufffd"  # what stands where bytes are no UTF-8, or not yet all there
_MOST_BYTES = 4  # of a character in UTF-8, and so of tokens that make up one
_CONTEXT = 6  # tokens of the prompt that are decoded with the answer, for the space between them


class Tokenizer:
    """The tokenizer of a model.

    Raises TokenizerError for content that is none or that has tokens beyond the model's vocabulary, and
    MissingDependencyError where ``tokenizers`` is not installed.
    """

    def __init__(self, content: bytes, info: DecoderInfo) -> None:
        self._content = content
        self._library = _load(content)
        self._info = info
        highest = max(self._library.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= info.vocabulary:
            raise TokenizerError(
                f"The tokenizer has the token {highest}, and the model a vocabulary of {info.vocabulary}.",
                hint="They do not belong together: build the artifact again with the model's own tokenizer.",
            )

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """The tokens of ``text``; with ``begin``, after the token that this model's texts begin with, if any.

        Special tokens in the text, such as ``<|im_end|>``, are taken as such; ``chat_tokens`` does not take
        those of a user's message so.
        """
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        if begin and self._info.add_bos and self._info.bos_ids and ids[:1] != [self._info.bos_ids[0]]:
            return [self._info.bos_ids[0], *ids]
        return ids

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The ids of special tokens by how they are written."""
        added = self._library.get_added_tokens_decoder()
        return {str(token.content): int(number) for number, token in added.items() if token.special}

    def encode_renamed(self, text: str, names: Mapping[str, str]) -> list[int]:
        """The tokens of ``text``, in which special tokens have other ``names``, by those of the vocabulary.

        The latter are nothing but text in it.
        """
        document = json.loads(self._content)
        for token in document["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        library = _load(json.dumps(document).encode())
        # A name that is in no vocabulary gets an id of its own.
        known = {library.token_to_id(name): self.special_tokens[token] for token, name in names.items()}
        return [known.get(number, number) for number in library.encode(text, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ``ids``, without special tokens unless ``special``."""
        return str(self._library.decode(list(ids), skip_special_tokens=not special))

    def token(self, number: int) -> str | None:
        """The token with this id as it stands in the vocabulary."""
        token = self._library.id_to_token(number)
        return None if token is None else str(token)

    def same_tokens(self, other: Tokenizer) -> bool:
        """Whether the ids of both mean the same."""
        return bool(self._library.get_vocab() == other._library.get_vocab())

    def stream(self, prompt: Sequence[int] = ()) -> TextStream:
        """What turns tokens that follow ``prompt`` into text, one by one."""
        return TextStream(self, prompt)


class TextStream:
    """Text of tokens that come one by one: a character comes when all of its bytes are there.

    Tokens are decoded with those before them, as a tokenizer may leave out the space of the first token of a
    text. The method is that of vLLM's ``detokenize_incrementally``.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_CONTEXT:])
        self._text = tokenizer.decode(self._ids)
        self._told = len(self._ids)  # how many of the ids are told

    def add(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is incomplete."""
        self._ids.append(token)
        whole = self._tokenizer.decode(self._ids)
        incomplete = whole.endswith(_REPLACEMENT) and len(self._ids) - self._told < _MOST_BYTES
        if incomplete or len(whole) <= len(self._text):
            return ""
        return self._tell(whole)

    def end(self) -> str:
        """What is left at the end: replacement characters for bytes that make up no character."""
        return self._tell(self._tokenizer.decode(self._ids))

    def _tell(self, whole: str) -> str:
        new = whole[len(self._text) :]
        self._ids = self._ids[-_CONTEXT:]
        self._told = len(self._ids)
        self._text = self._tokenizer.decode(self._ids)
        return new


def _load(content: bytes) -> Library:
    try:
        from tokenizers import Tokenizer as Library
    except ModuleNotFoundError:
        raise MissingDependencyError("tokenizers", "generate") from None
    try:
        return Library.from_str(content.decode("utf-8"))
    except BaseException as error:
        # The library raises plain Exception, and where it panics something that is not even that.
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TokenizerError(
            f"The artifact's tokenizer cannot be read: {reason}",
            hint="Build the artifact again with a tokenizer.json that the tokenizers library reads.",
        ) from None
