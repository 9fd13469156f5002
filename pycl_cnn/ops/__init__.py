"""What the operations mean: shape rule, gradient, float64 reference and cost, one file per family."""
