"""What is remembered of an actor: records and summaries, how they are found, and whose they are."""
