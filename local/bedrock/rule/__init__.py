"""The rule model: deterministic, no language model, and saying so in every answer."""
