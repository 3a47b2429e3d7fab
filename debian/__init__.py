"""What makes the Debian package."""
