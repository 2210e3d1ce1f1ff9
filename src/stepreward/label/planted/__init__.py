"""Estimators that change solutions at a step that they choose: right ones made wrong there, and wrong ones right."""
