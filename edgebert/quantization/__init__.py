"""What happens to the numbers: recipes, sample texts, observed ranges, GPTQ, and what it all weighs."""
