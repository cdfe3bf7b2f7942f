"""The offline stack: the deployed template, run on one machine. Never shipped."""
