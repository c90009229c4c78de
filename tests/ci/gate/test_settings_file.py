from __future__ import annotations

import datetime

import pytest

from assay.ci.gate.settings_file import GateFile, parse_fraction, parse_gate_file
from assay.errors import UsageError

TODAY = datetime.date(2026, 5, 1)
ACCEPTED = """
models = ["net.onnx"]
threshold = "5%"
[[accept]]
benchmark = "net*"
metric = "latency"
limit = "10%"
reason = "More exact."
author = "somebody@example.org"
expires = 2026-05-01
"""


def parse(text: str) -> GateFile:
    return parse_gate_file(text.encode(), TODAY)


def test_no_file_says_nothing():
    assert parse_gate_file(None) == GateFile()


def test_a_change_is_accepted_up_to_its_limit_and_day():
    file = parse(ACCEPTED)
    (entry,) = file.accept
    assert file.models == ("net.onnx",)
    assert entry.covers("net.onnx", "net.onnx/threads=1", "latency")
    assert not entry.covers("other", "other/threads=1", "latency")
    assert not entry.covers("net.onnx", "net.onnx/threads=1", "kernels")
    assert entry.allows("regression", 1.1)
    assert not entry.allows("regression", 1.11)
    assert not entry.allows("regression", None)
    assert not entry.allows("broken", None)


def test_one_that_expired_is_an_error_that_says_so():
    with pytest.raises(UsageError, match=r"latency of net\* expired on 2026-05-01: More exact"):
        parse_gate_file(ACCEPTED.encode(), TODAY + datetime.timedelta(days=1))


def test_what_is_missing_is_accepted_without_a_limit():
    text = ACCEPTED.replace('limit = "10%"', 'verdict = "missing"')
    assert parse(text).accept[0].allows("missing", None)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("threshold =", "treshold ="), "no key 'treshold'", "Did you mean threshold?"),
        (("limit =", "limits ="), "no key 'limits' of its accepted change 1", "Did you mean limit?"),
        (("limit =", "zzz ="), "no key 'zzz'", "Known: benchmark, metric"),
        (('"latency"', '"latancy"'), "about no metric", "Did you mean latency?"),
        (('limit = "10%"', ""), "needs a limit", None),
        (('limit = "10%"', 'limit = "a lot"'), "'a lot' is no fraction", None),
        (('limit = "10%"', 'limit = "10%"\nverdict = "broken"'), "takes no limit", None),
        (("2026-05-01", '"soon"'), r"\$\.accept\[0\]\.expires", None),
        (('reason = "More exact."', ""), "reason", None),
        (('reason = "More exact."', 'reason = ""'), "reason", None),
        (("[[accept]]", "[[accept"), "cannot be read", None),
        (('models = ["net.onnx"]', "models = 3"), r"\$\.models", None),
    ],
)
def test_what_does_not_fit_names_the_key(change, message, hint):
    with pytest.raises(UsageError, match=message) as raised:
        parse(ACCEPTED.replace(*change))
    if hint is not None:
        assert hint in str(raised.value.hint)


def test_bytes_that_are_no_text():
    with pytest.raises(UsageError, match="cannot be read"):
        parse_gate_file(b"\xff\xfe")


@pytest.mark.parametrize(("text", "value"), [("3%", 0.03), ("0.03", 0.03), (" 2.5 % ", 0.025), ("0", 0)])
def test_fractions(text, value):
    assert parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-3%", "3 percent", "nan", "1e-2", "%"])
def test_what_is_no_fraction(text):
    with pytest.raises(UsageError):
        parse_fraction(text)
