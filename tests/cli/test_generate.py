"""`assay generate` and `assay chat` on a tiny model in NumPy that stands in for an artifact."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from pathlib import Path

import click.testing
import pytest

import assay.runtime.generate.loading
from assay.cli.commands import chat as chat_command
from assay.cli.main import main
from assay.runtime.devices.device import DeviceInfo
from assay.runtime.generate.decoder import Decoder

pytest.importorskip("tokenizers", reason="the generate extra is not installed")
pytest.importorskip("jinja2", reason="the generate extra is not installed")

TEMPLATE = (
    "{% for message in messages %}{% if message.content == 'refuse' %}{{ raise_exception('No') }}{% endif %}"
    "{{ message.role[0] }}{{ message.content }}</s>{% endfor %}"
)


@pytest.fixture(scope="module")
def llama():
    path = Path(__file__).parents[1] / "runtime" / "generate" / "numpy_llama.py"
    spec = importlib.util.spec_from_file_location("assay_tests_cli_numpy_llama", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def decoders(monkeypatch, llama):
    """Loads a tiny model for any path but ``missing``; ``plain`` has neither tokenizer nor template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["</s>"])
    content = library.to_str().encode()
    loaded = []

    def load_decoder(path, *, threads=None, context=None, level=None, device=None, **_):
        name = Path(path).name
        if name == "missing":
            return real(path, threads=threads, context=context, level=level)
        info = llama.make_info(vocabulary=257, eos_ids=())
        weights = llama.Weights(info, seed=len(name))
        decoder = Decoder(
            info,
            lambda cache: llama.NumpyLlama(info, weights, cache),
            name=name,
            context=context or 128,
            sequences=1,
            threads=threads or 1,
            tokenizer_content=None if name == "plain" else content,
            template=None if name in ("plain", "base") else TEMPLATE,
            device=None if device is None else DeviceInfo(api=device, index=1, name="test"),
        )
        loaded.append(decoder)
        return decoder

    real = assay.runtime.generate.loading.load_decoder
    monkeypatch.setattr(assay.runtime.generate.loading, "load_decoder", load_decoder)
    return loaded


def test_streams_the_text(cli):
    result = cli("generate", "tiny", "--prompt", "ab", "-n", 8)
    data = cli.json("generate", "tiny", "--prompt", "ab", "-n", 8)
    assert result.stdout == data["text"] + "\n"
    assert "2 tokens of prompt, first token after" in result.stderr
    assert "8 new" in result.stderr


def test_json(cli):
    data = cli.json("generate", "tiny", "--prompt", "abc", "-n", 6, "--threads", 3, "--context", 50)
    assert data["model"] == "tiny"
    assert (data["threads"], data["context"], data["prompt_tokens"], data["new_tokens"]) == (3, 50, 3, 6)
    assert len(data["tokens"]) == 6
    assert data["finish_reason"] == "length"
    assert data["ttft_seconds"] > data["prefill_seconds"] > 0
    assert data["decode_tokens_per_second"] > 0
    assert data["acceptance_rate"] is None
    assert data["peak_memory_bytes"] > 1 << 20


def test_the_device_that_is_asked_for(cli):
    for option, expected in ([], "cpu"), (["--device", "opencl"], "opencl:1"):
        data = cli.json("generate", "tiny", "--prompt", "a", "-n", 1, *option)
        assert data["device"] == expected


@pytest.mark.parametrize("how", [["--ngram"], ["--draft", "other"], ["--draft", "tiny", "--draft-tokens", 3]])
def test_speculation_gives_the_same_text(cli, how):
    plain = cli.json("generate", "tiny", "--prompt", "abab abab abab", "-n", 20)
    found = cli.json("generate", "tiny", "--prompt", "abab abab abab", "-n", 20, *how)
    assert found["tokens"] == plain["tokens"]
    assert found["passes"] <= plain["passes"]
    if "tiny" in how:
        assert found["acceptance_rate"] == 1


def test_sampling_and_seeds(cli):
    options = ["generate", "tiny", "-p", "ab", "-n", 10, "--temperature", 1.5, "--top-k", 50, "--min-p", 0.01]
    texts = [cli.json(*options, "--seed", seed)["tokens"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    free = cli.json(*options)
    assert cli.json(*options, "--seed", free["seed"])["tokens"] == free["tokens"]


def test_where_the_prompt_comes_from(cli, tmp_path):
    expected = cli.json("generate", "tiny", "-p", "häh", "-n", 5)
    file = tmp_path / "prompt.txt"
    file.write_text("häh")
    assert cli.json("generate", "tiny", "--prompt-file", file, "-n", 5)["tokens"] == expected["tokens"]
    for arguments in ([], ["--prompt-file", "-"]):
        result = click.testing.CliRunner().invoke(
            main, ["generate", "tiny", "-n", "5", "--json", *arguments], input="häh"
        )
        assert json.loads(result.stdout)["tokens"] == expected["tokens"]


def test_tokens_in_and_out(cli):
    result = cli("generate", "plain", "--prompt-ids", "3,4 5", "-n", 4)
    tokens = list(map(int, result.stdout.split()))
    assert tokens == cli.json("generate", "plain", "--prompt-ids", "3 4 5", "-n", 4)["tokens"]


def test_stop(cli):
    whole = cli.json("generate", "tiny", "-p", "ab", "-n", 12)["text"]
    stop = whole[4:6]
    data = cli.json("generate", "tiny", "-p", "ab", "-n", 12, "--stop", stop)
    assert data["text"] == whole[: whole.index(stop)]
    assert data["finish_reason"] == "stop"


def test_a_prompt_as_a_message(cli):
    data = cli.json("generate", "tiny", "--chat", "--system", "S", "-p", "Hi", "-n", 3)
    assert data["prompt_tokens"] == len("sS") + 1 + len("uHi") + 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tiny", "-p", ""], 7, "The prompt is empty"),
        (["tiny", "-p", "a" * 200], 7, "200 tokens are more than the context of 128"),
        (["tiny", "--chat", "-p", " "], 7, "The prompt is empty"),
        (["plain", "--prompt-ids", "3,999"], 7, "There is no token 999: the vocabulary has 257"),
        (["plain", "--prompt-ids", "a"], 2, "--prompt-ids takes numbers"),
        (["plain", "-p", "a"], 21, "plain has no tokenizer"),
        (["base", "--chat", "-p", "a"], 21, "base has no chat template"),
        (["tiny", "--chat", "-p", "refuse"], 2, "refuses this chat: No"),
        (["tiny", "-p", "a", "--top-p", "1.5"], 2, "top_p must be above 0"),
        (["tiny", "-p", "a", "--temperature", "-1"], 2, "temperature must be 0 or above"),
        (["tiny", "-p", "a", "--temperature", "nan"], 2, "temperature must be a number"),
        (["tiny", "-p", "a", "--stop", ""], 2, "stop string must not be empty"),
        (["tiny", "-p", "a", "--prompt-ids", "1"], 2, "exclude each other"),
        (["tiny", "-p", "a", "--system", "b"], 2, "--system is for --chat"),
        (["tiny", "-p", "a", "--ngram", "--draft", "other"], 2, "not from both"),
        (["missing", "-p", "a"], 9, "There is no artifact at missing"),
    ],
)
def test_wrong_input(cli, arguments, code, message):
    assert message in cli.error("generate", *arguments, code=code)["message"]


def test_a_prompt_that_is_not_text(cli, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xff\xfe\x00")
    assert (
        "The prompt is not UTF-8" in cli.error("generate", "tiny", "--prompt-file", file, code=2)["message"]
    )


def test_no_prompt_on_a_terminal(cli, monkeypatch):
    monkeypatch.setattr("assay.cli.commands.generate._is_terminal", lambda: True)
    assert "There is no prompt" in cli.error("generate", "tiny", code=2)["message"]


def test_an_interrupt_keeps_what_came(monkeypatch, decoders):
    seen = []

    def interrupt(self):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(next(self._steps))
        return seen[-1]

    monkeypatch.setattr("assay.runtime.generate.generation.Generation.__next__", interrupt)
    result = click.testing.CliRunner().invoke(main, ["generate", "tiny", "-p", "ab"])
    assert result.exit_code == 130
    assert result.stdout == "".join(piece.text for piece in seen) + "\n"
    assert "Interrupted" in result.stderr
    assert decoders[0].paged.pool.free == decoders[0].paged.pool.size


def chat(text: str, *arguments: object, code: int = 0) -> click.testing.Result:
    command = ["chat", "tiny", "-n", "5", "--temperature", "0", *map(str, arguments)]
    result = click.testing.CliRunner().invoke(main, command, input=text)
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_chat_through_a_pipe():
    result = chat("one\n\ntwo\n/reset\none\n/exit\nthree\n", "--json")
    first, second, again = map(json.loads, result.stdout.splitlines())
    assert first["reused_tokens"] == 0
    assert second["reused_tokens"] > len("uone")
    assert again["text"] == first["text"]
    assert all(each["new_tokens"] == 5 for each in (first, second, again))


def test_chat_prints_answers():
    answers = [json.loads(line)["text"] for line in chat("one\ntwo\n", "--json").stdout.splitlines()]
    assert chat("one\ntwo\n").stdout == "".join(f"{answer}\n" for answer in answers)


def test_a_chat_draws_unless_told_otherwise():
    def answer(*arguments: str) -> str:
        command = ["chat", "tiny", "-n", "12", *arguments]
        return click.testing.CliRunner().invoke(main, command, input="one\n").stdout

    greedy = answer("--temperature", "0")
    drawn = {answer("--seed", str(seed)) for seed in range(4)}
    assert len(drawn) > 1
    assert answer("--seed", "1") in drawn
    assert answer("--top-k", "1") == greedy


def test_chat_says_what_is_no_command():
    result = chat("/nothing\n/help\n/reset\n")
    assert "There is no command /nothing" in result.stderr
    assert result.stderr.count("/exit or Ctrl-D ends") == 2
    assert result.stdout == ""


def test_a_chat_that_is_too_long_fails_in_a_pipe():
    assert "more than the context of 128" in chat("a" * 300 + "\n", code=7).stderr


def test_a_chat_needs_a_template():
    result = click.testing.CliRunner().invoke(main, ["chat", "base"], input="a\n")
    assert result.exit_code == 21
    assert "base has no chat template" in result.stderr


def test_an_interrupt_stops_the_answer_and_not_the_chat(monkeypatch):
    original = chat_command.click.echo
    before = signal.getsignal(signal.SIGINT)
    shown = []

    def echo(*arguments: object, **options: object) -> None:
        shown.append(arguments)
        if len(shown) == 2:
            signal.raise_signal(signal.SIGINT)
        original(*arguments, **options)

    monkeypatch.setattr("assay.cli.commands.chat.click.echo", echo)
    result = chat("one\ntwo\n", "-v")
    assert "2 new" in result.stderr  # of the first answer
    assert "5 new" in result.stderr  # of the second
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_interrupt_ends_the_answer_at_once(monkeypatch):
    with chat_command._interrupts() as seen:
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
