"""What a person sees in a terminal: colours, and trace events as rows."""
