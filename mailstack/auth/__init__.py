"""Who is this? Passwords, and what it costs to guess them."""
