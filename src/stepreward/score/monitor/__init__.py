"""Monitors: after each turn of an agent *continue, warn or stop*, at a bounded rate of false alarms."""
