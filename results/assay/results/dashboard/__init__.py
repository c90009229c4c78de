"""A static site of figures over commits, which a person reads in ten seconds."""
