"""What records say of builds: sizes, errors and perplexity, where no artifact is at hand to say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from assay.results.dashboard.model import OURS, Build, Quality
from assay.results.record import OF_ARTIFACTS, Record
from assay.results.series import Point, Series

__all__ = ["known_builds"]

_Name = tuple[str, str, str, str]


def known_builds(
    series: Sequence[Series], newest: Mapping[str, Record], builds: Iterable[Build]
) -> dict[_Name, Build]:
    """``builds``, and those that records alone tell of, by model, target, scheme and profile.

    What a build does not say, the newest figures of it say. ``newest`` are records by content key.
    """
    known = {(build.model, build.target, build.scheme, build.profile): build for build in builds}
    for name, figures in _newest_figures(series).items():
        latest = max(figures.values(), key=lambda point: point.time)
        record = newest.get(latest.key)
        model, target, scheme, profile = name
        build = known.get(name) or Build(
            model=model,
            target=target,
            scheme=scheme,
            profile=profile,
            weights=record.weights if record else "unknown",
        )
        size = figures.get("artifact_size")
        if build.size is None and size is not None:
            build = msgspec.structs.replace(build, size=round(size.value))
        known[name] = msgspec.structs.replace(build, quality=_quality(build.quality, figures, newest))
    return known


def _newest_figures(series: Iterable[Series]) -> dict[_Name, dict[str, Point]]:
    found: dict[_Name, dict[str, Point]] = {}
    for each in series:
        key = each.key
        if key.engine == OURS and key.metric in OF_ARTIFACTS:
            figures = found.setdefault((key.model, key.target, key.scheme, key.profile), {})
            before = figures.get(key.metric)
            if before is None or before.at < each.points[-1].at:
                figures[key.metric] = each.points[-1]
    return found


def _quality(
    known: Quality | None, figures: Mapping[str, Point], newest: Mapping[str, Record]
) -> Quality | None:
    distance, error = figures.get("cosine_distance"), figures.get("absolute_error")
    if known is None and distance is not None and error is not None:
        record = newest.get(error.key)
        note = record.note if record else ""
        reference = note.removeprefix("against ") if note.startswith("against ") else "ONNX Runtime"
        known = Quality(reference=reference, cosine=1 - distance.value, absolute_error=error.value)
    perplexity = figures.get("perplexity")
    if known is None or perplexity is None:
        return known
    return msgspec.structs.replace(known, perplexity=perplexity.value)
