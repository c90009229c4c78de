"""The gate: two commits built and measured in turn on one machine, and a verdict for each benchmark."""
