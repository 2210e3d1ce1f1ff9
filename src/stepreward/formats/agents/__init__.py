"""Logs of agents and of the tools that record them, a module a layout."""
