"""How sessions end, and the consolidations that are then due."""
