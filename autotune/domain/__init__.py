"""Frozen values that travel between the rooms. Standard library only."""
