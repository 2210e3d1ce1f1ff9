"""Rows of a command's data: scored one by one where a batch fails, and read again with what was computed of them."""
