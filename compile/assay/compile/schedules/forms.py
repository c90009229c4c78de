"""Scheduled forms of kernels that no schedule of ours matches, found by search and kept as TVM's JSON."""

from __future__ import annotations

import hashlib
from typing import Any

import tvm

from assay.compile.schedules.choices import Tuning

__all__ = ["form_key", "known_form"]


def form_key(function: Any) -> str:
    """What names a PrimFunc in its unscheduled form: SHA-256 of its script without its own name."""
    attrs = dict(function.attrs or {})
    plain = function.without_attr("global_symbol") if "global_symbol" in attrs else function
    return hashlib.sha256(str(plain.script()).encode()).hexdigest()


def known_form(function: Any, tuning: Tuning | None) -> Any | None:
    """The form that was found for ``function``, with the function's own attributes; None without one."""
    if tuning is None or not tuning.forms:
        return None
    kept = tuning.forms.get(form_key(function))
    if kept is None:
        return None
    form = tvm.ir.load_json(kept)
    for name, value in dict(function.attrs or {}).items():
        form = form.with_attr(name, value)
    return form if "global_symbol" in dict(function.attrs or {}) else form.without_attr("global_symbol")
