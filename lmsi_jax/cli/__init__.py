"""The command line: flags and ConfigDict, and nothing else."""
