"""What is asked of a finished fit: covariances, tests, intervals, effects, residuals and checks, from its record and its rows."""
