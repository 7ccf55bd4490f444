"""The device mesh, and the rules that map logical axes to mesh axes."""
