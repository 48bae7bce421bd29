"""Dense retrieval: BERT encoders in jax, and the retriever that asks them.

Alone in retrieval/ in knowing jax, and only where an encoder computes (bert, weights, encoder).
"""

from mem1_jax.retrieval.dense.encoder import CrossEncoder, SentenceEncoder
from mem1_jax.retrieval.dense.retriever import DenseRetriever
