"""Launch plans: from a Relax module whose memory is planned to the data that a small driver runs."""

from __future__ import annotations

__all__: list[str] = []
