"""The durable store: the only SQL, the only commit."""
