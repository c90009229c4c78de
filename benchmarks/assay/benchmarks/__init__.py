"""Benchmarks: engines measured side by side, round by round, in fresh processes on the same inputs.

``peers`` holds one file per engine, ``worker`` is the process that measures one of them, ``harness`` starts
the workers in turn and makes records, ``machine`` and ``provenance`` say where and with what.
"""
