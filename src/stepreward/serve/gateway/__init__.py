"""The search gateway: chat completions, answered by a search."""
