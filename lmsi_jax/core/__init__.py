"""What every layer stands on: dimension legend, configs, records, random keys, metrics."""
