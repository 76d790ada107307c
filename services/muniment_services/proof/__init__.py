"""The tree over the log: leaves, tiles, signed heads, proofs, and whoever verifies them."""
