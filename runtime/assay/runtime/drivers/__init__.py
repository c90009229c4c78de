"""What executes an artifact. A driver takes and returns arrays in the order of the manifest."""
