"""Calls of Bedrock models: Converse, embeddings, and questions whose answer has a form."""
