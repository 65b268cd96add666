"""The Django project around the app `jobs`: its settings, and a small demonstration site."""
