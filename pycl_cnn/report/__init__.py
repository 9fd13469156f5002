"""What there is to say about a model: its summary."""
