"""The foundation of every layer: dimension legend, settings, files, records, random keys, metrics."""
