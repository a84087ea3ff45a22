"""Arithmetic on one block of rows: compiled, and ignorant of families."""
