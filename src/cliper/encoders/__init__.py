"""Image and text towers behind one protocol, and the predictor of class maps."""
