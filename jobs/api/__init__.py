"""What a programmer holds: tasks, calls and compositions of calls, results."""
