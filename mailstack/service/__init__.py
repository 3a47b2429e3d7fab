"""The service: roles, lifecycle, listeners, and what looks after them."""
