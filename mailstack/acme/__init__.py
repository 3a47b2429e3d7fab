"""A certificate that everybody knows, from an authority that speaks ACME (RFC 8555)."""
