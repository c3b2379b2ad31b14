"""Figures: one file per figure; each function takes a table or result and returns a plotly Figure."""
