"""Executions that ended badly: whose failures are recorded, and how the others are found."""
