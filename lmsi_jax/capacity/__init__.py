"""Plans of the memory, time and cost of a run, for devices that this machine does not have."""
