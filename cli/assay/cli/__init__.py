"""The ``assay`` command: thin, every verb one call into the layers below.

``main`` holds the group and maps errors to exit codes; ``commands`` has one file per verb, imported when the
verb is used; ``output`` is how everything reaches the terminal.
"""
