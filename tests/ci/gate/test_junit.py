from __future__ import annotations

import xml.etree.ElementTree as ET

from assay.ci.gate.junit import junit_xml, write_junit


def parse(report) -> ET.Element:
    return ET.fromstring(junit_xml(report))


def test_every_row_is_a_case_in_the_suite_of_its_benchmark(make_report, make_row, tmp_path):
    rows = [
        make_row("regression"),
        make_row("unchanged", metric="kernels"),
        make_row("inconclusive", benchmark="other"),
        make_row("missing", benchmark="other", metric="error"),
        make_row("regression", benchmark="third", fails=False, accepted="Known."),
    ]
    write_junit(tmp_path / "gate.xml", make_report(*rows))
    root = ET.parse(tmp_path / "gate.xml").getroot()
    assert [suite.get("name") for suite in root] == ["net/threads=1", "other", "third"]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "1")
    assert [suite.get("skipped") for suite in root] == ["0", "1", "0"]
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("type") == "regression"
    assert "+10.0%" in failure.get("message", "")
    assert "Known." in str(root.findtext("testsuite[@name='third']/testcase/system-out"))


def test_text_that_xml_cannot_hold(make_report, make_row):
    row = make_row("regression", benchmark="a<b>&\x00\x1b", reason="\ud800 \x07 ]]>")
    case = parse(make_report(row)).find("testsuite/testcase")
    assert case is not None
    assert case.get("classname") == "a<b>&\ufffd\ufffd"


def test_nothing_measured_is_an_error(make_report):
    root = parse(make_report())
    assert root.get("errors") == "1"
    assert root.find("testsuite/testcase/error") is not None
