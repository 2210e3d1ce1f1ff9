"""Readers of traces: calls and spans as tracers record them, joined into runs."""
