"""What to try next, when to stop, and the proof at the end."""
