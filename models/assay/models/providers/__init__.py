"""Where models come from: one frozen dataclass a file, each satisfying ``assay.models.spec.Provider``."""

from __future__ import annotations

from assay.models.providers.bound_inputs import BoundInputs
from assay.models.providers.gguf_file import GgufFile
from assay.models.providers.hugging_face_folder import HuggingFaceFolder
from assay.models.providers.onnx_file import OnnxFile
from assay.models.providers.pypi_package import PackageMember
from assay.models.providers.quantized import QuantFormat, Quantized
from assay.models.providers.random_decoder import RandomDecoder
from assay.models.providers.random_weights import RandomWeights
from assay.models.providers.torch_decoder import TorchDecoder, spec_from_torch
from assay.models.providers.torch_module import TorchModule

__all__ = [
    "BoundInputs",
    "GgufFile",
    "HuggingFaceFolder",
    "OnnxFile",
    "PackageMember",
    "QuantFormat",
    "Quantized",
    "RandomDecoder",
    "RandomWeights",
    "TorchDecoder",
    "TorchModule",
    "spec_from_torch",
]
