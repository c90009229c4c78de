"""Which parameters a kernel writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx

from assay.compile.schedules.ir import walk

__all__ = ["statements", "written_parameters"]


def written_parameters(function: Any) -> frozenset[int]:
    """The positions of the parameters of a PrimFunc that a statement of it stores to, maybe by a view."""
    roots: dict[Any, int] = {parameter: at for at, parameter in enumerate(function.params)}
    for statement in statements(function.body):
        if isinstance(statement, tirx.DeclBuffer) and statement.data is not None:
            named = [roots[node] for node in walk(statement.data) if node in roots]
            if named:
                roots[statement.buffer] = named[0]
    stores = (each for each in statements(function.body) if isinstance(each, tirx.BufferStore))
    return frozenset(roots[each.buffer] for each in stores if each.buffer in roots)


def statements(body: Any) -> Iterator[Any]:
    """Every statement of ``body``, outer ones before those inside, in the order of the text."""
    if body is None:
        return
    yield body
    for name in ("seq", "body", "then_case", "else_case", "block", "init"):
        inner = getattr(body, name, None)
        if inner is not None:
            for part in inner if name == "seq" else [inner]:
                yield from statements(part)
