"""Quantization: weights and activations in fewer bits, as a rewriting of canonical ONNX, and what it costs.

A scheme (``assay.compile.schemes``) says how tensors are stored; this package finds the tensors, rounds them,
rewrites the graph, and measures the error. Nothing here needs the compiler.
"""
