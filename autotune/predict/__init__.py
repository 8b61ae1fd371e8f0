"""Expectations: physics first, learning on the efficiency, an interval on everything."""
