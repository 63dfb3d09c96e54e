"""Checkpoints in and out: Hugging Face's folders, files and tensor names."""
