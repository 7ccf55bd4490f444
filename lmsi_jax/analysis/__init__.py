"""From a work directory to tables, plots and a report."""
