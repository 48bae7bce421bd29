"""The embedded world: real facts, documents and questions rendered from them, a tokenizer."""
