"""From an optimum to errors and tests."""
