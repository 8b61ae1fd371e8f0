"""The hand: one file per command, in the order a person meets them."""
