from __future__ import annotations

from typing import Any

import pytest

from assay.compile.schedules.choices import (
    ANALYTIC,
    Choice,
    Tuning,
    Workload,
    batched_matmul_workload,
    conv2d_workload,
    packed_matmul_workload,
)

CONVOLUTION = conv2d_workload((1, 14, 14), 64, 32, (3, 3), (2, 2), (1, 1), 1)
WORKLOADS = [packed_matmul_workload(19, 384, 1536), batched_matmul_workload(12, 19, 19, 32), CONVOLUTION]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_key_names_its_workload(workload: Workload) -> None:
    assert Workload.parse(workload.key) == workload


def test_the_keys_stay_what_records_have() -> None:
    assert WORKLOADS[0].key == "packed_matmul float32 rows=19 cols=384 depth=1536"
    assert CONVOLUTION.key == (
        "conv2d float32 batch=1 height=14 width=14 inputs=64 outputs=32 kernel_h=3 kernel_w=3 stride_h=2 "
        "stride_w=2 dilation_h=1 dilation_w=1 groups=1"
    )


@pytest.mark.parametrize(
    "key",
    [
        "",
        "packed_matmul",
        "packed_matmul float32",
        "matmul float32 rows=1 cols=1 depth=1",
        "packed_matmul float32 rows=1 cols=1",
        "packed_matmul float32 cols=1 rows=1 depth=1",
        "packed_matmul float32 rows=0 cols=1 depth=1",
        "packed_matmul float32 rows=-1 cols=1 depth=1",
        "packed_matmul float32 rows=1 cols=1 depth=x",
    ],
)
def test_what_is_no_workload(key: str) -> None:
    with pytest.raises(ValueError, match=r"is (no workload|not a valid)"):
        Workload.parse(key)


def test_multiply_adds() -> None:
    assert [workload.operations for workload in WORKLOADS] == [
        19 * 384 * 1536,
        12 * 19 * 19 * 32,
        14 * 14 * 32 * 64 * 9,
    ]


def test_a_choice_says_only_what_it_decides() -> None:
    choice = Choice(rows=5, panel_width=16, serial=False)
    assert choice.as_dict() == {"rows": 5, "panel_width": 16, "serial": False}
    assert Choice.from_dict(choice.as_dict()) == choice
    assert ANALYTIC.as_dict() == {}


@pytest.mark.parametrize(
    "decided", [{"height": 3}, {"rows": 0}, {"rows": -1}, {"rows": True}, {"rows": "3"}, {"serial": 1}]
)
def test_choices_that_make_no_sense(decided: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a choice has no|cannot be"):
        Choice.from_dict(decided)


def test_a_workload_without_a_measured_choice_is_left_to_arithmetic() -> None:
    tuning = Tuning(choices={WORKLOADS[0].key: Choice(rows=3)})
    assert tuning.choice(WORKLOADS[0]).rows == 3
    assert tuning.choice(WORKLOADS[1]) is ANALYTIC
    assert tuning.described() == Tuning(choices=dict(tuning.choices)).described()
    assert tuning.described() != Tuning(choices={}, serial_kernels=frozenset({"a"})).described()
