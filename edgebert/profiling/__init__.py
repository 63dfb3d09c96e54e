"""What model files take on devices, and whether they answer right there."""
