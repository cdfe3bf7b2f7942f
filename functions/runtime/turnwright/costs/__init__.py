"""What a turn costs: measured while it runs, priced, and kept as its receipt."""
