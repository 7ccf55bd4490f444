"""The limits of a run: what it measured of the known limits of self-improvement, and remarks on what it could not decide."""
