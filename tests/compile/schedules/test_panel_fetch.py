from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


def run(
    statement: Any, as_int: Callable[..., Any], simplify: Any, substitute: Any
) -> Iterator[tuple[str, int]]:
    """Execute loops over calls: the name of each call and the position that it is about."""
    from tvm import tirx

    def value(expression: Any, known: dict[Any, Any]) -> int:
        number = as_int(simplify(substitute(expression, known)))
        assert number is not None
        return int(number)

    def walk(node: Any, known: dict[Any, Any]) -> Iterator[tuple[str, int]]:
        if isinstance(node, tirx.SeqStmt):
            for inner in node.seq:
                yield from walk(inner, known)
        elif isinstance(node, tirx.For):
            for number in range(value(node.extent, known)):
                yield from walk(node.body, known | {node.loop_var: tirx.const(number, "int64")})
        elif "prefetch" in str(node.value.op):
            yield "prefetch", value(node.value.args[0].args[0].indices[0], known)
        else:
            yield "block", value(node.value.args[1], known)

    return walk(statement, {})


@pytest.mark.parametrize(
    ("depth", "width", "tiles", "walks"), [(768, 16, 21, 1), (64, 24, 3, 9), (4608, 16, 8, 1), (32, 8, 60, 3)]
)
def test_row_tiles_together_fetch_the_whole_next_panel(
    depth: int, width: int, tiles: int, walks: int
) -> None:
    pytest.importorskip("tvm")
    from tvm import tirx

    from assay.compile.schedules.ir import allocate, as_int, i64, simplify, substitute
    from assay.compile.schedules.panel_fetch import plan_fetch, walk_and_fetch

    panel_bytes = 4 * depth * walks * width
    plan = plan_fetch(
        elements=panel_bytes // 4, element_bytes=4, ahead=panel_bytes // 4, tiles=tiles, near=False
    )
    assert plan is not None
    panels, _ = allocate([4 * depth * walks * width], "float32", "panels")
    fetched = set()
    visited = []
    for tile in range(tiles):
        for walk in range(walks):
            nest = walk_and_fetch(
                plan.at(i64(tile)),
                panels,
                i64(0),
                blocks=depth // 4,
                walk=i64(walk),
                walks=walks,
                block=lambda k: tirx.Evaluate(tirx.call_extern("int32", "block", k)),
            )
            for name, at in run(nest, as_int, simplify, substitute):
                if name == "block":
                    visited.append(at)
                else:
                    fetched.add(at * 4 // 64)
    first = panel_bytes // 64
    assert set(range(first, first + -(-panel_bytes // 64))) <= fetched
    assert visited == [*range(depth // 4)] * (tiles * walks)


def test_what_caches_hold_is_not_fetched() -> None:
    pytest.importorskip("tvm")
    from assay.compile.schedules.panel_fetch import plan_fetch

    assert plan_fetch(elements=1024, element_bytes=4, ahead=1024, tiles=8, near=True) is None
    assert plan_fetch(elements=1024, element_bytes=4, ahead=1024, tiles=1, near=False) is None
