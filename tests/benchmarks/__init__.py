"""The figures that the project claims, measured. Never timed asserts: tables to read."""
