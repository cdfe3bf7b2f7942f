"""`make bench`: what turns and memory cost, counted."""
