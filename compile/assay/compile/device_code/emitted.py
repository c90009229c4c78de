"""What the compilers of device code give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.runtime.device_code import CodeFormat, DeviceCode, KernelResources

__all__ = ["EmittedCode"]


@dataclass(frozen=True, kw_only=True)
class EmittedCode:
    """Files of device code by name, and their description."""

    files: Mapping[str, bytes]
    description: DeviceCode

    @property
    def kernels(self) -> Mapping[str, KernelResources]:
        """What each kernel takes."""
        return self.description.kernels

    def content(self, form: CodeFormat) -> bytes:
        """The file of that format. Raises KeyError where there is none."""
        return self.files[self.description.files[form]]
