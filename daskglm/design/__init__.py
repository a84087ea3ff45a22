"""From columns of a table to columns of X: learnt once, frozen, replayed on every partition."""
