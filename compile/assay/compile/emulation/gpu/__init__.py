"""Kernels for GPUs, executed on the CPU: their source, compiled with headers of ours for a device's."""
