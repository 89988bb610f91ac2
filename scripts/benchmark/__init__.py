"""``scripts/bench``: load, measurements, report."""
