from __future__ import annotations

import subprocess
import sys

import pytest

from assay.errors import TokenizerError, UsageError
from assay.runtime.generate.chat_template import ChatTemplate, Message, Role

pytest.importorskip("jinja2", reason="the generate extra is not installed")

CHATML = """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
<|im_start|>system
Be kind<|im_end|>
    {% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
ALTERNATING = """{{ bos_token }}{% for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Roles must alternate user/assistant') }}
    {%- endif -%}
    {%- if message.content == 'skip' %}{% continue %}{% endif -%}
    {%- generation %}[{{ message.role }}] {{ message.content | trim }}{{ eos_token }}{% endgeneration -%}
{% endfor %}{{ {'a': '<ü>'} | tojson }} {{ strftime_now('%Y') | length }}"""


def user(text: str) -> Message:
    return Message(role=Role.USER, content=text)


def test_blocks_leave_no_blank_lines():
    assert ChatTemplate(CHATML).render([user("Hi")]) == (
        "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not ChatTemplate(CHATML).render([user("Hi")], answer=False).endswith("assistant\n")


def test_what_templates_expect_to_find():
    template = ChatTemplate(ALTERNATING, bos_token="<s>", eos_token="</s>")
    messages = [user(" Hi "), Message(role=Role.ASSISTANT, content="skip"), user("Ho")]
    assert template.render(messages) == '<s>[user] Hi</s>[user] Ho</s>{"a": "<ü>"} 4'


@pytest.mark.torch
@pytest.mark.parametrize("source", [CHATML, ALTERNATING])
def test_agrees_with_transformers(source):
    pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [user("One"), Message(role=Role.ASSISTANT, content="skip"), user("Zwei\n\n{{ x }}")]
    plain = [{"role": str(each.role), "content": each.content} for each in messages]
    (theirs,), _ = render_jinja_template(
        conversations=[plain],
        chat_template=source,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages) == theirs


def test_a_template_may_refuse_a_chat():
    with pytest.raises(UsageError, match="refuses this chat: Roles must alternate"):
        ChatTemplate(ALTERNATING).render([user("a"), user("b")])


def test_a_chat_needs_a_message():
    with pytest.raises(UsageError, match="at least one message"):
        ChatTemplate(CHATML).render([])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ 1 / 0 }}",
        "{{ missing.attribute }}",
        "{{ range(10 ** 9) | list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_templates_that_do_what_they_must_not(source):
    with pytest.raises(TokenizerError, match="chat template fails"):
        ChatTemplate(source).render([user("a")])


def test_a_template_that_is_none():
    with pytest.raises(TokenizerError, match="cannot be read"):
        ChatTemplate("{% for %}")


def test_missing_package():
    code = """
import sys
sys.modules["jinja2"] = None
from assay.errors import MissingDependencyError
from assay.runtime.generate.chat_template import ChatTemplate
try:
    ChatTemplate("x")
except MissingDependencyError as error:
    assert "pip install '.[generate]'" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
