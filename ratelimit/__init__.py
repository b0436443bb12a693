"""Client-side token-bucket rate limiter for the OpenAI API and its compatibles."""
