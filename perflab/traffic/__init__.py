"""Traffic as it is described: scenarios and their endpoints."""
