"""Models kept loaded, and the queue of requests before them."""
