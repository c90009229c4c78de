"""Schedules: how each kind of loop nest is tiled, vectorized and shared between threads. One family a file."""
