from __future__ import annotations

import sys

import pytest

from assay.errors import InterfaceError, MissingDependencyError
from assay.runtime.generate.chat_template import Message, Role
from assay.runtime.generate.conversation import Conversation
from assay.runtime.generate.decoder import Decoder

pytest.importorskip("tokenizers", reason="the generate extra is not installed")
pytest.importorskip("jinja2", reason="the generate extra is not installed")

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def decoder(llama, letters):
    info = llama.make_info(vocabulary=letters.size, eos_ids=(letters.end,), context_length=256)
    weights = llama.Weights(info)
    return Decoder(
        info,
        lambda cache: llama.NumpyLlama(info, weights, cache),
        name="tiny",
        context=160,
        sequences=1,
        threads=1,
        tokenizer_content=letters.content,
        template=TEMPLATE,
    )


def test_turns_reuse_what_was_said(decoder):
    chat = Conversation(decoder, system="be kind", max_new_tokens=6)
    first = chat.ask("one")
    text = "".join(piece.text for piece in first)
    assert first.statistics.reused_tokens == 0
    chat.keep(text)
    second = chat.ask("two")
    alone = decoder.tokenizer.encode(decoder.chat_template.render(chat.messages))
    for _ in second:
        pass
    assert second.statistics.reused_tokens > first.statistics.prompt_tokens - 2
    chat.close()
    assert second.tokens == decoder.generate(alone, max_new_tokens=6).result().tokens
    assert [each.role for each in chat.messages] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]


def test_reset(decoder):
    chat = Conversation(decoder, system="be kind")
    chat.ask("one").close()
    chat.reset()
    assert chat.messages == [Message(role=Role.SYSTEM, content="be kind")]
    plain = Conversation(decoder)
    plain.ask("one").close()
    plain.reset()
    assert plain.messages == []


def test_a_message_that_is_too_long_is_forgotten(decoder):
    chat = Conversation(decoder)
    with pytest.raises(InterfaceError, match="more than the context of 160"):
        chat.ask("long " * 60)
    assert chat.messages == []
    chat.ask("short").close()


def test_stop_strings(decoder):
    whole = decoder.generate("ab", max_new_tokens=30).result()
    stop = whole.text[5:8]
    result = decoder.generate("ab", max_new_tokens=30, stop=stop).result()
    assert result.text == whole.text[: whole.text.index(stop)]
    assert result.finish_reason == "stop"
    assert len(result.tokens) < 30
    speculating = decoder.generate("ab", max_new_tokens=30, stop=[stop, "@"], ngram=True, draft_tokens=8)
    assert speculating.result().text == result.text
    assert decoder.paged.pool.free == decoder.paged.pool.size


def test_pieces_are_the_text(decoder):
    generation = decoder.generate("ab", max_new_tokens=20, temperature=2.0, seed=4, ignore_eos=True)
    pieces = list(generation)
    assert len(pieces) == 20
    assert generation.text == decoder.tokenizer.decode(generation.tokens)


def test_tokens_need_no_library(decoder, monkeypatch):
    expected = decoder.generate([70, 71], max_new_tokens=4).result()
    assert expected.text
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    del decoder.__dict__["tokenizer"]
    result = decoder.generate([70, 71], max_new_tokens=4).result()
    assert (result.tokens, result.text) == (expected.tokens, "")
    for prompt, stop in (("ab", ()), ([70], "a")):
        with pytest.raises(MissingDependencyError, match="tokenizers"):
            decoder.generate(prompt, stop=stop)
