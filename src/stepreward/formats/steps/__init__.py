"""Rows of solutions that training and evaluation frameworks write, a module a layout."""
