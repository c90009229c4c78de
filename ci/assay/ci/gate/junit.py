"""The report as JUnit XML: a test case for each row, in suites by benchmark."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from assay.ci.gate.decision import Verdict
from assay.ci.gate.report import GateReport, Row, Status
from assay.ci.gate.words import change_text, headline, side_text
from assay.runtime.atomic import replace_file

__all__ = ["junit_xml", "write_junit"]

# What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, report: GateReport) -> None:
    """Write the report to ``path``, whole or not at all. Raises StorageError."""
    with replace_file(path) as temporary:
        temporary.write_bytes(junit_xml(report))


def junit_xml(report: GateReport) -> bytes:
    """The report as ``testsuites``, UTF-8.

    What fails the gate is a ``failure``, what it could not decide an ``error``, what is left out of the
    status without an answer is ``skipped``.
    """
    root = ET.Element("testsuites", name="assay gate")
    totals = {"tests": 0, "failures": 0, "errors": 0}
    rows: dict[str, list[Row]] = {}
    for row in report.rows:
        rows.setdefault(row.benchmark, []).append(row)
    for benchmark, found in rows.items():
        suite = _suite(root, benchmark, report)
        for row in found:
            _case(suite, row)
        _count(suite, totals)
    if report.status is Status.NOTHING_MEASURED:
        suite = _suite(root, "assay gate", report)
        case = ET.SubElement(suite, "testcase", classname="assay gate", name="measured anything")
        ET.SubElement(case, "error", type="nothing measured", message=headline(report))
        _count(suite, totals)
    root.attrib.update({name: str(number) for name, number in totals.items()})
    root.set("time", f"{report.seconds:.3f}")
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n".encode()


def _suite(root: ET.Element, name: str, report: GateReport) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=_clean(name), timestamp=report.time.rstrip("Z"))
    properties = ET.SubElement(suite, "properties")
    for side, info in (("base", report.base), ("head", report.head)):
        ET.SubElement(properties, "property", name=side, value=_clean(side_text(info)))
    return suite


def _case(suite: ET.Element, row: Row) -> None:
    case = ET.SubElement(suite, "testcase", classname=_clean(row.benchmark), name=row.metric)
    told = _clean(" ".join(filter(None, (row.verdict.value, change_text(row)))))
    if row.fails:
        ET.SubElement(case, "failure", type=row.verdict.value, message=told).text = _clean(row.reason)
    elif row.undecided:
        ET.SubElement(case, "error", type=row.verdict.value, message=told).text = _clean(row.reason)
    elif row.verdict in (Verdict.MISSING, Verdict.BROKEN, Verdict.INCONCLUSIVE):
        ET.SubElement(case, "skipped", message=_clean(f"{told}: {row.accepted or row.reason}"))
    else:
        text = f"{told}: {row.reason}" + (f" Accepted: {row.accepted}" if row.accepted else "")
        ET.SubElement(case, "system-out").text = _clean(text)


def _count(suite: ET.Element, totals: dict[str, int]) -> None:
    for name, path in (
        ("tests", "testcase"),
        ("failures", "testcase/failure"),
        ("errors", "testcase/error"),
        ("skipped", "testcase/skipped"),
    ):
        number = len(suite.findall(path))
        suite.set(name, str(number))
        if name in totals:
            totals[name] += number


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
