from __future__ import annotations

from assay.ci.gate.markdown import MOST_BYTES, gate_markdown, write_markdown


def test_status_comes_first_and_details_are_folded(make_report, make_row, tmp_path):
    rows = [
        make_row("unchanged", metric="kernels"),
        make_row("improvement"),
        make_row("regression", model="b"),
    ]
    write_markdown(tmp_path / "gate.md", make_report(*rows))
    text = (tmp_path / "gate.md").read_text()
    assert text.startswith("### assay gate: Failed: 1 regression, 1 improvement, 1 unchanged.")
    before_details = text.partition("<details>")[0]
    assert before_details.index("**regression**") < before_details.index("improvement |")
    assert "kernels" not in before_details
    assert "<summary>1 unchanged</summary>" in text
    assert "its CPUs were busy" in text
    assert text.count("<details>") == text.count("</details>") == 3


def test_thousands_of_benchmarks_fit_into_a_comment(make_report, make_row):
    verdicts = ("regression", "inconclusive", "unchanged", "missing")
    rows = [
        make_row(verdicts[number % 4], benchmark=f"größe-{number}/threads=1", reason="Weil es so ist. " * 9)
        for number in range(8000)
    ]
    text = gate_markdown(make_report(*rows))
    assert MOST_BYTES / 2 < len(text.encode()) <= MOST_BYTES
    assert "2000 regression" in text.splitlines()[0]
    assert "And " in text
    assert text.count("<details>") == text.count("</details>")


def test_names_have_no_meaning_for_markdown(make_report, make_row):
    row = make_row("regression", benchmark="a|b`c`\n| d", reason="<img src=x> @everybody [a](b) | x\n\n# y")
    text = gate_markdown(make_report(row))
    (line,) = [line for line in text.splitlines() if "a\\|b" in line and line.startswith("|")]
    assert line.replace("\\|", "").count("|") == 7
    assert "<img" not in text
    assert "@everybody" not in text
    assert "\n# y" not in text


def test_everything_long_is_cut(make_report, make_row):
    long = "x" * 100_000
    report = make_report(make_row("regression", benchmark=long, reason=long), notes=(long,) * 50)
    assert len(gate_markdown(report).encode()) <= MOST_BYTES
