"""Load: arrivals, the generator and what stops it."""
