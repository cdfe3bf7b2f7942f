"""`make demo`: the banking agent at work, as a caller sees it."""
