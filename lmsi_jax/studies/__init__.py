"""Studies: many runs that differ in a few settings, over seeds, in one table."""
