"""The site the shop runs on."""
