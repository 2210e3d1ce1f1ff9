"""The monitor over HTTP: verdicts for agents elsewhere, and for the conversations that the gateway answers."""
