"""What a running call knows of itself, and says of itself."""
