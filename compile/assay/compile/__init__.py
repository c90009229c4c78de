"""From canonical ONNX to an artifact: targets, schedules, lowering, verification."""
