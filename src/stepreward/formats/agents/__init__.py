"""Readers of agents' logs, one module for each layout."""
