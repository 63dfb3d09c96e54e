"""The gate: torch's golden answers, and how far a file may be from them."""
