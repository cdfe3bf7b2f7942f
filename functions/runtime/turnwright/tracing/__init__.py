"""What happened, told to operators: trace events, logs and metrics, with as much of the texts as is allowed."""
