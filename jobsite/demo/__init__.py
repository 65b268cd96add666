"""The demonstration site."""
