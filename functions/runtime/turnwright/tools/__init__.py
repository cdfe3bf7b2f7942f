"""Tools that are Lambda functions: Bedrock's contract with them, circuit breakers, and what their failures mean."""
