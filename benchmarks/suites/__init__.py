"""What asv measures: one suite a file, over the harness of ``assay.benchmarks``. See docs/asv.md.

asv imports these files from the working tree and ``assay`` from the commit that it measures, so they use only
what changes seldom, and import it inside of functions.
"""
