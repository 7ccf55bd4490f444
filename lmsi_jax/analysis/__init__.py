"""Tables, plots and the report of a work directory."""
