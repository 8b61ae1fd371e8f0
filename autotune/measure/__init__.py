"""Trials: one fresh child process each, observed from outside, never trusted to survive."""
