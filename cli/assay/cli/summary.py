"""What a run's outputs look like, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.table import Table

__all__ = ["summarize", "summary_table"]

_TOP = 5


def summarize(outputs: Mapping[str, npt.NDArray[Any]], *, classifier: bool) -> list[dict[str, Any]]:
    """For each output its name, dtype, shape, range and mean, and for a classifier its five best classes.

    Range and mean are over the finite elements, and None where there are none.
    """
    return [_summary(name, array, classifier=classifier) for name, array in outputs.items()]


def _summary(name: str, array: npt.NDArray[Any], *, classifier: bool) -> dict[str, Any]:
    import numpy as np

    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    found: dict[str, Any] = {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "mean": float(finite.mean()) if finite.size else None,
        "not_finite": int(values.size - finite.size),
    }
    # Classic networks end in [batch, classes, 1, 1].
    if classifier and array.ndim >= 2 and array.shape[1] > _TOP and array[0].size == array.shape[1]:
        scores = values[0].ravel()
        best = np.argsort(-scores, kind="stable")[:_TOP]
        found["top"] = [{"class": int(index), "score": float(scores[index])} for index in best]
    return found


def summary_table(summaries: list[dict[str, Any]]) -> Table:
    """The summaries as a table."""
    from rich.table import Table

    table = Table()
    table.add_column("output", overflow="fold")
    for heading in ("dtype", "shape", "min", "max", "mean"):
        table.add_column(heading, justify="right")
    table.add_column("notes", overflow="fold")
    for found in summaries:
        numbers = ["" if found[key] is None else f"{found[key]:.5g}" for key in ("min", "max", "mean")]
        notes = []
        if found["not_finite"]:
            notes.append(f"{found['not_finite']} NaN or infinite")
        if "top" in found:
            best = ", ".join(f"{entry['class']} ({entry['score']:.4g})" for entry in found["top"])
            notes.append(f"best classes: {best}")
        shape = ", ".join(map(str, found["shape"]))
        table.add_row(found["name"], found["dtype"], f"[{shape}]", *numbers, "; ".join(notes))
    return table
