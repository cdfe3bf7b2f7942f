"""The states of Erase Memory: all of an actor's memory, or of a store's, is taken away."""
