"""What the tests share: tolerances, graphs made and evaluated by hand, and the catalogue of operations."""
