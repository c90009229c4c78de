"""Schedules: how each kind of loop nest is tiled, vectorized and shared by threads; one family a file."""
