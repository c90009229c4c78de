"""A chat: messages, the model's template, and a place in the cache that keeps what was said."""

from __future__ import annotations

from typing import Any

from assay.runtime.generate.chat_template import Message, Role
from assay.runtime.generate.chat_tokens import chat_tokens
from assay.runtime.generate.decoder import Decoder
from assay.runtime.generate.generation import Generation

__all__ = ["Conversation"]


class Conversation:
    """Messages in turn; each call computes only what the cache does not hold.

    ``settings`` go to ``Decoder.generate``. Raises TokenizerError for a model without a chat template.
    """

    def __init__(self, decoder: Decoder, *, system: str | None = None, **settings: Any) -> None:
        self._decoder = decoder
        self._template = decoder.chat_template
        self._settings = settings
        self._system = system
        self._sequence = decoder.sequence()
        self.messages: list[Message] = []
        self.reset()

    def reset(self) -> None:
        """Forget all messages but the system's."""
        system = self._system
        self.messages = [] if system is None else [Message(role=Role.SYSTEM, content=system)]

    def ask(self, text: str) -> Generation:
        """The answer to a message of the user, as it comes; ``keep`` what came of it when it ended.

        Raises InterfaceError, and forgets the message, where the chat is longer than the context.
        """
        self.messages.append(Message(role=Role.USER, content=text))
        try:
            prompt = chat_tokens(self._decoder.tokenizer, self._template, self.messages)
            return self._decoder.generate(prompt, sequence=self._sequence, **self._settings)
        except BaseException:
            self.messages.pop()
            raise

    def keep(self, answer: str) -> None:
        """Note the answer to the last message, the whole one or as far as it came."""
        self.messages.append(Message(role=Role.ASSISTANT, content=answer))

    def close(self) -> None:
        """Give the cache back."""
        self._sequence.close()
