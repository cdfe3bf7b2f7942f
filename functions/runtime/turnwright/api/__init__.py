"""What callers speak: HTTP as API Gateway hands it on, and event streams."""
