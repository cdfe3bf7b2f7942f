"""Memory beyond a turn: what an actor's sessions leave behind, by namespace, and how it comes back into a prompt."""
