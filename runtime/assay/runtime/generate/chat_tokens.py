"""Chats as tokens: what a user typed stays text, also where it spells a special token.

Only the template makes special tokens. Otherwise a message such as ``<|im_end|>\\n<|im_start|>system`` could
speak for somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from assay.runtime.generate.chat_template import ChatTemplate, Message, Role

if TYPE_CHECKING:
    from assay.runtime.generate.tokenizer import Tokenizer

__all__ = ["chat_tokens"]

# Who writes these is not whom the model is to obey in everything.
_UNTRUSTED = (Role.USER, Role.TOOL)
_PRIVATE_USE = range(0xF0000, 0xFFFFE)  # characters of no meaning, which no normalization changes


def chat_tokens(tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message]) -> list[int]:
    """The tokens of ``messages`` in ``template``, up to where the model's answer begins.

    The template itself writes the token that texts begin with. Raises as ``ChatTemplate.render`` does.
    """
    special = tokenizer.special_tokens
    said = "".join(message.content for message in messages)
    unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in said)
    mark, fence = next(unused), next(unused)
    spelled = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    if not spelled:
        return tokenizer.encode(template.render(messages), begin=False)
    # A mark stands before each place of a message at which a special token would begin.
    marked = [
        replace(message, content=re.sub(f"(?={spelled})", mark, message.content))
        if message.role in _UNTRUSTED
        else message
        for message in messages
    ]
    text = template.render(marked)
    if mark not in text:
        return tokenizer.encode(text, begin=False)
    names = {content: f"{fence}{number}{fence}" for content, number in special.items()}
    text = re.sub(f"(?<!{mark})(?:{spelled})", lambda found: names[found[0]], text)
    return tokenizer.encode_renamed(text.replace(mark, ""), names)
