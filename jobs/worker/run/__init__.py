"""The running of tasks: from a delivery to its outcome."""
