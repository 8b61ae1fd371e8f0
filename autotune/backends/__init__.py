"""One file per inference engine behind one small protocol; its library stays in its file."""
