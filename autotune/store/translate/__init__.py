"""Values to rows and rows to values, each pair side by side. No connection is used here."""
