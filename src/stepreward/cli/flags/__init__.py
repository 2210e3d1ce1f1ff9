"""Flags of commands: made of dataclasses, read from files, and those that several commands share."""
