"""Devices of other machines: an authenticated connection on which tasks are run in fresh processes there.

The device's side (``server``) and the host's (``client``) need the base install alone.
"""

from __future__ import annotations

__all__: list[str] = []
