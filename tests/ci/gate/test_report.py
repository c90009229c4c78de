from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from assay.ci.gate.report import gate_schema
from assay.errors import InconclusiveError, NothingMeasuredError, RegressionError

SCHEMA = Path(__file__).parents[3] / "docs" / "schema" / "gate.schema.json"


def test_checked_in_schema_is_current():
    generated = json.dumps(gate_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text() == generated, (
        "stale; run: python -m assay.ci.gate.report > docs/schema/gate.schema.json"
    )


def test_schema_accepts_a_report_and_refuses_an_unknown_field(make_report, make_row):
    validator = jsonschema.Draft202012Validator(gate_schema())
    document = json.loads(msgspec.json.encode(make_report(make_row("regression"))))
    validator.validate(document)
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        validator.validate({**document, "surprise": 1})


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("unchanged", "improvement"), 0),
        (("unchanged", "regression", "inconclusive"), RegressionError.exit_code),
        (("unchanged", "inconclusive"), InconclusiveError.exit_code),
        ((), NothingMeasuredError.exit_code),
        (("missing",), NothingMeasuredError.exit_code),
    ],
)
def test_exit_codes_tell_apart(make_report, make_row, verdicts, code):
    assert make_report(*map(make_row, verdicts)).exit_code == code
