"""Chats as text: a model's own Jinja template, rendered as transformers does.

Templates come with models and are not trusted: they run in jinja2's sandbox, on copies of plain data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from assay.errors import MissingDependencyError, TokenizerError, UsageError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["ChatTemplate", "Message", "Role"]


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str


class ChatTemplate:
    """A template, with the text of the tokens that begin and end a text.

    Raises TokenizerError for a template that is none, and MissingDependencyError where jinja2 is not
    installed.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self._template = _compile(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The chat as text; with ``answer``, up to where the model's answer begins.

        Raises UsageError for a chat without messages or one that the template refuses.
        """
        if not messages:
            raise UsageError("A chat needs at least one message.")
        import jinja2

        try:
            return self._template.render(
                messages=[{"role": str(message.role), "content": message.content} for message in messages],
                add_generation_prompt=answer,
                **self._tokens,
            )
        except _Refused as error:
            raise UsageError(f"The model's chat template refuses this chat: {error}") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise TokenizerError(f"The model's chat template fails: {_first_line(error)}") from None
        except (RecursionError, MemoryError) as error:
            raise TokenizerError(f"The model's chat template fails: {type(error).__name__}") from None


class _Refused(Exception):
    """Raised by a template through ``raise_exception``."""


def _compile(source: str) -> Template:
    try:
        import jinja2
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise MissingDependencyError("jinja2", "generate") from None

    class Generation(Extension):
        """``{% generation %}`` marks the answers for training, and changes nothing of the text."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise TokenizerError(f"The model's chat template cannot be read: {_first_line(error)}") from None


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own escapes what is special in HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
