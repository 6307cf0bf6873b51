"""What a model answers, and what that means: judges, safety, utility and the statistics over them."""
