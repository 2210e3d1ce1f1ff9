"""HTTP: a scoring server and a search gateway, for clients that others wrote."""
