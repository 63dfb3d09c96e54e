"""From a model's outputs to what a user asked: one file for each kind of answer, numbers in, plain values out."""
