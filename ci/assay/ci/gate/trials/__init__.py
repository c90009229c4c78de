"""Trials of the gate: how often it is wrong on identical code, and which slowdowns it catches."""
