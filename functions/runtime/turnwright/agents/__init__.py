"""What an agent is: its file, its versions, its tools and retry policies, and how its memory is configured."""
