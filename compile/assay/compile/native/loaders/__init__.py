"""What a bundle holds beside the model, the library and the program, to be copied as it is."""

from __future__ import annotations

__all__: list[str] = []
