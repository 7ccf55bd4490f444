"""The command line: it parses flags and config files, and calls the other packages."""
