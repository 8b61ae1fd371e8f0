"""Strangers' telemetry: files of other programs as imported tests."""
