"""The verbs: one verb, one file, each with a ``command``."""
