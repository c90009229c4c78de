"""Strategies of search: one strategy, one file, one line in the registry."""

from __future__ import annotations

from functools import cache

from assay.compile.tune.strategies import bayesian, grid, random, table
from assay.compile.tune.strategies.strategy import Strategy
from assay.registry import Registry

__all__ = ["Strategy", "strategies"]


@cache
def strategies() -> Registry[Strategy]:
    """All strategies by name."""
    registry: Registry[Strategy] = Registry("strategy")
    for module in (table, grid, random, bayesian):
        registry.add(module.STRATEGY.name, module.STRATEGY)
    return registry
