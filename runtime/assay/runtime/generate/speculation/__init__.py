"""Speculative decoding: tokens are proposed cheaply, and the model checks several of them in one call."""
