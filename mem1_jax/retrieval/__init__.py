"""Search back ends behind one protocol."""

from mem1_jax.retrieval.protocol import Pages, Retriever, metrics_of
