"""What continuous integration decides by; its recipes, in ``ci/recipes``, call nox and nothing else."""
