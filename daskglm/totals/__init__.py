"""The sums a GLM needs of the data: pure functions of a block, and records that add."""
