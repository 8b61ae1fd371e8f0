"""Choosing: which candidates are feasible, what better means, and why this one."""
