"""Benchmarks of the engine: one file a benchmark, one line in ``table.BENCHMARKS``."""
