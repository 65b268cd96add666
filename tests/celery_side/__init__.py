"""What runs in Celery's own environment: it can import nothing of this project."""
