"""Files: what models are written to and read from."""
