"""The worker's parent process."""
