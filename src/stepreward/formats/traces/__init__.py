"""Readers of traces: recorded calls and spans, joined into runs."""
