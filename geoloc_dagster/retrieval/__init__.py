"""Embeddings, the FAISS index and re-ranking."""
