"""Builds, searches and measurements as independent jobs, on the workers of a Dask cluster."""

from __future__ import annotations

__all__: list[str] = []
