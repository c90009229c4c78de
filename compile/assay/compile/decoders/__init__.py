"""Decoders: from the canonical ONNX with past and present to one entry over a paged cache.

``interface`` says what that entry takes and gives, ``paged_graph`` rewrites the ONNX, ``projections`` joins
products of one operand, ``verification`` compares with ONNX Runtime. The kernels are in ``schedules``.
"""
