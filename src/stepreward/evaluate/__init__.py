"""Benchmarks and metrics of step scores."""
