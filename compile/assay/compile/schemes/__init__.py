"""Quantization schemes: one scheme, one file, one line in the registry.

A name may be followed by options: ``int4-g64-sym`` (or ``int4:g64:sym``).
"""

from __future__ import annotations

import dataclasses
from functools import cache

from assay.compile.schemes import bf16, f16, f32, int4, int8, int8_dynamic, int8_static, source
from assay.compile.schemes.scheme import Scheme, SchemeOptions
from assay.errors import UnknownNameError, UsageError
from assay.registry import Registry

__all__ = ["Scheme", "SchemeOptions", "find_scheme", "schemes"]


@cache
def schemes() -> Registry[Scheme]:
    """All schemes by name, without options."""
    registry: Registry[Scheme] = Registry("scheme")
    for module in (f32, f16, bf16, int8, int4, int8_dynamic, int8_static, source):
        registry.add(module.SCHEME.name, module.SCHEME)
    return registry


def find_scheme(text: str) -> Scheme:
    """The scheme that ``text`` names: a registered name and options behind it, in any order.

    Raises UnknownNameError, which suggests the nearest name or option, and UsageError for a group size that
    does not fit, or where two options contradict each other.
    """
    known = schemes()
    words = text.replace(":", "-").split("-")
    size = next((n for n in range(len(words), 0, -1) if "-".join(words[:n]) in known), 1)
    scheme = known["-".join(words[:size])] if "-".join(words[:size]) in known else known[text]
    chosen = SchemeOptions()
    for word in words[size:]:
        option = scheme.option_words().get(word)
        if option is None:
            if not scheme.option_words():
                raise UsageError(f"The scheme {scheme.name} takes no options, not {word!r}.")
            if word[:1] == "g" and word[1:].isdecimal():
                fitting = ", ".join(known for known in scheme.option_words() if known[1:].isdecimal())
                raise UsageError(f"A group of {word[1:]} weights does not fit.", hint=f"Known: {fitting}.")
            raise UnknownNameError(f"option of the scheme {scheme.name}", word, scheme.option_words())
        for field in dataclasses.fields(option):
            value, earlier = getattr(option, field.name), getattr(chosen, field.name)
            if value is None:
                continue
            if earlier is not None and earlier != value:
                raise UsageError(f"The scheme {text!r} has two values for one option.")
            chosen = dataclasses.replace(chosen, **{field.name: value})
    return scheme.with_options(chosen)
