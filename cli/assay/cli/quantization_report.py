"""What quantizing a model costs, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from assay.compile.quantize.distortion import Distortion
    from assay.compile.quantize.session import QuantizationReport
    from assay.compile.quantize.sizes import SchemeSize
    from assay.compile.schemes import Scheme

__all__ = ["report_json", "report_tables", "sizes_json", "sizes_table"]


def report_tables(report: QuantizationReport) -> list[Table]:
    """One table of the weights, one of the outputs and the task."""
    from rich.table import Table

    weights = Table(
        *("weight", "read by", "shape", "scheme", "bytes", "bits", "SQNR", "cosine", "note"),
        title=f"{report.spec.name} as {report.plan.scheme.name}",
        title_justify="left",
    )
    for tensor in report.tensors:
        weights.add_row(
            tensor.name,
            ", ".join(tensor.operators),
            " x ".join(map(str, tensor.shape)),
            tensor.scheme,
            f"{tensor.bytes:,}",
            f"{8 * tensor.bytes / tensor.elements:.3f}",
            _decibels(tensor.error),
            f"{tensor.error.cosine:.6f}",
            tensor.note or "",
        )
    if report.error is not None:
        weights.add_section()
        weights.add_row(
            *(f"{len(report.tensors)} weights", "", f"{report.elements:,}", "", f"{report.bytes:,}"),
            *(f"{8 * report.bytes / report.elements:.3f}", _decibels(report.error)),
            *(f"{report.error.cosine:.6f}", ""),
        )
    effects = Table("", "before", "quantized", "over", title="What it costs", title_justify="left")
    for name, error in report.errors.items():
        effects.add_row(f"SQNR of {name}", "", _decibels(error), "")
    for effect in report.effects:
        before = "" if effect.before is None else f"{effect.before:.4f}"
        effects.add_row(effect.measure, before, f"{effect.after:.4f}", f"{effect.count:,}")
    return [weights, effects]


def _decibels(error: Distortion) -> str:
    return "exact" if error.sqnr is None else f"{error.sqnr:.1f} dB"


def report_json(report: QuantizationReport) -> dict[str, Any]:
    """The report; sizes in bytes, ``sqnr`` in dB, None where nothing is lost."""
    return {
        "model": report.spec.name,
        "scheme": report.plan.scheme.name,
        "overrides": [f"{each.pattern}={each.scheme.name}" for each in report.plan.overrides],
        "path": None if report.path is None else str(report.path),
        "tensors": [
            {
                "name": tensor.name,
                "operators": list(tensor.operators),
                "shape": list(tensor.shape),
                "scheme": tensor.scheme,
                "elements": tensor.elements,
                "bytes": tensor.bytes,
                "bits_per_weight": 8 * tensor.bytes / tensor.elements,
                **_error_json(tensor.error),
                "note": tensor.note,
            }
            for tensor in report.tensors
        ],
        "total": {
            "elements": report.elements,
            "bytes": report.bytes,
            "bits_per_weight": 8 * report.bytes / report.elements if report.elements else None,
            **({} if report.error is None else _error_json(report.error)),
        },
        "outputs": [{"name": name, **_error_json(error)} for name, error in report.errors.items()],
        "effects": [
            {"measure": each.measure, "before": each.before, "after": each.after, "count": each.count}
            for each in report.effects
        ],
    }


def _error_json(error: Distortion) -> dict[str, float | None]:
    return {"sqnr": error.sqnr, "cosine": error.cosine, "max_absolute_error": error.largest}


def _sizes(chosen: Scheme | None) -> list[SchemeSize]:
    """Those of every scheme that implies a size, and of ``chosen``."""
    from assay.compile.quantize.sizes import scheme_sizes
    from assay.compile.schemes import find_scheme, schemes

    listed = [scheme for scheme in schemes().values() if scheme.changes_weights]
    listed += [find_scheme(name) for name in ("int4-sym", "int4-g128")]
    if chosen is not None and chosen.changes_weights and chosen not in listed:
        listed.append(chosen)
    return scheme_sizes(listed)


def sizes_json(chosen: Scheme | None = None) -> list[dict[str, Any]]:
    """Bytes that each scheme implies: of one weight, and of the weights of Llama-2-7B."""
    return [
        {"scheme": size.scheme, "bytes_per_weight": size.bytes_per_weight, "llama_2_7b": size.seven_billion}
        for size in _sizes(chosen)
    ]


def sizes_table(chosen: Scheme | None = None) -> Table:
    """The same as a table."""
    from rich.table import Table

    table = Table(
        *("scheme", "bytes of a weight", "bits", "Llama-2-7B"),
        title="What schemes imply (computed)",
        title_justify="left",
    )
    for size in _sizes(chosen):
        gigabytes = f"{size.seven_billion / 1e9:.2f} GB"
        table.add_row(
            size.scheme, f"{size.bytes_per_weight:.5g}", f"{8 * size.bytes_per_weight:.4g}", gigabytes
        )
    return table
