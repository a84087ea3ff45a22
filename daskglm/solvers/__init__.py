"""From sums to an optimum: one loop, and directions."""
