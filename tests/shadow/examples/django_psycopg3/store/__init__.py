"""Products, orders, and what happened to them."""
