"""What the nine classic CNNs of the onnx package share."""

from __future__ import annotations

from assay.models.images import decode_image, image_input
from assay.models.providers import PackageMember, RandomWeights
from assay.models.spec import DType, InputSpec, ModelSpec, Tolerance, Weights

__all__ = ["light_cnn"]

_SIDE = 224


def light_cnn(
    name: str,
    description: str,
    *,
    file: str,
    sha256: str,
    input_name: str,
    probabilities: bool = True,
    final_gain: float = 1.0,
) -> ModelSpec:
    """The network in ``file`` of the onnx package, with seeded random weights for its cut-down ones."""
    # Softmax over 1,000 classes gives about 1e-3 each, so an absolute error of 1e-4 would hide everything.
    tolerance = Tolerance(absolute=1e-6, relative=1e-3) if probabilities else Tolerance()
    return ModelSpec(
        name=name,
        description=description,
        provider=RandomWeights(
            source=PackageMember(
                distribution="onnx",
                version="1.23.2",
                member=f"onnx/backend/test/data/light/{file}",
                sha256=sha256,
            ),
            final_gain=final_gain,
        ),
        inputs=(InputSpec(name=input_name, dtype=DType.FLOAT32, shape=(1, 3, _SIDE, _SIDE)),),
        weights=Weights.RANDOM,
        licence="Apache-2.0",
        tolerance=tolerance,
        representative_inputs=image_input(input_name, _SIDE),
        decode_file=decode_image(input_name, _SIDE),
        tags=frozenset({"image", "cnn"}),
    )
