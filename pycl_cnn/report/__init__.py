"""What there is to say about a model: its summary, pictures, and what its steps took."""
