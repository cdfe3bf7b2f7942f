"""What looks into a running stack, and acts on it: executions, dead letters, memory, receipts, traces."""
