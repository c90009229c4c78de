"""Models: what they are, where they come from, and how they become canonical ONNX.

Data flows through ``registry`` (a name or a path to a ``ModelSpec``), ``providers`` (the spec to an ONNX
file), ``export`` (any ONNX file to canonical ONNX) and ``inputs`` (the spec to arrays).
"""
