"""From the broker to the runners: what a child claims, and what of it may run now."""
