"""Text to ids, as Hugging Face's tokenizers have them."""
