"""Passes over the whole graph, one a file: layout, constant folding, contractions, weights."""
