"""What arrives over HTTP: its shapes, its errors, and the checks before any work."""
