"""Traces: the span table, its files, and the receiver that fills it."""
